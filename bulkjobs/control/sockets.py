"""Where the control socket is, who may connect, and how long names of run directories fit into an address."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["SOCKET_NAME", "Listener", "connect", "listen", "origin_of"]

SOCKET_NAME: Final = "control.sock"
_MODE: Final = 0o600
_ROOT: Final = 0
_LONGEST_ADDRESS: Final = 103
"""Bytes. Linux has room for 107 and a NUL, the BSDs for 103."""
_WAITING: Final = 16
"""Connections that the system keeps until they are taken."""


class Listener:
    """Is the socket that takes commands for a run. To be closed by `close`."""

    def __init__(self, sock: socket.socket, folder: int) -> None:
        self.sock = sock
        self._folder = folder

    def close(self) -> None:
        """Takes the socket away, also from a run directory that was renamed meanwhile."""
        self.sock.close()
        with contextlib.suppress(OSError):
            os.unlink(SOCKET_NAME, dir_fd=self._folder)
        os.close(self._folder)


def listen(run_dir: Path) -> Listener:
    """Begins to listen. What a killed process left there is replaced: whoever holds the run is alone.

    Guarantees:
        At no moment can anybody but the owner and root connect: the socket has its mode before it has its name where
        the system can do that, and before it listens everywhere.

    Raises:
        OSError: there can be no such socket here.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no Unix sockets")
    folder = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=folder)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(sock, run_dir, folder)
            sock.listen(_WAITING)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return Listener(sock, folder)
    except BaseException:
        os.close(folder)
        raise


def _bind(sock: socket.socket, run_dir: Path, folder: int) -> None:
    # A umask is of the whole process, so setting it here would change what other threads make at this moment.
    # Linux gives the name the mode of the socket, cut by the umask; elsewhere this fails or does nothing.
    with contextlib.suppress(OSError):
        os.fchmod(sock.fileno(), _MODE)
    sock.bind(_address(run_dir, folder))
    if stat.S_IMODE(os.stat(SOCKET_NAME, dir_fd=folder, follow_symlinks=False).st_mode) != _MODE:
        os.chmod(SOCKET_NAME, _MODE, dir_fd=folder)


def connect(run_dir: Path, timeout_s: float) -> socket.socket:
    """Connects to the process that works on a run; every step may take so many seconds.

    Raises:
        OSError: nobody listens, or there can be no such socket here.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no Unix sockets")
    with _open_folder(run_dir) as folder:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(_address(run_dir, folder))
        except BaseException:
            sock.close()
            raise
        return sock


@contextmanager
def _open_folder(run_dir: Path) -> Iterator[int]:
    folder = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _address(run_dir: Path, folder: int) -> bytes:
    """Gives the address of the socket: its path, or a short way to it through the open folder."""
    path = os.fsencode(run_dir / SOCKET_NAME)
    if len(path) <= _LONGEST_ADDRESS:
        return path
    return os.fsencode(f"/proc/self/fd/{folder}/{SOCKET_NAME}")


def origin_of(fd: int) -> tuple[str, bool]:
    """Tells who is at the other end of a connection, in words, and whether that one may give commands.

    Where the system does not tell, the mode of the socket has decided already.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return "control", True
    with socket.socket(fileno=os.dup(fd)) as sock:
        told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", told)
    return f"control, uid {uid}, pid {pid}", uid in (os.geteuid(), _ROOT)
