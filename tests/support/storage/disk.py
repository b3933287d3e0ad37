"""The hand on the preloaded disk (`disk.c`): compiles it, starts programs on it, tells it what to do.

Only Linux has `LD_PRELOAD` in this form. Without a C compiler nothing here can be proved, so that is an error.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["Disk", "Fault", "Kind", "Mode", "environment", "is_preloaded"]

_SOURCE: Final = Path(__file__).with_name("disk.c")
_VARIABLE: Final = "BULKJOBS_TEST_DISK"
"""Is set, beside LD_PRELOAD, in a process that has the disk in front of the C library."""


class Kind(IntFlag):
    """Is what a call does to a disk."""

    WRITE = 1
    SYNC = 2
    SYNCDIR = 4
    TRUNCATE = 8
    CREATE = 16
    RENAME = 32
    UNLINK = 64
    MKDIR = 128
    ALLOCATE = 256
    READ = 512
    MARK = 1024
    """No call: a note of the test, in its place among the calls."""


NEEDS_SPACE: Final = Kind.WRITE | Kind.CREATE | Kind.MKDIR | Kind.ALLOCATE | Kind.RENAME
"""What a full disk refuses. A rename may have to make a folder larger."""


class Mode(IntEnum):
    """Is how long a fault lasts."""

    ONCE = 0
    ON = 1
    """All calls from the chosen one on."""
    UNTIL_SPACE = 2
    """All calls from the chosen one on, until a file of a megabyte or more is removed."""
    HALF = 3
    """Takes half of a write, and nothing more from then on."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Makes a call fail."""

    kinds: Kind
    at: int
    """Which call of these kinds, from 1."""
    error: int = errno.EIO
    mode: Mode = Mode.ON

    def __str__(self) -> str:
        names = "|".join(kind.name or "?" for kind in Kind if kind & self.kinds)
        return f"{errno.errorcode[self.error]} at {names} number {self.at} ({self.mode.name})"


def is_preloaded() -> bool:
    """Tells whether this process runs on the disk."""
    return _VARIABLE in os.environ


def environment() -> Mapping[str, str]:
    """Gives the environment that puts a new process on the disk."""
    library = str(_compiled())
    return {**os.environ, "LD_PRELOAD": library, _VARIABLE: library}


@cache
def _compiled() -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError(
            "The tests of storage failures need a C compiler (gcc), and there is none on the PATH. Install one; "
            "without these tests nothing is known of power failures."
        )
    source = _SOURCE.read_bytes()
    name = f"bulkjobs-disk-{os.getuid()}-{hashlib.sha256(source).hexdigest()[:16]}.so"
    library = Path(tempfile.gettempdir()) / name
    if not library.exists():
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / name
            command = [
                compiler,
                "-O2",
                "-shared",
                "-fPIC",
                "-o",
                str(made),
                str(_SOURCE),
                "-ldl",
                "-lpthread",
            ]
            subprocess.run(command, check=True)
            beside = library.with_name(f"{name}.{os.getpid()}")
            shutil.move(made, beside)
            beside.replace(library)  # at once: two test processes may come here together
    return library


class Disk:
    """Is the disk of this process. Where `is_preloaded` is false there is none."""

    def __init__(self) -> None:
        """Finds the library.

        Raises:
            RuntimeError: this process was not started with `environment()`.
        """
        if not is_preloaded():
            raise RuntimeError("This process does not run on the preloaded disk.")
        self._library = ctypes.CDLL(os.environ[_VARIABLE])
        self._library.disk_seen.restype = ctypes.c_long

    def watch(self, folder: Path, trace: int = -1) -> None:
        """Begins anew: takes down, from now on, what happens below a folder. No fault is set.

        Args:
            folder: without symbolic links in it.
            trace: descriptor that gets the calls; -1 for none.
        """
        self._library.disk_watch(os.fsencode(folder), trace)

    def fail(self, fault: Fault) -> None:
        """Sets a fault; the calls are counted from now."""
        self._library.disk_fail(int(fault.kinds), ctypes.c_long(fault.at), fault.error, int(fault.mode))

    def mend(self) -> None:
        """Takes the fault away."""
        self._library.disk_fail(0, ctypes.c_long(0), 0, 0)

    @property
    def fired(self) -> bool:
        """Tells whether the fault that was set last has struck."""
        return bool(self._library.disk_fired())

    @property
    def seen(self) -> int:
        """Is how many calls of the kinds of the fault there were."""
        return int(self._library.disk_seen())

    def mark(self, text: str) -> None:
        """Notes something in its place among the calls."""
        self._library.disk_mark(text.encode())

    def set_sync(self, *, skipped: bool = False, slow_ms: int = 0) -> None:
        """Makes each sync take no time, for images that are only read back, or some more."""
        self._library.disk_sync(int(skipped), slow_ms)
