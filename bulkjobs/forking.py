"""Keeps locks out of forked children.

A lock of `flock` belongs to the open file, which a forked child shares: it would keep the lock for as long as it
lives, although the process that took it has ended. So a child closes its copies of such descriptors at once, which
leaves the lock with the parent. Over `exec` Python's descriptors are not inherited anyway.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

__all__ = ["close_locked", "keep_from_children"]

_locked: Final[set[int]] = set()


def keep_from_children(descriptor: int) -> None:
    """Has a child that is forked from now on begin without this descriptor."""
    _locked.add(descriptor)


def close_locked(descriptor: int) -> None:
    """Closes such a descriptor; in a child, where it is closed already, this does nothing."""
    if descriptor in _locked:
        _locked.discard(descriptor)
        os.close(descriptor)


def _leave_to_parent() -> None:
    for descriptor in _locked:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _locked.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
