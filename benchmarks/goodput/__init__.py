"""Compares how much of an account's limit different programs turn into accepted ids.

A comparison that anybody can repeat: `python -m benchmarks.goodput`. The same throttling server, the same ids in the
same chunks, each program in its usual configuration and as a process of its own. All figures come from the books of
the service; no contender is asked.
"""
