"""What each event says to a person, and how loud.

Rules of this file: `warn` means that the run goes on by itself, `error` that a person has to look; `debug`
is what a log for machines has in full and a log for people only in sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from bulkjobs.events import (
    AttemptNotApplied,
    BaselineMissing,
    ChunkAccepted,
    ChunkHeld,
    ChunkPlanned,
    ChunkRefused,
    ChunkSettled,
    ChunkSplit,
    ChunkStaysHeld,
    Controlled,
    ControlMissing,
    Event,
    JobChanged,
    LimitLearned,
    LockedOut,
    LockoutEnded,
    OneSubmitTries,
    PollFailed,
    QuotaRead,
    QuotaUnknown,
    ReconcileWaits,
    RequestEnded,
    RunFinished,
    RunFinishedBefore,
    RunStarted,
    SessionOpened,
    SlotsFull,
    SourceProgress,
    StateNotShared,
    Stopping,
    SubmitsPaused,
    SubmitsResumed,
    TokenRefreshed,
)
from bulkjobs.model import Cause, JobState
from bulkjobs.observers.totals import clock_time

__all__ = ["Level", "Saying", "say"]


class Level(IntEnum):
    """Is how loud a line is."""

    DEBUG = 0
    INFO = 1
    WARN = 2
    ERROR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """Is what an event says."""

    level: Level
    text: str
    repeats: str | None = None
    """What it is one more of; such lines are told once, then counted."""


_NOT_APPLIED: dict[Cause, Level] = {
    Cause.NOT_SENT: Level.WARN,
    Cause.THROTTLED: Level.DEBUG,  # the lock-out that follows is told
    Cause.UNAUTHORIZED: Level.WARN,
    Cause.SLOTS_FULL: Level.DEBUG,  # the wait that follows is told
    Cause.TOO_LARGE: Level.WARN,
    Cause.NO_QUOTA: Level.ERROR,
    Cause.MISCONFIGURED: Level.ERROR,
    Cause.NOT_PROCESSED: Level.WARN,
}


def say(event: Event) -> Saying | None:
    """Puts an event into words; None for those that only change figures."""
    match event:
        case SessionOpened() | SourceProgress() | ChunkPlanned() | RequestEnded():
            return None
        case RunStarted() | RunFinishedBefore() | Stopping() | RunFinished():
            return _session(event)
        case ChunkAccepted() | ChunkRefused() | ChunkHeld() | AttemptNotApplied():
            return _chunk(event)
        case ChunkSplit() | BaselineMissing() | ReconcileWaits() | ChunkSettled() | ChunkStaysHeld():
            return _settling(event)
        case LockedOut() | LockoutEnded() | LimitLearned() | SlotsFull() | StateNotShared():
            return _limits(event)
        case SubmitsPaused() | OneSubmitTries() | SubmitsResumed():
            return _pausing(event)
        case QuotaRead() | QuotaUnknown():
            return _quota(event)
        case JobChanged() | PollFailed():
            return _job(event)
        case Controlled() | ControlMissing() | TokenRefreshed():
            return _control(event)
        case _:
            assert_never(event)


def _ended(reason: str) -> str:
    """Gives a reason as a sentence: some come with a full stop, those of servers may not."""
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."


def _session(event: RunStarted | RunFinishedBefore | Stopping | RunFinished) -> Saying:
    match event:
        case RunStarted():
            return _started(event)
        case RunFinishedBefore():
            text = f"The run in {event.run_dir} was finished before; nothing is sent."
            return Saying(level=Level.INFO, text=text)
        case Stopping():
            return Saying(level=Level.ERROR, text=f"Stopping: {_ended(event.reason)} Nothing more is sent.")
        case RunFinished():
            return _finished(event)
        case _:
            assert_never(event)


def _started(event: RunStarted) -> Saying:
    text = f"Run {event.run_id} {'goes on' if event.resumed else 'begins'} in {event.run_dir}."
    if not event.held_at_start:
        return Saying(level=Level.INFO, text=text)
    text += f" {event.held_at_start} chunks were in flight when the last session ended and are held."
    return Saying(level=Level.ERROR, text=text)


def _limits(event: LockedOut | LockoutEnded | LimitLearned | SlotsFull | StateNotShared) -> Saying:
    match event:
        case LockedOut():
            text = (
                f"Locked out until {clock_time(event.until_utc)} ({event.wait_s:.0f} s): {_ended(event.reason)} "
                "Nothing is sent."
            )
            return Saying(level=Level.WARN, text=text, repeats="lockout")
        case LockoutEnded():
            return Saying(level=Level.INFO, text="The lock-out is over.")
        case LimitLearned():
            text = f"From now on at most {event.requests} requests go out in {event.window_s:g} s, as was learned."
            return Saying(level=Level.WARN, text=text, repeats="limit")
        case SlotsFull():
            text = f"Waiting for a job slot: {_ended(event.reason)}"
            return Saying(level=Level.INFO, text=text, repeats="slots")
        case StateNotShared():
            text = f"Other runs of this account are not taken into account: {_ended(event.reason)}"
            return Saying(level=Level.WARN, text=text)
        case _:
            assert_never(event)


def _pausing(event: SubmitsPaused | OneSubmitTries | SubmitsResumed) -> Saying:
    match event:
        case SubmitsPaused():
            text = (
                f"Nothing is submitted, because {event.reason}. The server is asked at "
                f"{clock_time(event.until_utc)} ({event.wait_s:.0f} s) whether it answers."
            )
            return Saying(level=Level.WARN, text=text)
        case OneSubmitTries():
            text = f"One chunk goes out alone, because {_ended(event.reason)}"
            return Saying(level=Level.INFO, text=text)
        case SubmitsResumed():
            return Saying(level=Level.INFO, text="Its outcome is known; submitting goes on.")
        case _:
            assert_never(event)


_COMMANDS: dict[str, str] = {
    "pause": "Paused: nothing is submitted until `resume`. What is in flight is recorded",
    "resume": "Submitting goes on",
    "drain": "Told to drain",
    "rate": "The limit of the account is {value} now",
    "workers": "The number of workers is {value} now",
}


def _control(event: Controlled | ControlMissing | TokenRefreshed) -> Saying:
    match event:
        case Controlled():
            text = _COMMANDS[event.command].format(value=event.value)
            return Saying(level=Level.INFO, text=f"{text} ({event.origin}).")
        case ControlMissing():
            text = f"`bulkjobs control` does not work for this session: {_ended(event.reason)}"
            return Saying(level=Level.WARN, text=text)
        case TokenRefreshed():
            return Saying(level=Level.INFO, text=f"A new access token is in use: {_ended(event.reason)}")
        case _:
            assert_never(event)


def _chunk(event: ChunkAccepted | ChunkRefused | ChunkHeld | AttemptNotApplied) -> Saying:
    match event:
        case ChunkAccepted():
            return _accepted(event)
        case ChunkRefused():
            reason = _ended(event.reason)
            text = f"Chunk {event.chunk} was refused: {reason} Its {event.ids:,} ids are in {event.path}."
            return Saying(level=Level.ERROR, text=text, repeats="refused")
        case ChunkHeld():
            text = f"Chunk {event.chunk} is held, {event.ids:,} ids: {_ended(event.reason)}"
            return Saying(level=Level.ERROR, text=text, repeats="held")
        case AttemptNotApplied():
            return _not_applied(event)
        case _:
            assert_never(event)


def _accepted(event: ChunkAccepted) -> Saying:
    record = event.record
    text = f"Chunk {record.chunk} is job {record.job_id}, {record.ids:,} ids, after {event.elapsed_s:.2f} s."
    if event.remark is None:
        return Saying(level=Level.DEBUG, text=text)
    return Saying(level=Level.WARN, text=f"{text} {event.remark}", repeats="remark")


def _settling(
    event: ChunkSplit | BaselineMissing | ReconcileWaits | ChunkSettled | ChunkStaysHeld,
) -> Saying:
    reason = _ended(event.reason)
    match event:
        case ChunkSplit():
            text = f"Chunk {event.chunk}, {event.ids:,} ids, goes out in {event.parts} parts: {reason}"
            return Saying(level=Level.WARN, text=text, repeats="split")
        case BaselineMissing():
            text = f"The server's list of jobs cannot be read, so held chunks may stay held: {reason}"
            return Saying(level=Level.WARN, text=text)
        case ReconcileWaits():
            text = (
                f"{event.chunks:,} held chunks are compared with the server's list of jobs; the next look is at "
                f"{clock_time(event.until_utc)} ({event.wait_s:.0f} s): {reason}"
            )
            return Saying(level=Level.INFO, text=text)
        case ChunkSettled(job_id=None):
            text = f"Chunk {event.chunk}, {event.ids:,} ids, goes out again: {reason}"
            return Saying(level=Level.INFO, text=text)
        case ChunkSettled():
            text = f"Chunk {event.chunk}, {event.ids:,} ids, is job {event.job_id}: {reason}"
            return Saying(level=Level.INFO, text=text)
        case ChunkStaysHeld():
            text = f"Chunk {event.chunk}, {event.ids:,} ids, stays held: {reason}"
            return Saying(level=Level.ERROR, text=text, repeats="stays held")
        case _:
            assert_never(event)


def _quota(event: QuotaRead | QuotaUnknown) -> Saying:
    if isinstance(event, QuotaUnknown):
        text = f"What is left of the quota cannot be read: {_ended(event.reason)} The run goes on without knowing."
        return Saying(level=Level.WARN, text=text)
    taken = f"{event.allocated:,} allotted, {event.consumed:,} used"
    if event.undebited:
        taken += f", {event.undebited:,} of this run perhaps not counted yet"
    if event.allowance:
        taken += f", {event.allowance:,} kept for what others may have used just now"
    left = f"about {event.left:,} ids are left of the quota ({taken})"
    needs = "an unknown number of ids" if event.needed is None else f"{event.needed:,} ids"
    about = "" if event.exact or event.needed is None else "about "
    if event.fits is False:
        text = (
            f"The quota may not last: this run needs {about}{needs}, and {left}. It goes on until the server "
            f"refuses; have the quota raised, or stop it and give --spend-cap."
        )
        return Saying(level=Level.WARN, text=text)
    return Saying(level=Level.INFO, text=f"This run needs {about}{needs}, and {left}.")


def _not_applied(event: AttemptNotApplied) -> Saying:
    what = f"Attempt {event.attempt} of chunk {event.chunk} had no effect"
    text = f"{what} ({event.cause.value}): {_ended(event.reason)}"
    if event.wait_s:
        text += f" Next try in {event.wait_s:.0f} s."
    return Saying(level=_NOT_APPLIED[event.cause], text=text, repeats=event.cause.value)


def _job(event: JobChanged | PollFailed) -> Saying:
    if isinstance(event, PollFailed):
        text = (
            f"Job {event.job_id} could not be asked for, which says nothing of the job: {_ended(event.reason)} "
            f"Next try in {event.wait_s:.0f} s."
        )
        return Saying(level=Level.WARN, text=text, repeats="poll")
    levels = {JobState.FAILED: Level.ERROR, JobState.ABORTED: Level.ERROR, JobState.UNKNOWN: Level.WARN}
    level = levels.get(event.state, Level.DEBUG)
    repeats = f"job {event.state.value}" if level > Level.DEBUG else None
    return Saying(level=level, text=f"Job {event.job_id} is {event.word}.", repeats=repeats)


def _finished(event: RunFinished) -> Saying:
    ids = event.summary.ids
    counts = ", ".join(f"{ids[name]:,} {name}" for name in ids if name != "read")
    text = f"Session over after {event.summary.elapsed_s:.1f} s: {ids.get('read', 0):,} ids read; {counts}."
    return Saying(level=Level.INFO, text=text)
