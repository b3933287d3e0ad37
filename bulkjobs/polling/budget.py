"""What questions may cost: the part of the account's rate that the submits leave.

With N requests a window W, and M slots that turn over every D seconds, submits need M·W/D of the N. Asking sooner
makes D shorter and costs more questions; where N is scarce the price of a question rises until both together get the
most jobs through. A credit keeps the questions to what submits leave in any case, also when durations are not what
they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from bulkjobs.polling.durations import LEAST_PRICE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkjobs.polling.durations import Durations
    from bulkjobs.settings import Rate

__all__ = ["PollBudget", "Terms", "best_terms"]

_SHARE_UNTAUGHT: Final = 0.5
"""Of the rate, while no job was seen to end."""
_SAVED_SHARE: Final = 0.1
"""Of a window's requests may be saved up for questions."""
_USED_SHARE: Final = 0.98
"""Of the rate is planned with; lists read for other reasons, logins and lost answers take the rest."""
_PRICES: Final = tuple(0.001 * 2**step for step in range(10))
"""Prices that are compared, as shares of the time in which a slot turns over: up to half of it."""
_BETWEEN: Final = tuple(2 ** (step / 3) for step in (-2, -1, 1, 2))
"""Around the best of them it is looked closer: as parts of it."""
_CHEAP_SHARE: Final = 0.01
_AS_GOOD: Final = 0.998
"""Where a higher price gets nearly as many jobs through, it is preferred: it saves questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Is on what terms questions are asked."""

    price_s: float = 0.0
    """What a question costs at least, in seconds of an idle slot."""
    cheap: bool = True
    """Questions are cheap enough to learn from every job."""
    patience_s: float = 0.0
    """How long a job that is due waits for others, so that one page of the list tells of all of them."""


def best_terms(
    durations: Durations, *, rate: Rate | None, open_jobs: float, answer_s: float, told: float, reach: int
) -> Terms:
    """Gives the terms on which the account gets the most jobs through.

    Args:
        durations: those seen; at least one.
        rate: the account's limit in force; None for none.
        open_jobs: how many slots are taken.
        answer_s: how long an answer takes.
        told: how many ends one page tells of by itself, on average over those that tell of any.
        reach: how many it can tell of; 1 without the list.
    """

    @cache  # where jobs are short, most prices are below the least
    def prospect(price_s: float) -> tuple[float, float]:
        return durations.prospect(price_s, answer_s)

    # A slot is taken until the answer has come, and one answer longer, which is that to the next submit.
    idle_s = 2 * answer_s
    mean_s = prospect(LEAST_PRICE_S)[1] + idle_s
    last_s = durations.longest_of(reach)

    def offers(share: float) -> Iterator[tuple[float, Terms]]:
        price_s, cheap = max(LEAST_PRICE_S, share * mean_s), share <= _CHEAP_SHARE
        questions, seen_s = prospect(price_s)
        if reach == 1:
            alone = _through(rate, questions, open_jobs / (seen_s + idle_s))
            yield alone, Terms(price_s=price_s, cheap=cheap)
            return
        # A page for all, when their idle time together has grown to its price. Those that end together share it.
        pages, told_s = prospect(max(LEAST_PRICE_S, price_s / told))
        pages, late_s = max(pages / told, 1 / reach), told_s + idle_s - mean_s
        # Where ends are strewn evenly the idle time grows with the square of the time since the last page.
        strewn = max(1 / reach, math.sqrt(mean_s / (2 * price_s * open_jobs)))
        if strewn < pages:
            pages, late_s = strewn, min(late_s, price_s * strewn)
        paged = _through(rate, pages, open_jobs / (mean_s + late_s))
        yield paged, Terms(price_s=price_s, cheap=cheap)
        # Those that wait for each other wait for the last of them, and are asked for alone if that was too early.
        taken_s = max(seen_s, last_s) + idle_s
        in_step = _through(rate, questions - 1 + 1 / reach, open_jobs / taken_s)
        patience_s = max(mean_s / 2, open_jobs / in_step - taken_s)
        yield in_step, Terms(price_s=price_s, cheap=cheap, patience_s=patience_s)

    options = [offer for share in _PRICES for offer in offers(share)]
    best_share = max(options, key=itemgetter(0))[1].price_s / mean_s
    options += [offer for step in _BETWEEN for offer in offers(best_share * step)]
    enough = _AS_GOOD * max(jobs_per_s for jobs_per_s, _ in options)
    good = [terms for jobs_per_s, terms in options if jobs_per_s >= enough]
    return max(good, key=lambda terms: (-terms.patience_s, terms.price_s))


def _through(rate: Rate | None, questions_a_job: float, turned_over_per_s: float) -> float:
    """Gives how many jobs get through in a second: as many as the slots take, and as the rate has requests for."""
    if rate is None:
        return turned_over_per_s
    return min(turned_over_per_s, _USED_SHARE * rate.count / rate.period_s / (1 + questions_a_job))


class PollBudget:
    """Counts what questions may still be asked. What is not spent is saved, up to a part of a window."""

    __slots__ = ("_at", "_counted_s", "_credit", "_rate", "_submits")

    def __init__(self) -> None:
        """Begins with all that can be saved."""
        self._rate: Rate | None = None
        self._credit = 0.0
        self._at = 0.0
        self._submits = 0.0
        """Of about the last window, those before it faded."""
        self._counted_s = 0.0
        """The time in which they were made, faded likewise: a window, but less at first."""

    def submitted(self) -> None:
        """Takes a submit that made a job."""
        self._submits += 1

    def opens_at(self, now: float, rate: Rate | None, *, reach: int, taught: bool) -> float:
        """Gives when the next question may be asked; not later than `now` if it may be asked now.

        Args:
            now: the present.
            rate: the account's limit in force; None for none.
            reach: how many jobs one question can tell of: several if it is a page of the list. Where submits could
                use all of the rate, this many of them are paid for with one question.
            taught: whether a job was seen to end.
        """
        if rate is None:
            return now
        most = max(1.0, _SAVED_SHARE * rate.count)
        if rate != self._rate:
            self._rate, self._credit, self._at = rate, most, now
        per_s = rate.count / rate.period_s
        least = per_s / (1 + reach)
        passed_s = now - self._at
        kept = max(0.0, 1 - passed_s / rate.period_s)
        self._submits *= kept
        self._counted_s = self._counted_s * kept + min(passed_s, rate.period_s)
        free = _SHARE_UNTAUGHT * per_s
        if taught and self._counted_s:
            free = _USED_SHARE * per_s - self._submits / self._counted_s
        self._credit = min(most, self._credit + max(least, free) * passed_s)
        self._at = now
        return now if self._credit >= 1 else now + (1 - self._credit) / max(least, free)

    def spent(self) -> None:
        """Takes a question that was sent."""
        self._credit -= 1
