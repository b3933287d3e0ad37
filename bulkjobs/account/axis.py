"""Which clock the times of an event loop are of: two of the same axis can be compared."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio

__all__ = ["axis_of"]

_AXES: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, str]] = WeakKeyDictionary()


def axis_of(loop: asyncio.AbstractEventLoop) -> str:
    """Names the clock of an event loop: that of the machine since its start, or one that the loop has to itself."""
    if abs(loop.time() - time.monotonic()) < 1.0:
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return f"boot at {round((time.time() - time.monotonic()) / 60.0)}"
    return _AXES.setdefault(loop, uuid.uuid4().hex)
