"""Draws results. matplotlib is large: this runs in a process of its own (see `measuring.apart`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.model import OURS, Line
from benchmarks.ratios import spread, values_of
from benchmarks.results import read, rounds_of

__all__ = ["can_draw", "draw"]

# Okabe and Ito's, which people who see few colours can tell apart.
_OURS: Final = "#0072B2"
_OTHERS: Final = "#8C8C8C"
_CPU: Final = "#D55E00"
_PANELS: Final = {
    "answers": ("cpu_us_per_answer", "CPU time an answer, µs"),
    "ledger": ("transitions_per_s", "durable transitions a second"),
    "memory": ("peak_rss_mib", "peak memory, MiB"),
    "chunk": ("million_ids_per_s", "million ids a second"),
}
"""What a suite is about besides wall and CPU time."""


def can_draw() -> bool:
    """Tells whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(results: Path, folder: Path) -> list[str]:
    """Draws a picture for each suite in the results and gives the names of the files."""
    lines = read(results)
    suites: dict[str, list[Line]] = {}
    for line in lines:
        if line["kind"] == "case":
            suites.setdefault(line["suite"], []).append(line)
    for name, cases in suites.items():
        _draw_suite(name, cases, lines, folder / f"{name}.png")
    return [f"{name}.png" for name in suites]


def _draw_suite(name: str, cases: Sequence[Line], lines: Sequence[Line], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra, and slow to load

    if name == "curve":
        figure: Any = Figure(figsize=(5 * len(cases), 4), layout="constrained")
        for axis, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
            _draw_curve(axis, case, rounds_of(lines, case["case"]))
    else:
        heights = [len(case["contenders"]) + 1.4 for case in cases]
        figure = Figure(figsize=(9, 0.9 + 0.38 * sum(heights)), layout="constrained")
        axes = figure.subplots(len(cases), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for (axis,), case in zip(axes, cases, strict=True):
            _draw_bars(axis, case, rounds_of(lines, case["case"]), _PANELS.get(name))
    figure.savefig(path, dpi=100)


def _draw_bars(axis: Any, case: Line, rounds: Sequence[Line], panel: tuple[str, str] | None) -> None:
    """Draws a row for each contender: median as a bar, and a line from the least to the most."""
    names = [name for name in case["contenders"] if name not in case["absent"]]
    for row, name in enumerate(names):
        colour = _OURS if _is_ours(name, names) else _OTHERS
        if panel is not None:
            _bar(axis, row, values_of(rounds, name, panel[0]), colour, 0.6)
        else:
            _bar(axis, row - 0.18, values_of(rounds, name, "wall_s"), colour, 0.34)
            _bar(axis, row + 0.18, values_of(rounds, name, "cpu_s"), _CPU, 0.22)
    axis.set_yticks(range(len(names)), [case["contenders"][name] for name in names], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(case["title"], fontsize=9, loc="left")
    axis.set_xlabel(
        panel[1] if panel else "seconds: wall (upper bar), CPU of all its processes (lower)", fontsize=8
    )
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlim(left=0)
    axis.grid(axis="x", alpha=0.25)


def _is_ours(name: str, names: Sequence[str]) -> bool:
    return name.startswith((OURS, "ours", "import-bulkjobs")) or not any(
        one.startswith(OURS) for one in names
    )


def _bar(axis: Any, at: float, values: Sequence[float], colour: str, height: float) -> None:
    if values:
        came = spread(values)
        axis.barh(at, came.median, height=height, color=colour)
        axis.plot([came.least, came.most], [at, at], color="black", linewidth=1, marker="|", markersize=5)


def _draw_curve(axis: Any, case: Line, rounds: Sequence[Line]) -> None:
    """Draws wall and CPU time by the number in each contender's name, both on logarithmic scales."""
    numbers = {name: int(name.rpartition("-")[2]) for name in case["contenders"]}
    for figure, label, colour in (("wall_s", "wall", _OURS), ("cpu_s", "CPU", _CPU)):
        points = [
            (number, spread(values))
            for name, number in numbers.items()
            if (values := values_of(rounds, name, figure))
        ]
        xs, medians = [number for number, _ in points], [came.median for _, came in points]
        axis.plot(xs, medians, marker="o", markersize=4, color=colour, label=label)
        axis.fill_between(
            xs,
            [c.least for _, c in points],
            [c.most for _, c in points],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(list(numbers.values()), [f"{number:,}" for number in numbers.values()], fontsize=8)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="y", which="both", labelsize=8)
    axis.xaxis.minorticks_off()
    axis.set_title(case["title"], fontsize=10)
    axis.set_xlabel(case["case"].rpartition("-")[2])
    axis.set_ylabel("seconds")
    axis.grid(alpha=0.25, which="both")
    axis.legend(fontsize=8, frameon=False)
