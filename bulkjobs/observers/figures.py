"""The metrics of a run: their names, what they mean, and their values as events make them.

Names follow Prometheus: units in the names, `_total` for what only grows. Counters are of the process, which is what
`rate()` expects; gauges of ids, chunks and jobs are of the whole run, over all its sessions, as in its summary. What
nobody can know yet has no value. Labels take their values from short fixed lists; none holds an id or a text of the
server.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal

from bulkjobs.events import (
    AttemptNotApplied,
    ChunkAccepted,
    ChunkHeld,
    ChunkRefused,
    ChunkSettled,
    ChunkSplit,
    Event,
    JobChanged,
    QuotaRead,
    RequestEnded,
    RunFinished,
    RunStarted,
    SessionOpened,
)
from bulkjobs.model import Cause, JobState, RequestKind, RunSummary
from bulkjobs.observers.totals import WAITS, Totals
from bulkjobs.planning import Eta, History, eta

__all__ = ["ANSWER_BOUNDS_S", "METRICS", "Figures", "Metric", "labels_of"]

ANSWER_BOUNDS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Up to the default of `--request-timeout`."""
_SUBMITS: Final = {
    ChunkAccepted: "answered",
    ChunkRefused: "answered",
    ChunkSplit: "answered",
    ChunkHeld: "unknown",
}
"""How the submit that an event tells of ended."""
_OUTCOMES: Final = ("answered", "throttled", "unknown")
_SETTLED: Final = ("accepted", "refused", "held")
_ENDS: Final = tuple(state for state in JobState if state.terminal)


