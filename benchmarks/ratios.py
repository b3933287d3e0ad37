"""The arithmetic: in which order a round is played, and what the rounds come to."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.model import Bar, Line

__all__ = ["Spread", "figure_of", "order", "ratios", "spread", "values_of"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Is what the rounds came to."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Gives median, least and most of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def order(names: Sequence[str], *, case: str, number: int, seed: int) -> list[str]:
    """Gives the order in which contenders play a round: random, and the same whenever it is repeated."""
    shuffled = list(names)
    random.Random(f"{seed} {case} {number}").shuffle(shuffled)
    return shuffled


def figure_of(line: Line, figure: str) -> float | None:
    """Gives a figure of a round, or None where it was not measured."""
    value = line.get(figure)
    return None if value is None else float(value)


def values_of(lines: Iterable[Line], contender: str, figure: str) -> list[float]:
    """Gives a figure of one contender in each round in which there is one."""
    found = (figure_of(line, figure) for line in lines if line["contender"] == contender)
    return [value for value in found if value is not None]


def ratios(lines: Sequence[Line], bar: Bar) -> list[float]:
    """Gives what a bar is about, round by round: only figures of the same round are divided by each other.

    What changes from round to round, as the machine does that has other work too, falls out of such a ratio; it would
    not of a ratio of medians.
    """
    if bar.below is None:
        return values_of(lines, bar.above, bar.figure)
    by_round: dict[int, dict[str, float]] = {}
    for line in lines:
        value = figure_of(line, bar.figure)
        if value is not None:
            by_round.setdefault(line["round"], {})[line["contender"]] = value
    return [
        found[bar.above] / found[bar.below]
        for _, found in sorted(by_round.items())
        if bar.above in found and found.get(bar.below)
    ]
