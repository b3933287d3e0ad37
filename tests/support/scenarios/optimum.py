"""How soon the best client could be done, given what the server and the network did.

The best client keeps every rule, never rests while it may send, sees the end of a job at once, and knows
everything but one thing: when, between the start and the end of a request, the server counts it. A request with
an answer after L seconds may therefore count anywhere in an interval of length L, and no period of W seconds may
be touched by more than N such intervals. So the requests are spread over N tokens, each held from the start of
its request until W after its end; interval graphs are perfect, so this is no restriction. K requests take up K
times (W + L) seconds of token time, and the last W of each token need not be waited for:

    window     K r (W + L) / N - W        r requests a job: one POST, and one question for every M jobs (or 50)
    slots      K (D + L) / M - D          a slot is taken by a job of D seconds, and by the way of a POST
    workers    K L / workers              no more than `workers` POSTs are under way

The finish is the latest of the three, and the time in which the server had locked the account comes on top. L and
D are the means of what was drawn. Where the limit changes or others take a part, N is the mean over the time, each
part weighted by how long it lasted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from bulkjobs.simulator.config import Span
from support.scenarios.scenario import Scenario

__all__ = ["LIST_PAGE", "Means", "best_finish_s", "chunks_within", "expected_means", "tokens"]

LIST_PAGE: Final = 50
"""Jobs on a page of the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Is what the server and the network did, on the average."""

    answer_s: float
    job_s: float


def expected_means(scenario: Scenario) -> Means:
    """Gives what is to be expected before anything was drawn."""
    network = scenario.network
    answer_s = _mean(network.answer)
    if network.slow is not None:
        answer_s += network.slow_share * (_mean(network.slow) - answer_s)
    return Means(answer_s=answer_s, job_s=sum(map(_mean, scenario.job_times)) / len(scenario.job_times))


def tokens(scenario: Scenario, until_s: float) -> float:
    """Gives how many requests a window allowed the client, on the average over the time until then."""
    rate = scenario.config.rate
    if rate is None:
        return math.inf
    allowed, since = 0.0, 0.0
    count = rate.count
    for event in sorted(scenario.events, key=lambda event: event.at_s):
        if event.what == "limit":
            allowed += count * max(0.0, min(event.at_s, until_s) - since)
            since, count = min(event.at_s, until_s), event.count
        elif event.what == "foreign":
            allowed -= event.count * max(0.0, min(event.until_s, until_s) - event.at_s)
    allowed += count * (until_s - since)
    return allowed / until_s


def best_finish_s(scenario: Scenario, jobs: float, means: Means, *, span_s: float) -> float:
    """Gives when the best client has the answer to its last POST, lock-outs left aside.

    Args:
        scenario: with the limits of the server and the number of workers.
        jobs: how many are to be made.
        means: of what was drawn.
        span_s: the time over which limits that change are averaged.
    """
    config, answer_s = scenario.config, means.answer_s
    bounds = [answer_s, jobs * answer_s / (scenario.settings.workers * scenario.processes)]
    slots = config.max_active_jobs
    if slots is not None:
        bounds.append(jobs * (means.job_s + answer_s) / slots - means.job_s)
    if config.rate is not None:
        window_s = config.rate.window_s
        each = 1.0 if slots is None else 1.0 + 1.0 / min(slots, LIST_PAGE)
        bounds.append(jobs * each * (window_s + answer_s) / tokens(scenario, span_s) - window_s)
    return max(bounds)


def chunks_within(scenario: Scenario) -> int:
    """Gives how many jobs the scenario is about: those named, or as many as the best client makes in the time."""
    work = scenario.work
    if work.chunks is not None:
        return work.chunks
    assert work.span_s is not None
    low, high = 0, 1
    means = expected_means(scenario)

    def fits(jobs: int) -> bool:
        return best_finish_s(scenario, jobs, means, span_s=work.span_s or 0.0) <= (work.span_s or 0.0)

    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return max(low, 1)


def _mean(span: Span) -> float:
    return (span.min_s + span.max_s) / 2
