"""What the programs have in common: they time a piece of work and print what it took."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["stopwatch"]


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Times the block, loading and preparing left out, and prints it with whatever was put into the dictionary."""
    more: dict[str, float] = {}
    wall, cpu = time.perf_counter(), _cpu_s()
    yield more
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_s() - cpu}
    print(json.dumps({**took, **more}))


def _cpu_s() -> float:
    """Gives the CPU time of this process and of the children it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
