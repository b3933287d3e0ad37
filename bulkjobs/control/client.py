"""The side that asks: one command to the process that works on a run, and its answer."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Final

from bulkjobs.control.protocol import Answer, Command, ProtocolError, read_answer, request_line
from bulkjobs.control.sockets import connect
from bulkjobs.errors import BulkJobsError, ConfigError
from bulkjobs.ledger.lock import lock_owner

__all__ = ["NoAnswer", "ask"]

_MOST_BYTES: Final = 65_536
"""An answer is a thousandth of it; whoever sends more is not the process of a run."""


class NoAnswer(BulkJobsError):  # noqa: N818 - it says what is the case
    """Says that a command was given and that nobody knows whether it was carried out."""


def ask(run_dir: Path, command: Command, *, timeout_s: float) -> Answer:
    """Gives a command to the process that works on a run.

    Args:
        run_dir: the run directory.
        command: what is wanted.
        timeout_s: how long to wait for the answer.

    Returns:
        What is in force now, or why nothing was changed.

    Raises:
        ConfigError: no process takes commands for this run. Nothing was changed.
        NoAnswer: none came in time, or none that can be read.
    """
    owner = lock_owner(run_dir)
    if owner is None:
        raise ConfigError(f"No process works on {run_dir}, so there is nothing to control.")
    until = time.monotonic() + timeout_s
    try:
        sock = connect(run_dir, timeout_s)
    except OSError as error:
        raise ConfigError(
            f"The process that works on {run_dir} ({owner}) takes no commands ({error.strerror or error}). It is "
            "just beginning or ending, is of an earlier bulkjobs, or its file system has no sockets. Nothing was "
            "changed."
        ) from error
    try:
        with sock:
            sock.sendall(request_line(command))
            return read_answer(_line(sock, until))
    except TimeoutError as error:
        why = f"has not answered for {timeout_s:g} s"
        raise _no_answer(run_dir, owner, why) from error
    except (OSError, ProtocolError) as error:
        raise _no_answer(run_dir, owner, f"gave no answer ({error})") from error


def _line(sock: socket.socket, until: float) -> bytes:
    received = b""
    while not received.endswith(b"\n") and len(received) < _MOST_BYTES:
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
        block = sock.recv(4096)
        if not block:
            raise ProtocolError("it has ended, or closed the connection")
        received += block
    return received


def _no_answer(run_dir: Path, owner: str, why: str) -> NoAnswer:
    return NoAnswer(
        f"The process that works on {run_dir} ({owner}) {why}. Whether it took the command is not known; "
        "`bulkjobs control` without one, or `bulkjobs status`, shows it once it answers."
    )
