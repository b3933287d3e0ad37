"""How many jobs a client could have made at most that learns of their ends only by asking.

The client of `optimum` knows beforehand when each job will end. This one knows how durations are distributed, and
nothing else of a job until a question tells that it has ended. Questions and POSTs count against the same limit.

A bound for all such clients is made by letting a question cost a price of p seconds. However cleverly it asks, a job
then costs at least V(p) on the average: the time between its end and the look that sees it, and p for each look.
V(p) is the length of the shortest path over the ages at which the server may look, since all that is learned before
the end is "not yet": from the look at age s to the next at age t the path grows by

    E[t - D; s < D <= t]  +  p P(D > min(s, t - a))

where a is the time within which a look cannot have waited for the answer about the one before. With M slots,
K jobs, Q questions, each of which tells of up to m jobs, and B requests in all, over T seconds,

    the slots       K (E[D] + L + late) <= M (T + E[D])
    the requests    K + Q <= B
    the price       K V(p) <= K late + p m Q

and with late and Q taken out, for every p,

    K <= (M (T + E[D]) + p m B) / (E[D] + L + V(p) + p m)

With p = 0 these are the slots of the clairvoyant client, and with a p beyond all bounds its window. In between lies
what it costs not to see the future. It is a bound: nobody is as good as this says where a page is to tell of several
jobs (each may choose the looks that suit itself best, and pays only its part), nor in a window that a burst has used up.
Submits that only try whether a slot is free are left out, since a slot is freed by seeing an end and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bulkjobs.simulator.config import Span

__all__ = ["Law", "cheapest_s", "most_jobs"]

_LOOKS: Final = 300
"""Ages at which the server may look, in each span."""
_SAMPLE_LOOKS: Final = 1_200
_SEARCHED: Final = 14
"""Prices that are tried. Each gives a bound; the search only looks for a tight one."""
_SHARP: Final = 1e-6
"""The least width of a span, as a share of its end."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Is how durations are distributed, at the ages at which the server may look."""

    ages: _Floats
    """From 0, rising, and somewhat beyond the longest duration."""
    ended: _Floats
    """The chance that a job has ended at each."""
    mean_s: float
    gap_s: float
    gap_share: float
    """The next of these ages is never farther from a sensible look than the one, and this share of the age."""

    @classmethod
    def of_spans(cls, spans: Sequence[Span], answer_s: float = 0.0) -> Law:
        """Gives the law of jobs that take one of these spans each, and a time within it, by pure chance."""
        wide = [
            (span.min_s, max(span.max_s, span.min_s * (1 + _SHARP)) + answer_s, span.max_s) for span in spans
        ]
        looks = [np.linspace(low, high, _LOOKS) for low, high, _ in wide]
        ages = np.unique(np.concatenate([[0.0], *looks]))
        parts = [np.clip((ages - low) / max(longest - low, low * _SHARP), 0, 1) for low, _, longest in wide]
        return cls(
            ages=ages,
            ended=np.mean(parts, axis=0),
            mean_s=sum(span.min_s + span.max_s for span in spans) / (2 * len(spans)),
            gap_s=max((high - low) / (_LOOKS - 1) for low, high, _ in wide),
            gap_share=0.0,
        )

    @classmethod
    def of_sample(cls, durations_s: Sequence[float], answer_s: float) -> Law:
        """Gives the law by which each of these durations is as likely as the others."""
        sample = np.sort(durations_s)
        low, high = sample[0] * (1 - _SHARP), sample[-1] + answer_s
        ages = np.concatenate([[0.0], np.geomspace(low, high, _SAMPLE_LOOKS)])
        return cls(
            ages=ages,
            ended=np.searchsorted(sample, ages, side="right") / len(sample),
            mean_s=float(np.mean(sample)),
            gap_s=0.0,
            gap_share=(high / low) ** (1 / (_SAMPLE_LOOKS - 1)) - 1,
        )


def cheapest_s(law: Law, price_s: float, answer_s: float = 0.0) -> float:
    """Gives V(p), or a little less: what a job costs at least, being seen late and asked for, on the average.

    Args:
        law: of the durations.
        price_s: what a question costs.
        answer_s: within this time after a look no other one can have waited for what it saw.
    """
    ages, ended = law.ages, law.ended
    past_s = np.diff(ages)
    # Durations are moved up to the next age within their gap, which makes no end be seen later.
    area = np.concatenate([[0.0], np.cumsum(ended[:-1] * past_s)])
    unanswered = np.where(
        ages < answer_s, 1.0, 1 - ended[np.searchsorted(ages, np.maximum(0.0, ages - answer_s))]
    )
    cost = np.zeros(len(ages))
    for at in range(len(ages) - 2, -1, -1):
        late_s = area[at + 1 :] - area[at] - ended[at] * (ages[at + 1 :] - ages[at])
        asked = np.maximum(unanswered[at + 1 :], 1 - ended[at])
        onward = late_s + price_s * asked + cost[at + 1 :]
        # Or the next look comes after all of these ages.
        cost[at] = min(onward.min(), late_s[-1] + price_s * (1 - ended[at]))
    # Looks at any age are at most this much better than those at the next of ours.
    rounding_s = law.gap_s + law.gap_share * (law.mean_s + cost[0])
    return max(0.0, float(cost[0] - rounding_s))


def most_jobs(
    law: Law,
    *,
    slots: int,
    shared: int,
    requests: float,
    span_s: float,
    idle_s: float,
    answer_s: float = 0.0,
) -> float:
    """Gives how many jobs a client could make at most that does not see the future.

    Args:
        law: of the durations.
        slots: M, how many jobs may run at a time.
        shared: m, how many jobs a question may tell of.
        requests: B, that the limit leaves in the time; infinite without one.
        span_s: T, the time.
        idle_s: L, how long a slot stands idle at the least between two jobs.
        answer_s: as for `cheapest_s`.
    """
    slot_s = slots * (span_s + law.mean_s)
    if math.isinf(requests):
        return slot_s / (law.mean_s + idle_s)

    def bound(price: float) -> float:
        price_s = math.exp(price)
        cost_s = law.mean_s + idle_s + cheapest_s(law, price_s, answer_s) + price_s * shared
        return float((slot_s + price_s * shared * requests) / cost_s)

    # The bound falls to its least and rises again, since V is concave: golden section finds the least.
    found = _least(bound, math.log(1e-4 * law.mean_s), math.log(100 * law.mean_s))
    return min(found, slot_s / (law.mean_s + idle_s), requests * shared / (1 + shared))


def _least(of: Callable[[float], float], low: float, high: float) -> float:
    """Gives the least value of a function that falls, then rises."""
    inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
    values = [of(one) for one in inner]
    found = min(values)
    for _ in range(_SEARCHED - 2):
        if values[0] < values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - _GOLDEN * (high - low)
            values[0] = of(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + _GOLDEN * (high - low)
            values[1] = of(inner[1])
        found = min(found, *values)
    return found
