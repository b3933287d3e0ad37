"""Draws the ids accepted over time. matplotlib is loaded only when a picture is wanted."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.goodput.books import Story

__all__ = ["Panel", "can_draw", "draw"]

# Okabe and Ito's, which people who see few colours can tell apart; the first is for this engine.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00")
_SHOWN_OPTIMA: Final = 2.9
"""How much of the time is shown, by that of the optimum; whoever takes longer leaves the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Is one variant."""

    title: str
    optimum: Sequence[tuple[float, int]]
    """Seconds, and ids accepted by then."""
    stories: Mapping[str, Sequence[Story]]
    """By the title of the contender."""


def can_draw() -> bool:
    """Tells whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draws the panels side by side into a PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra, and slow to load

    figure: Any = Figure(figsize=(0.6 + 4.4 * len(panels), 4.6), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel)
    axes[0].set_ylabel("different ids accepted")
    handles, labels = axes[0].get_legend_handles_labels()
    columns = min(len(labels), 3 if len(panels) == 1 else 5)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    figure.savefig(path, dpi=90)


def _draw_panel(axis: Any, panel: Panel) -> None:
    end_s = panel.optimum[-1][0]
    shown_s = max(end_s, 0.1) * _SHOWN_OPTIMA
    axis.step(*_steps(panel.optimum, shown_s), where="post", color="0.3", linestyle=":", label="optimum")
    lockouts: list[tuple[float, int]] = []
    given_up: list[tuple[float, int]] = []
    for number, (title, stories) in enumerate(panel.stories.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        for story in stories:
            middle = story is _middle(stories)
            times, ids = _steps(story.curve, story.last_submission_s)
            axis.step(
                times,
                ids,
                where="post",
                color=colour,
                linewidth=(2.6 if number == 0 else 1.6) if middle else 0.7,
                alpha=1.0 if middle else 0.35,
                label=title if middle else None,
            )
            if middle:
                lockouts += [(at, _ids_by(story, at)) for at in story.lockouts]
                given_up += [(times[-1], ids[-1])] if story.never_accepted else []
    _mark(axis, lockouts, "x", "lock-out begins")
    _mark(axis, given_up, "s", "ended with ids missing")
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel("seconds after the first submission")
    axis.set_xlim(0, shown_s)
    axis.set_ylim(bottom=0)
    axis.locator_params(axis="x", integer=True)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.25)


def _mark(axis: Any, points: Sequence[tuple[float, int]], marker: str, label: str) -> None:
    times, ids = [at for at, _ in points], [ids for _, ids in points]
    axis.plot(times, ids, marker, color="black", fillstyle="none", markersize=5, label=label)


def _middle(stories: Sequence[Story]) -> Story:
    """Gives the story in the middle: by its last new id, those that miss some after all others."""

    def rank(story: Story) -> tuple[int, float]:
        return story.never_accepted, story.curve[-1][0] if story.curve else 0.0

    return sorted(stories, key=rank)[len(stories) // 2]


def _steps(curve: Sequence[tuple[float, int]], until_s: float) -> tuple[list[float], list[int]]:
    """Gives the points of a curve as two lists, from nothing at the start to where it ends."""
    times, ids = [0.0, *(at for at, _ in curve)], [0, *(ids for _, ids in curve)]
    return [*times, max(until_s, times[-1])], [*ids, ids[-1]]


def _ids_by(story: Story, at: float) -> int:
    return max((ids for when, ids in story.curve if when <= at), default=0)
