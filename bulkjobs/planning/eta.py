"""When is everything sent? A range, made of what bounds the speed and of what was seen of it.

Each of these gives a least and a greatest time for the rest; the slowest counts, for it is the bottleneck:

- the limit: so many requests in a window, no matter how fast the answers are;
- the slots: so many jobs at a time, each as long as those seen;
- the workers: so many answers at a time, each as slow as those seen;
- the pace of the session so far, which knows of everything else: other users of the account, pauses, faults.

What was seen seldom is known badly, so the range begins wide and narrows with the square root of what was seen.
Where one of them cannot be known at all yet, such as how long jobs take when none has ended, there is no answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulkjobs.planning.history import History

__all__ = ["Eta", "NoEta", "eta"]

_SPREAD: Final = 1.6
"""Standard deviations to each side. Chosen with the simulated histories of the tests, in which the true end must lie
in the range at nine of ten moments."""
_PRIOR_SPREAD: Final = 0.6
"""How much single jobs differ, as a share of their mean, before many were seen; and how many jobs that stands for."""
_PRIOR_JOBS: Final = 2.0
_LEAST_FOR_PACE: Final = 3
_SLOWEST_RECENT: Final = 0.33
"""A pause of the last minutes is not taken for the pace of all that is left."""
_SIZE_DOUBT: Final = 0.2
"""How wrong the estimate of ids in unread bytes may be after one chunk, as a share."""
_MOST_LOCKED: Final = 0.9
_SURE_SHARE: Final = 0.75
"""Of a window: what needs more of it than this may have to wait for the next, because others may use it too."""
_MOST_S: Final = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Eta:
    """Is when everything will be sent: between two moments, in Unix seconds."""

    low_utc: float
    high_utc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoEta:
    """Says why nobody can tell yet."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Span:
    """Is a range of seconds, or of chunks."""

    low: float
    high: float


def eta(history: History, now_utc: float) -> Eta | NoEta:
    """Looks ahead from a moment of a session."""
    if history.over:
        return NoEta(reason="nothing more is sent")
    if history.paused_since_utc is not None:
        return NoEta(reason="submitting is paused")
    left = _chunks_left(history)
    if isinstance(left, NoEta):
        return left
    if left.high <= 0:
        return Eta(low_utc=now_utc, high_utc=now_utc)
    slots = _by_slots(history, left)
    if isinstance(slots, NoEta):
        return slots
    whole = [_by_limit(history, left), slots, _by_pace(history, left, now_utc)]
    if not any(whole):  # that many answers at a time is more of a hope than a bound
        return NoEta(reason="too little was answered yet")
    spans = [span for span in (*whole, _by_workers(history, left)) if span is not None]
    low, high = max(span.low for span in spans), max(span.high for span in spans)
    locked_s = 0.0 if history.locked_since_utc is None else max(0.0, history.locked_until_utc - now_utc)
    high = high * _lockout_factor(history, now_utc) + locked_s + 1.0
    if high > _MOST_S:
        return NoEta(reason="at the pace so far it would take years")
    return Eta(low_utc=now_utc + low + locked_s, high_utc=now_utc + high)


def _chunks_left(history: History) -> _Span | NoEta:
    if not history.chunks or not history.ids > 0:
        return NoEta(reason="nothing was answered yet")
    doubt = 0.0
    if history.planned_ids is not None:
        ids = float(history.planned_ids - history.ids)
    elif history.all_read:
        ids = float(history.read_ids - history.settled_before - history.ids)
    elif history.size_bytes is None:
        return NoEta(reason="nobody knows how long the input is")
    elif not history.read_bytes:
        return NoEta(reason="nothing was read yet")
    else:
        unread = history.read_ids * max(0.0, history.size_bytes / history.read_bytes - 1)
        ids = history.read_ids + unread - history.settled_before - history.ids
        doubt = unread * min(1.0, _SIZE_DOUBT / math.sqrt(history.chunks))
    most = math.inf if history.spendable_ids is None else history.spendable_ids - history.ids
    chunks = (
        max(0.0, min(bound, most)) * history.chunks / history.ids for bound in (ids - doubt, ids + doubt)
    )
    return _Span(*chunks)


