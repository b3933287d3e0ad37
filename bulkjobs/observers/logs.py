"""The log: one line for each noteworthy event, and never a flood.

What repeats is told at once, then counted, with a line at ever longer intervals, and told to be over when it
stayed away. Figures come as sums every now and then. So an outage of days is some hundred lines.
"""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Protocol, get_args

from bulkjobs.events import (
    ChunkAccepted,
    ChunkPlanned,
    ChunkRefused,
    Event,
    JobChanged,
    LockoutEnded,
    RunFinished,
)
from bulkjobs.jsonlines import json_line
from bulkjobs.observers.totals import Totals, one_line
from bulkjobs.observers.wording import Level, Saying, say
from bulkjobs.ports import Clock

__all__ = ["LineStream", "LogObserver"]

_LONGEST_SILENCE_S: Final = 600.0
"""Ten minutes: a person who looks in finds a line that is still of use."""
_PATIENCE_S: Final = 60.0
"""What goes wrong for so long, with nothing going right in between, may go on for ever: a person should know."""
_PROGRESS: Final = (ChunkAccepted, ChunkRefused, JobChanged, LockoutEnded)
_NAMES: Final = {kind: re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in get_args(Event)}
"""Each event's name in JSON, such as `chunk_accepted`."""
_OVER: Final = 4.0
"""Silences until something is over: two minutes by default, twice the longest wait between two attempts."""


class LineStream(Protocol):
    """Takes lines: `sys.stderr`, an open file, or a progress display that prints above itself."""

    def write(self, text: str, /) -> object:
        """Takes a whole line with its end."""

    def flush(self) -> object:
        """Hands on what it holds."""


@dataclass(slots=True, kw_only=True)
class _Repeated:
    """Is how often something was met, and when it may be told again."""

    count: int
    told: int
    lines: int
    next_line_utc: float
    last_utc: float


