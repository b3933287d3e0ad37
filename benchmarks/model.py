"""What the harness is made of, as values: suites of cases, in which contenders do the same work round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = [
    "OURS",
    "Bar",
    "Case",
    "Contender",
    "Figures",
    "Line",
    "Place",
    "Scale",
    "Suite",
    "WrongResult",
    "nothing_missing",
]

OURS: Final = "bulkjobs"
"""The name of this engine among the contenders."""

Line = dict[str, Any]
"""One measured round of one contender, as it stands in the results."""


class WrongResult(Exception):  # noqa: N818 - the name says what happened
    """Says how the outcome of a run differs from what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Is what one round of one contender took. Times are of all its processes."""

    wall_s: float
    cpu_s: float | None = None
    """User and system."""
    peak_rss_mib: float | None = None
    """Of the largest of its processes."""
    more: dict[str, float] = field(default_factory=dict)
    """Whatever else the suite measures, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Is how much is measured."""

    quick: bool = False
    """Small sizes: minutes for everything."""
    smoke: bool = False
    """Tiny sizes: does it work at all?"""
    full: bool = False
    """A hundred million ids too, where that makes sense."""
    seed: int = 1

    def pick(self, whole: int, quick: int, smoke: int) -> int:
        """Gives the one of three sizes that is asked for."""
        return smoke if self.smoke else quick if self.quick else whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Is where one round of one contender happens."""

    folder: Path
    """Empty, and of nobody else."""
    warm_up: bool
    """This round is not counted, so it may be checked at any price."""


def nothing_missing() -> str | None:
    """Says that a contender needs nothing that could be missing."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Is one that takes part."""

    name: str
    title: str
    play: Callable[[Place], Figures]
    """Does the work once and checks that it was done; raises `WrongResult` when not."""
    missing: Callable[[], str | None] = nothing_missing
    """Names what it needs and is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Is what a ratio of two contenders in the same round, or a figure alone, should come to: shown, never enforced.

    With `below` the figure is that of `above` divided by that of `below`.
    """

    says: str
    figure: str
    """`wall_s`, `cpu_s`, `peak_rss_mib`, or one of the suite's own."""
    above: str
    below: str | None = None
    bar: float | None = None
    """None: it is only reported."""
    aim: float | None = None
    most: bool = False
    """The ratio should be at most the bar; otherwise at least."""
    unit: str = "times"

    def verdict(self, value: float) -> str:
        """Says whether a median met the bar and the aim."""

        def met(bound: float) -> bool:
            return value <= bound if self.most else value >= bound

        if self.bar is None and self.aim is None:
            return "reported"
        if self.aim is not None and met(self.aim):
            return "aim met"
        return "met" if self.bar is not None and met(self.bar) else "not met"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Is one piece of work that all its contenders do in every round."""

    name: str
    title: str
    contenders: tuple[Contender, ...]
    ids: int
    chunks: int = 0
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Is a set of cases that belong together and share their inputs."""

    name: str
    title: str
    cases: Callable[[Scale, Path], AbstractContextManager[Sequence[Case]]]
    """Makes the inputs in a folder, runs what must run beside, and gives the cases."""
