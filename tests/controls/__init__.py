"""Engines that are broken on purpose: whoever claims to find what is wrong must find these.

The product has no switch for any of it. Each is made here by putting one piece in the place of another.
"""

from controls.engines import CONTROLS, Control, Findings, try_control

__all__ = ["CONTROLS", "Control", "Findings", "try_control"]