class LogObserver:
    """Writes events as lines, for people or for machines.

    A stream that can no longer be written is let go: a log nobody reads must not end a run of days.
    """

    def __init__(
        self,
        stream: LineStream,
        *,
        clock: Clock,
        format: Literal["text", "json"] = "text",  # noqa: A002 - the name of the option
        least: Level | None = None,
        every_s: float = 30.0,
    ) -> None:
        """Makes a log.

        Args:
            stream: where lines go.
            clock: gives the times in the lines.
            format: a line of words, or one JSON object a line with `ts`, `level`, `event` and fields.
            least: the lowest level written; by default `INFO` for text and `DEBUG` for JSON.
            every_s: seconds between two lines of sums, and the first silence about what repeats.
        """
        self._stream: LineStream | None = stream
        self._clock = clock
        self._json = format == "json"
        self._least = least if least is not None else (Level.DEBUG if self._json else Level.INFO)
        self._every_s = every_s
        self._totals = Totals()
        self._shown: dict[str, object] = {}
        self._next_sums_utc: float | None = None
        self._repeated: dict[str, _Repeated] = {}
        self._stuck_since_utc: float | None = None
        self._stuck_told = False

    def __call__(self, event: Event, /) -> None:
        """Writes what the event says, if it says anything new."""
        if isinstance(event, ChunkPlanned):  # says nothing, and comes as often as all others together
            return
        now_utc = self._clock.utc()
        self._totals.add(event)
        if self._repeated:
            self._tell_what_is_over(now_utc, everything=isinstance(event, RunFinished))
        if isinstance(event, LockoutEnded):
            self._repeated.pop("lockout", None)
        saying = say(event) if self._hears(event) else None
        if self._least > Level.WARN:
            saying = self._louder_when_stuck(event, saying, now_utc)
        if saying is not None and saying.level >= self._least:
            more = self._count(saying.repeats, now_utc) if saying.repeats else 0
            if more is not None:
                text = saying.text + (f" ({more:,} more like this since the last line.)" if more else "")
                fields = _fields(event) | ({"repeats": more} if more else {})
                self._write(now_utc, saying.level, _NAMES[type(event)], text, fields)
        self._sums(now_utc)

    def _hears(self, event: Event) -> bool:
        """Tells whether an event may be worth a line. No words are made for each chunk that nobody reads."""
        return self._least <= Level.DEBUG or not isinstance(event, ChunkAccepted) or event.remark is not None

    def _louder_when_stuck(self, event: Event, saying: Saying | None, now_utc: float) -> Saying | None:
        """Makes an error, once, of a warning that keeps coming while nothing else happens.

        A log that leaves warnings out would otherwise be silent for ever when the server is never reached.
        """
        if isinstance(event, _PROGRESS):
            self._stuck_since_utc, self._stuck_told = None, False
        elif saying is not None and saying.level is Level.WARN and not self._stuck_told:
            if self._stuck_since_utc is None:
                self._stuck_since_utc = now_utc
            stuck_s = now_utc - self._stuck_since_utc
            if stuck_s >= _PATIENCE_S:
                self._stuck_told = True
                text = f"Nothing has gone on for {stuck_s:.0f} s; the run keeps trying. {saying.text}"
                return Saying(level=Level.ERROR, text=text)
        return saying

    def _count(self, key: str, now_utc: float) -> int | None:
        """Counts one more of a kind; gives how many were passed over, or None to pass over this one."""
        met = self._repeated.get(key)
        if met is None:
            self._repeated[key] = _Repeated(
                count=1, told=1, lines=1, next_line_utc=now_utc + self._every_s, last_utc=now_utc
            )
            return 0
        met.count += 1
        met.last_utc = now_utc
        if now_utc < met.next_line_utc:
            return None
        silence_s = min(self._every_s * 2.0 ** min(met.lines, 30), _LONGEST_SILENCE_S)
        more, met.told, met.lines = met.count - met.told - 1, met.count, met.lines + 1
        met.next_line_utc = now_utc + silence_s
        return more

    def _tell_what_is_over(self, now_utc: float, *, everything: bool) -> None:
        for key, met in list(self._repeated.items()):
            if everything or now_utc - met.last_utc >= _OVER * self._every_s:
                del self._repeated[key]
                if met.count > met.told:
                    text = f"No more of this lately: {key}, {met.count:,} times in all."
                    self._write(now_utc, Level.INFO, "over", text, {"kind": key, "times": met.count})

    def _sums(self, now_utc: float) -> None:
        if self._next_sums_utc is None:
            self._next_sums_utc = now_utc + self._every_s
        if now_utc < self._next_sums_utc:
            return
        figures = self._totals.figures()
        if figures != self._shown:
            self._shown, self._next_sums_utc = figures, now_utc + self._every_s
            self._write(now_utc, Level.INFO, "progress", self._totals.sentence(), figures)

    def _write(self, now_utc: float, level: Level, event: str, text: str, fields: dict[str, object]) -> None:
        if self._stream is None or level < self._least:
            return
        if self._json:
            ts = (
                datetime.fromtimestamp(now_utc, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            )
            line = json_line(
                {"ts": ts, "level": level.name.lower(), "event": event}
                | {name: _as_unicode(value) for name, value in fields.items()}
            ).decode()
        else:
            day_time = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_utc))
            line = f"{day_time} {level.name.lower():<5} {one_line(text)}\n"
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._stream = None


def _as_unicode(value: object) -> object:
    """Escapes what a file name on disk may hold and JSON may not: bytes that are no UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _fields(event: Event) -> dict[str, object]:
    """Gives an event's fields flat; a record and a summary are laid open."""
    if isinstance(event, RunFinished):
        return event.summary.as_dict()
    fields: dict[str, object] = {
        field.name: getattr(event, field.name) for field in dataclasses.fields(event)
    }
    if isinstance(event, ChunkAccepted):
        del fields["record"]
        return {**event.record.as_dict(), **fields}
    return fields
