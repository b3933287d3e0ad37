"""The account that everybody works against, how it differs from variant to variant, and the best that it allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["VARIANTS", "Account", "Variant", "optimum_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Is what the simulated service allows. Windows, lock-outs and latencies are seconds of the benchmark."""

    count: int
    """Requests in any `window_s`."""
    window_s: float
    lockout_s: float
    transit_s: tuple[float, float]
    """Least and most from a client to the service, drawn anew for each request."""
    latency_s: tuple[float, float]
    """Least and most from there to the answer."""
    slots: int | None
    """Jobs that may be open at a time; None for any number."""
    job_s: float
    """How long every job is open."""

    @property
    def options(self) -> list[str]:
        """Is how `bulkjobs simulate` is told."""
        return [
            *("--rate", f"{self.count}/{self.window_s:g}s", "--lockout", f"{self.lockout_s:g}s"),
            *("--transit", _span(*self.transit_s), "--latency", _span(*self.latency_s)),
            *("--max-active-jobs", "none" if self.slots is None else str(self.slots)),
            *("--queue-time", "0s", "--job-time", _span(self.job_s, self.job_s)),
        ]


def _span(least_s: float, most_s: float) -> str:
    return f"{least_s:g}s..{most_s:g}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Is one way in which things are not as they should be."""

    title: str
    told: float = 1.0
    """The limit that the contenders are told, by the one there is."""
    faults: tuple[str, ...] = ()
    """Rules for `bulkjobs simulate`."""

    def told_count(self, account: Account) -> int:
        """Gives the requests in a window that the contenders believe in."""
        return round(account.count * self.told)


VARIANTS: Final = {
    "exact": Variant(title="limit known exactly"),
    "too-high": Variant(title="limit set 20 % too high", told=1.2),
    # All of them in the first window, where nobody is throttled yet: everybody meets the same faults.
    "lost-answers": Variant(
        title="four answers lost after the job was made",
        faults=(
            *("--fault", "submit:reset_after@3", "--fault", "submit:http504_after@7"),
            *("--fault", "submit:close_after@11", "--fault", "submit:http504_after@15"),
        ),
    ),
}


def optimum_s(account: Account, chunks: int) -> list[float]:
    """Gives when each chunk can be accepted at the earliest, in seconds after the first.

    With N requests in any window of W seconds, M slots and jobs of D seconds, and nothing but submissions:

        t(k) = 0                                    for the first min(N, M) chunks
        t(k) = max(t(k - 1), t(k - N) + W, t(k - M) + D)    for those after them

    for a request leaves the window exactly W after it came, and a slot is free exactly D after it was taken. It is a
    bound, not a plan: whoever has to ask for the end of a job spends requests on it that are not counted here, and
    no client learns at once that it may go on.
    """
    times: list[float] = []
    for number in range(chunks):
        at = times[-1] if times else 0.0
        if number >= account.count:
            at = max(at, times[number - account.count] + account.window_s)
        if account.slots is not None and number >= account.slots:
            at = max(at, times[number - account.slots] + account.job_s)
        times.append(at)
    return times