def _by_limit(history: History, left: _Span) -> _Span | None:
    if history.limit is None or history.window_s is None:
        return None
    again = max(1.0, history.submits / history.chunks)
    if not history.resumed and history.submits + left.high * again <= _SURE_SHARE * history.limit:
        return None  # all of the run fits into the window it began
    windows = _Span(left.low / history.limit - 1, left.high * again / history.limit + 1)
    return _Span(max(0.0, windows.low) * history.window_s, windows.high * history.window_s)


def _by_slots(history: History, left: _Span) -> _Span | NoEta | None:
    """Takes what is left as so many ends of jobs to be waited for, in as many rows as there are slots."""
    if history.slots is None:
        return None
    free = max(0, history.slots - history.jobs_open)
    ends = _Span(max(0.0, left.low - free), max(0.0, left.high - free))
    if not ends.high:
        return None
    if not history.jobs_ended:
        return NoEta(reason="no job has ended yet")
    seen, mean_s = history.jobs_ended, history.job_s / history.jobs_ended
    around = max(0.0, history.job_s2 / seen - mean_s * mean_s) * seen / (mean_s * mean_s) if mean_s else 0.0
    spread = math.sqrt((_PRIOR_JOBS * _PRIOR_SPREAD**2 + around) / (_PRIOR_JOBS + seen - 1))
    doubt = _SPREAD * spread * math.sqrt(1 / seen + 1 / max(1.0, ends.high))
    rounds = _Span(max(0.0, ends.low / history.slots - 1), ends.high / history.slots + 1)
    return _Span(rounds.low * mean_s * max(0.0, 1 - doubt), rounds.high * mean_s * (1 + doubt))


def _by_workers(history: History, left: _Span) -> _Span | None:
    if not history.answers:
        return None
    answer_s, doubt = history.answer_s / history.answers, 1 / math.sqrt(history.answers)
    turns = _Span(max(0.0, left.low / history.workers - 1), left.high / history.workers + 1)
    return _Span(turns.low * answer_s * (1 - doubt), turns.high * answer_s * (1 + 2 * doubt))


def _by_pace(history: History, left: _Span, now_utc: float) -> _Span | None:
    open_s = history.open_s(now_utc)
    # The wait before the first one was for what earlier sessions used, or for the input: it does not come again.
    answer_s = history.answer_s / history.answers if history.answers else 0.0
    pace_s = open_s - max(0.0, history.first_open_s - answer_s)
    if history.chunks < _LEAST_FOR_PACE or pace_s <= 0:
        return None
    whole = history.chunks / pace_s
    half_s, half_chunks = history.samples[len(history.samples) // 2]
    recent = (history.chunks - half_chunks) / (open_s - half_s) if open_s > half_s else whole
    slow, fast = min(whole, max(recent, _SLOWEST_RECENT * whole)), max(whole, recent)
    doubt = _SPREAD * math.sqrt(1 / history.chunks + 1 / max(1.0, left.high))
    gap_s = max(history.longest_gap_s, open_s - history.last_open_s)
    return _Span(max(0.0, left.low / fast * (1 - doubt) - gap_s), left.high / slow * (1 + doubt) + gap_s)


def _lockout_factor(history: History, now_utc: float) -> float:
    """Gives by what lock-outs stretch the rest at most, if they come as often as those seen allow.

    At least they stretch nothing: none may come any more, or only while everybody waits for a slot.
    """
    if not history.lockouts or history.began_utc is None:
        return 1.0
    share = 1 - history.open_s(now_utc) / max(1.0, now_utc - history.began_utc)
    return 1 / (1 - min(_MOST_LOCKED, share * (1 + _SPREAD / math.sqrt(history.lockouts))))
