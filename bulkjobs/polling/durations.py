"""What is known of how long jobs take, and at which age a question after one is worth its price.

A job is never seen to end. It is known to have been unfinished at one age and finished at a later one, so what is
learned are intervals. Their weights are spread over the ages between their ends by self-consistency: each interval
shares its own among the pieces of the axis in proportion to what all intervals say of them. A wide interval, which
says little, so follows the narrow ones, and several wide ones that overlap become one narrow piece.

Source: B. W. Turnbull, "The empirical distribution function with arbitrarily grouped, censored and truncated
data", 1976.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DURATIONS_KEPT", "LEAST_PRICE_S", "Durations"]

DURATIONS_KEPT: Final = 64
_FADING: Final = 0.97
"""Each duration seen makes the earlier ones weigh so much less: all of them weigh about 30 at most, so that some
fifteen jobs are enough to change the mind, and a kind that makes up a tenth of the jobs is not forgotten."""
_ROUNDS: Final = 3
"""Of self-consistency. More would sharpen the pieces to spikes that the next jobs do not meet."""
_FINEST: Final = 1e-3
"""No interval is narrower than this share of its end: clocks and answer times are not that exact."""

_PRICE_SHARE: Final = 0.0003
_PRICE_SHARE_UNTAUGHT: Final = 0.001
LEAST_PRICE_S: Final = 0.005
"""A question costs as much as a slot that stands idle for this share of the job's age, or for this time. With nothing
known that makes a question for each 4.5 % of growth: the end of a job is seen a fortieth of its duration late."""

_UNKNOWN_WEIGHT: Final = 1.0
"""How much it weighs that a job may be like none before: this in durations seen if one is known that is longer, half
as much if there are two, and so on. It looks after the tail, of which little is known, and after changes."""
_UNKNOWN_WIDTH: Final = 1.0
_UNKNOWN_LEAST_S: Final = 1.0
"""Such a job ends anywhere before its age has grown by this share, or this time."""

_NOTHING: Final = 1e-6
_FARTHEST: Final = 100
_TAIL: Final = 0.01
"""How many questions ahead are looked at, and the share of the jobs that may be left by then."""


class Durations:
    """Learns durations, and tells when to ask next. All times are ages of a job, in seconds."""

    __slots__ = ("_area", "_density", "_edges", "_mass", "_new", "_seen")

    def __init__(self) -> None:
        """Begins with nothing known."""
        self._seen: deque[tuple[float, float]] = deque(maxlen=DURATIONS_KEPT)
        self._new = 0
        self._edges: list[float] = []
        self._mass: list[float] = []
        """Weight of the durations below each edge."""
        self._density = [0.0]
        """How fast that weight grows up to each edge, and behind the last."""
        self._area: list[float] = []
        """Integral of that weight up to each edge."""

    def __len__(self) -> int:
        """Counts the durations kept."""
        return len(self._seen)

    def learn(self, unfinished_s: float, finished_s: float) -> bool:
        """Takes a job that was unfinished at one age and finished at a later one.

        Returns:
            Whether what is known was worked out anew. That is done for each of the first durations, then for every
            eighth of those kept, since one more changes little.
        """
        finished_s = max(finished_s, _FINEST)
        self._seen.append((max(0.0, min(unfinished_s, finished_s * (1 - _FINEST))), finished_s))
        self._new += 1
        if self._new < len(self._seen) / 8:
            return False
        self._new = 0
        self._work_out()
        return True

    def next_question(self, unfinished_s: float, asked_s: float, price_s: float = 0.0) -> float:
        """Gives the age at which a job should be asked for: when the idle time to be expected costs a question.

        Args:
            unfinished_s: the last age at which the job was seen unfinished; 0 if it never was.
            asked_s: the age at the last question, which may not be answered yet; at least `unfinished_s`.
            price_s: what a question costs at least, in seconds of an idle slot.

        Returns:
            An age above `asked_s`; infinite when the question under way will most likely find the job finished.
        """
        longer = self.longer_than(unfinished_s)
        strange, width_s = self._strange(unfinished_s)
        known_s = unfinished_s + width_s
        share = _PRICE_SHARE if self._seen else _PRICE_SHARE_UNTAUGHT
        least_s = max(LEAST_PRICE_S, price_s)
        dearer_s = least_s / share
        edges, density, weight = self._edges, self._density, longer + strange
        far_s = 2 * (max(edges[-1] if edges else 0.0, asked_s + width_s) + least_s)
        at, age_s, ended, idle = bisect_right(edges, asked_s), asked_s, 0.0, 0.0
        while True:
            # From here to the next of these ages jobs end evenly, and the price is a straight line.
            bend, end_s = density[at], edges[at] if at < len(edges) else far_s
            if age_s < known_s:
                bend += strange / width_s
                end_s = min(end_s, known_s)
            if age_s < dearer_s < end_s:
                end_s = dearer_s
            past_s = end_s - age_s
            idle_then = idle + (ended + bend * past_s / 2) * past_s
            if idle_then >= max(least_s, share * end_s) * weight:
                break
            if end_s >= far_s:
                return math.inf
            if at < len(edges) and end_s >= edges[at]:
                at += 1
            age_s, ended, idle = end_s, ended + bend * past_s, idle_then
        price, growth = (least_s, 0.0) if age_s < dearer_s else (share * age_s, share)
        return age_s + _until(price * weight - idle, ended - growth * weight, bend)

    def prospect(self, price_s: float, answer_s: float) -> tuple[float, float]:
        """Gives how many questions a job will take, and at which age its end will be seen, both on average.

        Args:
            price_s: as for `next_question`.
            answer_s: how long an answer takes.
        """
        asked: list[float] = []
        answered, unfinished_s, now_s = 0, 0.0, 0.0
        while len(asked) < _FARTHEST and self.longer_than(asked[-1] if asked else 0.0) > _TAIL * self._total:
            next_s = self.next_question(unfinished_s, asked[-1] if asked else 0.0, price_s)
            if answered < len(asked) and asked[answered] + answer_s < next_s:
                unfinished_s = asked[answered]
                now_s = unfinished_s + answer_s
                answered += 1
            else:
                asked.append(max(next_s, now_s))
        questions = seen_s = before = 0.0
        for age_s in asked:
            ended = self._below(age_s)
            questions += (ended - before) * bisect_left(asked, age_s + answer_s)
            seen_s += (ended - before) * age_s
            before = ended
        # Those that so many questions do not reach.
        left = self._total - before
        return (
            (questions + left * len(asked)) / self._total,
            (seen_s + left * max(asked[-1], self._edges[-1])) / self._total,
        )

    def worth(self, unfinished_s: float, asked_s: float, age_s: float, price_s: float) -> tuple[float, float]:
        """Gives what part of its price a question after a job is worth at an age, and how fast that grows.

        Args:
            unfinished_s: as for `next_question`, at whose age the question is worth its price.
            asked_s: as for `next_question`; what that question will find does not count.
            age_s: at least `asked_s`.
            price_s: as for `next_question`.
        """
        strange, width_s = self._strange(unfinished_s)
        weight = self.longer_than(unfinished_s) + strange
        past_s = age_s - asked_s
        before = self._below(asked_s)
        ended = self._below(age_s) - before
        idle = self._area_below(age_s) - self._area_below(asked_s) - before * past_s
        growing_s = min(age_s, unfinished_s + width_s) - asked_s
        if growing_s > 0:
            more = strange / width_s * growing_s
            ended += more
            idle += more * (past_s - growing_s / 2)
        share = _PRICE_SHARE if self._seen else _PRICE_SHARE_UNTAUGHT
        price = max(LEAST_PRICE_S, price_s, share * age_s) * weight
        return idle / price, ended / price

    def chance(self, age_s: float, later_s: float) -> float:
        """Gives how likely a job that was unfinished at one age ends before a later one."""
        longer = self.longer_than(age_s)
        return 1 - self.longer_than(later_s) / longer if longer > _NOTHING else 1.0

    def longest_of(self, many: int) -> float:
        """Gives the age at which so many jobs that began together have most likely all ended."""
        at = bisect_left(self._mass, self._total * (1 - 0.5 / many))
        return self._edges[at]

    def longer_than(self, age_s: float) -> float:
        """Gives the weight of the durations that are longer than an age."""
        return (self._mass[-1] if self._mass else 0.0) - self._below(age_s)

    @property
    def _total(self) -> float:
        return self._mass[-1]

    def _below(self, age_s: float) -> float:
        """Gives the weight of the durations up to an age."""
        at = bisect_right(self._edges, age_s)
        return self._mass[at - 1] + self._density[at] * (age_s - self._edges[at - 1]) if at else 0.0

    def _area_below(self, age_s: float) -> float:
        """Gives the integral of that weight up to an age."""
        at = bisect_right(self._edges, age_s)
        if not at:
            return 0.0
        past_s = age_s - self._edges[at - 1]
        return self._area[at - 1] + past_s * (self._mass[at - 1] + self._density[at] * past_s / 2)

    def _strange(self, unfinished_s: float) -> tuple[float, float]:
        """Gives how much it weighs that a job of an age is like none before, and in which time it then ends."""
        return (
            _UNKNOWN_WEIGHT / max(self.longer_than(unfinished_s), _NOTHING),
            max(_UNKNOWN_LEAST_S, _UNKNOWN_WIDTH * unfinished_s),
        )

    def _work_out(self) -> None:
        edges = sorted({edge for interval in self._seen for edge in interval})
        place = {edge: number for number, edge in enumerate(edges)}
        newest = len(self._seen) - 1
        spans = [
            (place[low], place[high], _FADING ** (newest - number))
            for number, (low, high) in enumerate(self._seen)
        ]
        pieces = [0.0] * (len(edges) - 1)
        for first, end, weight in spans:
            density = weight / (edges[end] - edges[first])
            for piece in range(first, end):
                pieces[piece] += density * (edges[piece + 1] - edges[piece])
        for _ in range(_ROUNDS):
            pieces = _shared_anew(spans, pieces)
        self._edges, self._mass, self._density, self._area = [edges[0]], [0.0], [0.0], [0.0]
        below = 0.0
        for piece, weight in enumerate(pieces):
            # By the middles of the pieces, so that what lies between two of them is not thought impossible.
            if weight > _NOTHING:
                self._add_point((edges[piece] + edges[piece + 1]) / 2, below + weight / 2)
                below += weight
        self._add_point(edges[-1], below)
        self._density.append(0.0)

    def _add_point(self, age_s: float, below: float) -> None:
        """Adds a point of the line that gives the weight of the durations below an age."""
        age_s = max(age_s, math.nextafter(self._edges[-1], math.inf))
        self._area.append(self._area[-1] + (age_s - self._edges[-1]) * (self._mass[-1] + below) / 2)
        self._density.append((below - self._mass[-1]) / (age_s - self._edges[-1]))
        self._mass.append(below)
        self._edges.append(age_s)


def _until(missing: float, growth: float, bend: float) -> float:
    """Gives after what time nothing is missing: at first it shrinks by `growth` in a second, and that by `bend`."""
    if missing <= 0:
        return 0.0
    root = math.sqrt(growth * growth + 2 * bend * missing)
    if growth > 0:
        return 2 * missing / (growth + root)
    return (root - growth) / bend if bend > 0 else math.inf


def _shared_anew(spans: Iterable[tuple[int, int, float]], pieces: list[float]) -> list[float]:
    """Shares the weight of each span among its pieces in proportion to what they have."""
    shared = [0.0] * len(pieces)
    for first, end, weight in spans:
        scale = weight / sum(pieces[first:end])
        for piece in range(first, end):
            shared[piece] += scale * pieces[piece]
    return shared
