"""Measurements: `data` makes input, `submit` times whole runs. The README here says what the numbers cannot."""
