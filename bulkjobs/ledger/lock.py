"""One process at a time works on a run: an advisory lock on `ledger.lock`, held for as long as the ledger is open.

`flock` and not `fcntl.lockf`: a POSIX record lock is dropped as soon as any descriptor of the file is closed
anywhere in the process. The file is never removed, because a lock on a removed file protects nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
from pathlib import Path
from typing import Final

from bulkjobs.errors import LedgerError, LedgerLocked
from bulkjobs.forking import close_locked, keep_from_children
from bulkjobs.rundir import not_written

__all__ = [
    "LOCK_NAME",
    "RunLock",
    "filesystem_at",
    "lock_owner",
    "network_filesystem",
    "refuse_network_filesystem",
]

LOCK_NAME: Final = "ledger.lock"

_OWNER_BYTES: Final = 512
"""More than "pid P on HOST" can need; what stands behind it is not read."""

# `lock_owner` holds a shared lock for some microseconds. Five tries over 40 ms tell it from a process that stays.
_TRIES: Final = 5
_BETWEEN_TRIES_S: Final = 0.01

_NETWORK_FILESYSTEMS: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ncpfs",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.davfs",
        "fuse.rclone",
    }
)
"""On these, locks and shared memory reach one host only (sqlite.org/wal.html, section 1), or lie."""


class RunLock:
    """Is the right to work on a run. Taken when made, given back by `release` or by the end of the process."""

    def __init__(self, run_dir: Path) -> None:
        """Takes the lock at once or not at all.

        Raises:
            LedgerLocked: another process has it; the message names that process.
            LedgerError: the lock file cannot be opened.
        """
        path = run_dir / LOCK_NAME
        try:
            # Descriptors that Python opens are not inherited over exec, so no child keeps the lock alive.
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise LedgerError(f"The lock file {not_written(path, error, 'opened')}") from error
        keep_from_children(self._fd)
        try:
            self._take(run_dir)
        except OSError as error:
            close_locked(self._fd)
            raise LedgerError(f"The lock file {not_written(path, error)}") from error
        except BaseException:
            close_locked(self._fd)
            raise

    def _take(self, run_dir: Path) -> None:
        if not _flock(self._fd, fcntl.LOCK_EX, tries=_TRIES):
            raise LedgerLocked(
                f"Another process works on {run_dir} ({_read_owner(self._fd)}). "
                "Wait until it ends or stop it, then give the command again. No request was made."
            )
        os.fchmod(self._fd, 0o600)  # the mode given to open() is cut by the umask
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Gives the lock back. Doing so again does nothing."""
        if self._fd >= 0:
            close_locked(self._fd)
            self._fd = -1


def lock_owner(run_dir: Path) -> str | None:
    """Tells who works on a run, e.g. "pid 4711 on host", or None when nobody does.

    Takes a shared lock for an instant; a process that starts in that instant tries again.
    """
    try:
        fd = os.open(run_dir / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _flock(fd, fcntl.LOCK_SH, tries=1) else _read_owner(fd)
    finally:
        os.close(fd)


def _flock(fd: int, kind: int, *, tries: int) -> bool:
    for left in reversed(range(tries)):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        if left:
            time.sleep(_BETWEEN_TRIES_S)
    return False


def _read_owner(fd: int) -> str:
    text = os.pread(fd, _OWNER_BYTES, 0).decode(errors="replace").partition("\n")[0]
    return text if text.isprintable() and text else "it left no name"


def filesystem_at(path: str, mounts: str) -> str | None:
    """Finds the type of the file system that holds a path.

    Args:
        path: absolute and without symbolic links.
        mounts: text of `/proc/mounts`.

    Returns:
        For instance "ext4", or None when no mount point leads to the path.

    Source: fstab(5) for the columns and for blanks written as octal escapes.
    """
    deepest, found = -1, None
    for line in mounts.splitlines():
        columns = line.split(" ")
        if len(columns) < 3:  # noqa: PLR2004 - device, mount point, type
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), columns[1])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= deepest:  # of two mounts on one point the later hides the earlier
            deepest, found = len(point), columns[2]
    return found


def network_filesystem(folder: Path) -> str | None:
    """Gives the type of the network file system that holds a folder; None for a local one, or one not known."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    kind = filesystem_at(str(folder.resolve()), mounts)
    return kind if kind in _NETWORK_FILESYSTEMS else None


def refuse_network_filesystem(run_dir: Path) -> None:
    """Passes a run directory on a local file system; one whose type cannot be told passes too.

    Raises:
        LedgerError: it lies on a network file system.
    """
    kind = network_filesystem(run_dir)
    if kind is not None:
        raise LedgerError(
            f"The run directory {run_dir} lies on a network file system ({kind}), where a ledger can be damaged. "
            "Choose one on a local disk with --run."
        )
