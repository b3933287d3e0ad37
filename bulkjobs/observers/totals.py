"""The running account that logs and progress show, added up from events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from bulkjobs.events import (
    AttemptNotApplied,
    ChunkAccepted,
    ChunkHeld,
    ChunkPlanned,
    ChunkRefused,
    ChunkSettled,
    Controlled,
    Event,
    JobChanged,
    LockedOut,
    LockoutEnded,
    OneSubmitTries,
    QuotaRead,
    ReconcileWaits,
    RunFinished,
    RunStarted,
    SlotsFull,
    SourceProgress,
    Stopping,
    SubmitsPaused,
    SubmitsResumed,
)
from bulkjobs.model import Cause
from bulkjobs.planning import Eta, NoEta

__all__ = ["WAITS", "Totals", "clock_time", "eta_text", "one_line"]

_SUBMITTING: Final = "submitting"
_LOCKED_OUT: Final = "locked out"
_NO_SLOT: Final = "waiting for a job slot"
_PAUSED: Final = "paused"
_RECONCILING: Final = "comparing held chunks with the server's jobs"
_UNREACHED: Final = "the server cannot be reached"
_STOPPING: Final = "stopping"

WAITS: Final = {
    _LOCKED_OUT: "lockout",
    _NO_SLOT: "slot",
    _PAUSED: "outage",
    _UNREACHED: "server",
    _RECONCILING: "settling",
}
"""What is waited for, as one word, by the beginning of the words for people."""


@dataclass(slots=True, kw_only=True)
class Totals:
    """Adds up events. What was read counts over the whole run, what was decided over this session."""

    resumed: bool = False
    source: str = ""
    position_bytes: int = 0
    size_bytes: int | None = None
    read: int = 0
    invalid: int = 0
    duplicate: int = 0
    accepted: int = 0
    refused: int = 0
    held: int = 0
    held_change: int = 0
    """By how much the session has changed what the run holds; below 0 if it settled what earlier ones held."""
    all_read: bool = False
    short_of_quota: str = ""
    """Both figures, if the quota may not last."""
    waits_for: str = "starting"
    """What goes on, or what is waited for, in words."""
    waits_until_utc: float | None = None
    """When the wait ends, if that is known."""
    paused: bool = False
    """A person has told submits to wait, whatever else is waited for."""

    def add(self, event: Event) -> None:
        """Takes one event into account; those that change nothing here are passed over."""
        if isinstance(event, ChunkPlanned):
            return
        self._count(event)
        if isinstance(event, RunFinished):
            self.waits_for, self.waits_until_utc = "finished", None
        elif not self.waits_for.startswith(_STOPPING):
            # Answers that still come in do not hide that the run is about to end.
            self._notice(event)

    def _count(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.resumed = event.resumed
            case Controlled(command="pause"):
                self.paused = True
            case Controlled(command="resume" | "drain") | RunFinished():
                self.paused = False
            case SourceProgress():
                self.source, self.all_read = event.source, event.finished
                self.position_bytes, self.size_bytes = event.position_bytes, event.size_bytes
                self.read, self.invalid, self.duplicate = event.read, event.invalid, event.duplicate
            case QuotaRead() if event.fits is False:
                about = "" if event.exact else "about "
                self.short_of_quota = (
                    f"needs {about}{event.needed:,} ids, about {event.left:,} left of the quota"
                )
            case ChunkAccepted():
                self.accepted += event.record.ids
            case ChunkRefused():
                self.refused += event.ids
            case ChunkHeld():
                self.held += event.ids
                self.held_change += event.ids
            case ChunkSettled():
                self.held = max(0, self.held - event.ids)  # one that an earlier session held was not counted
                self.held_change -= event.ids
                self.accepted += event.ids if event.job_id is not None else 0
            case _:
                return

    def _notice(self, event: Event) -> None:  # noqa: C901 - one answer for each kind of event
        """Follows what is waited for. An answer that was in flight ends no wait for a lock-out or a slot."""
        waits = self.waits_for.startswith((_LOCKED_OUT, _NO_SLOT, _PAUSED))
        match event:
            case LockedOut():
                self.waits_for, self.waits_until_utc = _LOCKED_OUT, event.until_utc
            case SubmitsPaused():
                self.waits_for, self.waits_until_utc = f"{_PAUSED}: {event.reason}", event.until_utc
            case OneSubmitTries():
                self.waits_for, self.waits_until_utc = f"{_PAUSED}: one chunk tries", None
            case ReconcileWaits():
                self.waits_for, self.waits_until_utc = f"{_RECONCILING}: {event.reason}", event.until_utc
            case LockoutEnded() | SubmitsResumed():
                self.waits_for, self.waits_until_utc = _SUBMITTING, None
            case Stopping():
                self.waits_for, self.waits_until_utc = f"{_STOPPING}: {event.reason}", None
            case SlotsFull() if not self.waits_for.startswith(_LOCKED_OUT):
                self.waits_for = f"{_NO_SLOT}: {event.reason}"
            case JobChanged() if event.state.terminal and self.waits_for.startswith(_NO_SLOT):
                self.waits_for = _SUBMITTING
            case AttemptNotApplied(cause=Cause.NOT_SENT) if not waits:
                self.waits_for = f"{_UNREACHED}: {event.reason}"
            case ChunkAccepted() | ChunkRefused() if not waits:
                self.waits_for = _SUBMITTING
            case _:
                return

    @property
    def wait(self) -> str | None:
        """Is what is waited for, one of the words in `WAITS`; None when nothing is."""
        return next((word for begins, word in WAITS.items() if self.waits_for.startswith(begins)), None)

    @property
    def stopping(self) -> bool:
        """Tells whether the session is about to end early."""
        return self.waits_for.startswith(_STOPPING)

    @property
    def part_read(self) -> float | None:
        """Is the part of the current source that was read, 0 to 1; None when its size is not known."""
        if not self.size_bytes:
            return None
        return min(self.position_bytes / self.size_bytes, 1.0)

    def sentence(self) -> str:
        """Gives the figures as one line."""
        part = self.part_read
        place = "All sources read" if self.all_read else f"Reading {self.source or 'has not begun'}"
        if part is not None and not self.all_read:
            place += f" ({part:.1%})"
        session = " in this session" if self.resumed else ""
        return (
            f"{place}; ids: {self.read:,} read, {self.invalid:,} invalid, {self.duplicate:,} duplicate; "
            f"{self.accepted:,} accepted, {self.refused:,} refused, {self.held:,} held{session}."
        )

    def figures(self) -> dict[str, object]:
        """Gives the figures as fields."""
        return {
            "source": self.source,
            "position_bytes": self.position_bytes,
            "size_bytes": self.size_bytes,
            "read": self.read,
            "invalid": self.invalid,
            "duplicate": self.duplicate,
            "accepted": self.accepted,
            "refused": self.refused,
            "held": self.held,
            "waits_for": self.waits_for,
            "paused": self.paused,
        }


def one_line(text: str) -> str:
    """Gives a text with what could move a cursor or start a line escaped: reasons come from the server."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def clock_time(utc: float) -> str:
    """Gives a time of day as clocks where this runs show it."""
    return time.strftime("%H:%M:%S", time.localtime(utc))


