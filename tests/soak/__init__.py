"""Runs that go on for as long as one likes, killed and lied to all the while, and judged from outside."""