@dataclass(slots=True, kw_only=True)
class Figures:
    """Adds up the events of a session to what the metrics show."""

    endpoint: str
    run_id: str | None = None
    """None before the run has begun."""
    running: bool = False
    exit_code: int | None = None
    last_event_utc: float = 0.0
    totals: Totals = field(default_factory=Totals)
    history: History = field(default_factory=History)
    account: RunSummary | None = None
    """Of the run: as the session found it, and as it leaves it."""
    quota: QuotaRead | None = None
    spendable_ids: int | None = None
    chunks_settled: Counter[str] = field(default_factory=Counter)
    """By how many the session has changed the chunks of the run that ended so."""
    jobs_made: int = 0
    jobs_ended: Counter[str] = field(default_factory=Counter)
    not_applied: Counter[str] = field(default_factory=Counter)
    requests_ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind and outcome. One that never left is none."""
    answers: list[int] = field(default_factory=lambda: [0] * (len(ANSWER_BOUNDS_S) + 1))
    """Accepted submits by how long the answer took: up to each bound but not to the one before, and longer."""

    def add(self, event: Event, now_utc: float) -> None:
        """Takes one event into account."""
        self.last_event_utc = now_utc
        self.totals.add(event)
        self.history.add(event, now_utc)
        match event:
            case RunStarted():
                self.run_id, self.running = event.run_id, True
            case SessionOpened():
                self.account, self.spendable_ids = event.account, event.spendable_ids
            case QuotaRead():
                self.quota = event
            case AttemptNotApplied():
                self.not_applied[event.cause.value] += 1
                if event.cause is not Cause.NOT_SENT:
                    throttled = event.cause is Cause.THROTTLED
                    self._submit_ended("throttled" if throttled else "answered")
            case RequestEnded():
                self.requests_ended[event.kind.value, event.outcome] += 1
            case JobChanged() if event.state.terminal:
                self.jobs_ended[event.state.value] += 1
            case RunFinished():
                self.account, self.exit_code = event.summary, event.summary.exit_code
                self.running = False
            case _:
                self._settle(event)

    def _submit_ended(self, outcome: str) -> None:
        self.requests_ended[RequestKind.SUBMIT.value, outcome] += 1

    def _settle(self, event: Event) -> None:
        if (outcome := _SUBMITS.get(type(event))) is not None:
            self._submit_ended(outcome)
        match event:
            case ChunkAccepted():
                self.chunks_settled["accepted"] += 1
                self.jobs_made += 1
                self.answers[bisect_left(ANSWER_BOUNDS_S, event.elapsed_s)] += 1
            case ChunkRefused():
                self.chunks_settled["refused"] += 1
            case ChunkHeld():
                self.chunks_settled["held"] += 1
            case ChunkSettled():
                self.chunks_settled["held"] -= 1
                if event.job_id is not None:
                    self.chunks_settled["accepted"] += 1
                    self.jobs_made += 1
            case _:
                return

    def requests(self) -> Mapping[tuple[str, ...], float]:
        """Gives the requests that have ended by kind and outcome."""
        return {
            (kind.value, outcome): self.requests_ended[kind.value, outcome]
            for kind in RequestKind
            for outcome in _OUTCOMES
        }

    def ids(self) -> Mapping[str, float] | None:
        """Gives the ids of the run by what became of them; they add up to those that were read."""
        account, totals = self.account, self.totals
        if account is None or self.exit_code is not None:
            return None if account is None else account.ids
        before = account.ids
        # A session that goes on reads the sources from their beginning.
        ids = {
            "read": max(before["read"], totals.read),
            "invalid": max(before["invalid"], totals.invalid),
            "duplicate": max(before["duplicate"], totals.duplicate),
            "accepted": before["accepted"] + totals.accepted,
            "refused": before["refused"] + totals.refused,
            "held": before["held"] + totals.held_change,
        }
        known = sum(ids.values()) - ids["read"]
        return {**ids, "pending": max(0, ids["read"] - known)}

    def chunks(self) -> Mapping[str, float] | None:
        """Gives the chunks of the run that are settled, or held, by what became of them."""
        account = self.account
        if account is None:
            return None
        change = self.chunks_settled if self.exit_code is None else Counter[str]()
        return {state: account.chunks[state] + change[state] for state in _SETTLED}

    def jobs(self) -> Mapping[str, float] | None:
        """Gives the jobs of the run by the end that was seen of them; those without are open."""
        if self.account is None:
            return None
        made, ended = sum(self.account.jobs.values()), Counter(self.account.jobs)
        if self.exit_code is None:
            made += self.jobs_made
            ended += self.jobs_ended
        ends = {state.value: ended[state.value] for state in _ENDS}
        return {"open": max(0, made - sum(ends.values())), **ends}

    def spend_cap_left(self) -> int | None:
        """Gives the ids that the cap leaves: what is accepted or held counts."""
        if self.spendable_ids is None:
            return None
        return max(0, self.spendable_ids - self.totals.accepted - self.totals.held_change)

    def locked_out_until_utc(self) -> float:
        """Gives when the lock-out ends, 0 without one."""
        return 0.0 if self.history.locked_since_utc is None else self.history.locked_until_utc

    def waiting(self) -> Mapping[str, float]:
        """Gives 1 for what is waited for, and 0 for all else that may be."""
        return {word: float(self.totals.wait == word) for word in WAITS.values()}

    def answer_counts(self) -> Mapping[str, float]:
        """Gives how many accepted submits took up to each bound; the last bound has no end."""
        bounds = [*map(str, ANSWER_BOUNDS_S), "+Inf"]
        return dict(zip(bounds, accumulate(self.answers), strict=True))


Value = Mapping[str, float] | Mapping[tuple[str, ...], float] | float | None


@dataclass(frozen=True, slots=True)
class Metric:
    """Is one metric."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    about: str
    value: Callable[[Figures, float], Value]
    """From the figures and the time: one value, one for each value of the labels, or None if it is not known."""
    label: str | tuple[str, ...] | None = None


def labels_of(metric: Metric) -> tuple[str, ...]:
    """Gives the names of a metric's labels besides the run's."""
    return (metric.label,) if isinstance(metric.label, str) else metric.label or ()


def _eta(figures: Figures, now_utc: float) -> Eta | None:
    ahead = eta(figures.history, now_utc)
    return ahead if isinstance(ahead, Eta) else None


def _eta_low(figures: Figures, now_utc: float) -> Value:
    ahead = _eta(figures, now_utc)
    return None if ahead is None else ahead.low_utc


