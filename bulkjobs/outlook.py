"""Keeps what a session has shown of its speed in the run directory, for `bulkjobs status` to look ahead from.

It is no account of anything: it is written at most every few seconds, without a sync, and removed when the session
ends. A session that died leaves it; nobody looks at it while nobody works on the run.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import orjson

from bulkjobs.events import ChunkPlanned, Event, LockedOut, RunFinished, SessionOpened
from bulkjobs.planning import Eta, History, NoEta, eta
from bulkjobs.ports import Clock

__all__ = ["Outlook", "read_eta"]

_EVERY_S: Final = 5.0
_BEFORE: Final = (LockedOut, SessionOpened, RunFinished)
"""What counts before a session is open: its beginning, a lock-out that is not over, and its end."""
_MOST_BYTES: Final = 64 * 1024


class Outlook:
    """Watches a session and writes down what `read_eta` needs. Implements `events.Observer`."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """Makes an observer; nothing is written within the first seconds."""
        self._path = path
        self._clock = clock
        self._history = History()
        self._write_utc: float | None = None

    def __call__(self, event: Event, /) -> None:
        """Takes an event into account. A file that cannot be written is let be: the run does not need it."""
        if isinstance(event, ChunkPlanned):  # counts for nothing, and comes as often as all others together
            return
        if self._history.began_utc is None and not isinstance(event, _BEFORE):
            return
        now_utc = self._clock.utc()
        self._history.add(event, now_utc)
        if self._write_utc is None:
            self._write_utc = now_utc + _EVERY_S
        if isinstance(event, RunFinished):
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        elif not now_utc < self._write_utc <= now_utc + _EVERY_S:  # also when the clock was set back
            self._write_utc = now_utc + _EVERY_S
            with contextlib.suppress(OSError):
                self._write(orjson.dumps(self._history.as_dict()))

    def _write(self, content: bytes) -> None:
        temporary = self._path.with_name(self._path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
        temporary.replace(self._path)


def read_eta(path: Path, now_utc: float) -> Eta | NoEta:
    """Looks ahead from what a session that is at work has written down."""
    try:
        with path.open("rb") as file:
            history = History.of(orjson.loads(file.read(_MOST_BYTES)))
        return eta(history, now_utc)
    except OSError:
        return NoEta(reason="the session has just begun")
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError):
        return NoEta(reason=f"{path} cannot be read")