def eta_text(ahead: Eta | NoEta, now_utc: float) -> str:
    """Says when, such as `in 20 min to 1.5 h (14:05 to 15:15)`, or that nobody can tell yet, and why."""
    if isinstance(ahead, NoEta):
        return f"at a time not known yet: {ahead.reason}"
    low, high = (_span_text(max(0.0, utc - now_utc)) for utc in (ahead.low_utc, ahead.high_utc))
    if high == low:
        return f"in {high} ({_moment(ahead.high_utc, now_utc)})"
    return f"in {low} to {high} ({_moment(ahead.low_utc, now_utc)} to {_moment(ahead.high_utc, now_utc)})"


def _span_text(seconds: float) -> str:
    """Gives a time in the unit that suits it, with two digits at most: nobody knows it better."""
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size_s:
            return (
                f"{seconds / size_s:.2g} {unit}"
                if seconds < 100 * size_s
                else f"{seconds / size_s:.0f} {unit}"
            )
    return f"{seconds:.0f} s"


def _moment(utc: float, now_utc: float) -> str:
    """Gives the time of day, with the date when it is not today."""
    at, now = time.localtime(utc), time.localtime(now_utc)
    return time.strftime("%H:%M" if at[:3] == now[:3] else "%Y-%m-%d %H:%M", at)
