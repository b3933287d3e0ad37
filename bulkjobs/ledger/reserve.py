"""Room that is kept for the worst moment: a disk fills up while requests are in flight.

What the server answers to these must still be recorded, or every one of them is a held chunk. So a file of 16 MiB
takes its room beforehand, and is removed when the disk says that it is full. Then nothing new is sent; what is in
flight needs a few KiB each.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from bulkjobs.rundir import write_all

__all__ = ["LEAST_FREE_BYTES", "RESERVE_BYTES", "RESERVE_NAME", "Reserve"]

RESERVE_NAME: Final = "ledger.reserve"
RESERVE_BYTES: Final = 16 * 1024 * 1024
LEAST_FREE_BYTES: Final = 8 * 1024 * 1024
"""With less than this free, beside the reserve, no submission begins."""
_LOOK_EVERY_S: Final = 1.0


class Reserve:
    """Is the reserve file of a run, and an eye on the room beside it. It belongs to the writer's thread."""

    def __init__(self, run_dir: Path) -> None:
        """Names the file; `make` makes it."""
        self._folder = run_dir
        self._path = run_dir / RESERVE_NAME
        self._looked_s = -_LOOK_EVERY_S
        self._low = False

    def make(self) -> None:
        """Takes the room, if there is that much; a file that is there already is kept."""
        with contextlib.suppress(OSError):
            if self._path.exists() and self._path.stat().st_size >= RESERVE_BYTES:
                return
            try:
                self._fill()
            except OSError:
                self.release()

    def _fill(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            else:  # macOS
                write_all(descriptor, bytes(RESERVE_BYTES))
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Gives the room back; False when there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def low(self) -> bool:
        """Tells whether there is too little room for another submission; looks at most once a second."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            with contextlib.suppress(OSError):
                room = os.statvfs(self._folder)
                self._low = room.f_bavail * room.f_frsize < LEAST_FREE_BYTES
        return self._low