def _eta_high(figures: Figures, now_utc: float) -> Value:
    ahead = _eta(figures, now_utc)
    return None if ahead is None else ahead.high_utc


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "bulkjobs_run_info",
        "gauge",
        "Always 1; the label is the kind of bulk job.",
        lambda figures, _: {figures.endpoint: 1},
        "endpoint",
    ),
    Metric(
        "bulkjobs_running",
        "gauge",
        "1 while a session works on the run, 0 after its end; a killed one leaves 1.",
        lambda figures, _: figures.running,
    ),
    Metric(
        "bulkjobs_exit_code",
        "gauge",
        "Exit code of the session, once it has ended.",
        lambda figures, _: figures.exit_code,
    ),
    Metric(
        "bulkjobs_last_event_timestamp_seconds",
        "gauge",
        "When something last happened.",
        lambda figures, _: figures.last_event_utc,
    ),
    Metric(
        "bulkjobs_ids",
        "gauge",
        "Ids of the run: read, which is the sum of all others, and by what became of them.",
        lambda figures, _: figures.ids(),
        "outcome",
    ),
    Metric(
        "bulkjobs_chunks",
        "gauge",
        "Chunks of the run: accepted, refused or held.",
        lambda figures, _: figures.chunks(),
        "state",
    ),
    Metric(
        "bulkjobs_jobs",
        "gauge",
        "Jobs of the run by the end that was seen of them; open without one.",
        lambda figures, _: figures.jobs(),
        "state",
    ),
    Metric(
        "bulkjobs_requests_total",
        "counter",
        "Requests that have ended: answered, throttled, or unknown without an answer that tells what came of them.",
        lambda figures, _: figures.requests(),
        ("kind", "outcome"),
    ),
    Metric(
        "bulkjobs_attempts_not_applied_total",
        "counter",
        "Submits that had no effect, by cause; throttled ones are among them.",
        lambda figures, _: {cause.value: figures.not_applied[cause.value] for cause in Cause},
        "cause",
    ),
    Metric(
        "bulkjobs_lockouts_total",
        "counter",
        "Lock-outs of the account that this session met.",
        lambda figures, _: figures.history.lockouts,
    ),
    Metric(
        "bulkjobs_locked_out_until_timestamp_seconds",
        "gauge",
        "When the lock-out ends, 0 without one.",
        lambda figures, _: figures.locked_out_until_utc(),
    ),
    Metric(
        "bulkjobs_limit_requests",
        "gauge",
        "Requests that the limit in force allows in a window; no value without a limit.",
        lambda figures, _: figures.history.limit,
    ),
    Metric(
        "bulkjobs_limit_window_seconds",
        "gauge",
        "Length of that window.",
        lambda figures, _: figures.history.window_s,
    ),
    Metric(
        "bulkjobs_paused",
        "gauge",
        "1 while a person has submits wait.",
        lambda figures, _: figures.totals.paused,
    ),
    Metric(
        "bulkjobs_stopping",
        "gauge",
        "1 while the session is about to end early.",
        lambda figures, _: figures.totals.stopping,
    ),
    Metric(
        "bulkjobs_waiting",
        "gauge",
        "1 for what submits wait for.",
        lambda figures, _: figures.waiting(),
        "reason",
    ),
    Metric(
        "bulkjobs_submit_answer_seconds",
        "histogram",
        "How long the answers to accepted submits took.",
        lambda figures, _: figures.answer_counts(),
        "le",
    ),
    Metric(
        "bulkjobs_quota_left_ids",
        "gauge",
        "Ids left of the quota when the session began, if that could be read.",
        lambda figures, _: None if figures.quota is None else figures.quota.left,
    ),
    Metric(
        "bulkjobs_quota_needed_ids",
        "gauge",
        "Ids that the run needed then, if anybody could tell.",
        lambda figures, _: None if figures.quota is None else figures.quota.needed,
    ),
    Metric(
        "bulkjobs_spend_cap_left_ids",
        "gauge",
        "Ids that the spend cap leaves, with one.",
        lambda figures, _: figures.spend_cap_left(),
    ),
    Metric(
        "bulkjobs_eta_low_timestamp_seconds",
        "gauge",
        "When everything will be sent at the earliest, as far as anybody can tell.",
        _eta_low,
    ),
    Metric(
        "bulkjobs_eta_high_timestamp_seconds",
        "gauge",
        "When everything will be sent at the latest, as far as anybody can tell.",
        _eta_high,
    ),
)
"""In the order in which they are written."""
