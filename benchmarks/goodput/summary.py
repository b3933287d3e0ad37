"""Puts the rounds together: medians with their spread, as a table for people and as values for JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.goodput.books import Story
from benchmarks.ratios import Spread

__all__ = ["Spread", "spread", "summary", "table"]


def spread(values: Sequence[float]) -> Spread:
    """Gives median, least and most of at least one value. Of an even number the median is the greater middle one.

    So it is always the value of some round, and infinite when half of the rounds never came to it.
    """
    return Spread(statistics.median_high(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    heading: str
    value: Callable[[Story, float], float]
    """Of a story and the optimum in seconds."""
    form: str


_COLUMNS: Final = (
    _Column("paid_twice", "Ids paid twice", lambda story, _: story.paid_twice, ",.0f"),
    _Column("never_accepted", "Ids never accepted", lambda story, _: story.never_accepted, ",.0f"),
    _Column("lockouts", "Lock-outs", lambda story, _: len(story.lockouts), ".0f"),
    _Column("requests", "Requests", lambda story, _: story.requests, ".0f"),
    _Column("throttled", "Throttled", lambda story, _: story.throttled, ".0f"),
    _Column("wasted", "Wasted", lambda story, _: story.wasted, ".0f"),
    _Column(
        "finished_s",
        "All accepted after, s",
        lambda story, _: math.inf if story.finished_s is None else story.finished_s,
        ".1f",
    ),
    _Column(
        "share_of_optimum",
        "Share of the optimum",
        lambda story, optimum: story.share_of_optimum(optimum),
        ".0%",
    ),
)


def summary(stories: Sequence[Story], optimum_s: float) -> dict[str, dict[str, float | None]]:
    """Gives each figure of one contender over its rounds, fit for JSON: null where something never came about."""
    figures = {
        column.name: spread([column.value(story, optimum_s) for story in stories]) for column in _COLUMNS
    }
    return {
        name: {key: value if math.isfinite(value) else None for key, value in asdict(figure).items()}
        for name, figure in figures.items()
    }


def table(rows: Mapping[str, Sequence[Story]], optimum_s: float) -> str:
    """Draws the Markdown table of one variant: a row for each contender, by its title."""
    lines = [
        "| | " + " | ".join(column.heading for column in _COLUMNS) + " |",
        "| --- |" + " ---: |" * len(_COLUMNS),
    ]
    for title, stories in rows.items():
        cells = (
            _cell(spread([column.value(story, optimum_s) for story in stories]), column.form)
            for column in _COLUMNS
        )
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(figure: Spread, form: str) -> str:
    median, least, most = (_text(value, form) for value in (figure.median, figure.least, figure.most))
    return median if least == most else f"{median} ({least} to {most})"


def _text(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "never"
