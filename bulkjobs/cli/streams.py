"""The standard streams, which whoever starts a command may have closed, filled or left.

A closed one stays None in `sys`, which is what sources, sinks and logs go by. Only its number is taken here.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, TextIO

from bulkjobs.errors import BulkJobsError

__all__ = ["LOG_FORMAT", "OutputError", "harmless", "hold_numbers", "on_terminal", "say", "settle", "tell"]

_NUMBERS: Final = range(3)


class OutputError(BulkJobsError):
    """Says why standard output did not take what was to be shown. The work itself was done."""


def hold_numbers() -> None:
    """Opens the null device on each of the descriptors 0 to 2 that is closed.

    Otherwise the next file or socket would get that number: what is written to stderr would end up in it, and
    uvloop aborts the process.
    """
    for number in _NUMBERS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given, and all below this one are taken.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def say(text: str) -> None:
    """Writes to stdout. A reader that went away (`| head`) or never was (`>&-`) is no failure.

    Raises:
        OutputError: stdout takes no more, for instance because the disk is full.
    """
    stream = sys.stdout
    if stream is None:
        return
    try:
        # A name on disk need not be text in any encoding.
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        _mute(stream)
    except OSError as error:
        _mute(stream)
        raise OutputError(
            f"Standard output cannot be written: {error.strerror or error}. The ledger holds what a run did; "
            "`bulkjobs status` shows it."
        ) from error


LOG_FORMAT: Final[ContextVar[str]] = ContextVar("LOG_FORMAT", default="text")
"""Set once the options are read: with `json` every line on stderr is one JSON object, also the last one."""


def tell(*lines: str, level: str = "error") -> None:
    """Writes lines to stderr, wherever that leads now; a stderr that is gone or full is no reason to fail."""
    if LOG_FORMAT.get() == "json":
        ts = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines = (json.dumps({"ts": ts, "level": level, "event": "message", "text": "\n".join(lines)}),)
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("".join(f"{harmless(line)}\n" for line in lines))
            sys.stderr.flush()


@contextlib.contextmanager
def on_terminal() -> Iterator[Callable[[str], None] | None]:
    """Gives a function that shows how far something is, in one line that goes away at the end.

    None where stderr is no terminal: in a file these lines would only be in the way.
    """
    stream = sys.stderr
    if stream is None or not stream.isatty():
        yield None
        return

    def show(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            stream.write(f"\r\x1b[K{harmless(text)}")
            stream.flush()

    try:
        yield show
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.write("\r\x1b[K")
            stream.flush()


def harmless(line: str) -> str:
    """Gives a line with what could steer a terminal or begin another line escaped: names of files may hold it."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def settle() -> None:
    """Drops what the streams hold and cannot write; else the interpreter ends with an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                _mute(stream)


def _mute(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # a stream that is closed or has no descriptor
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
