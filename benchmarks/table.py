"""Puts the results of a case into Markdown: what each contender took, and how the bars stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.model import Bar, Case, Line
from benchmarks.ratios import ratios, spread, values_of

__all__ = ["bars_table", "case_table", "number"]

_COLUMNS: Final = {
    "wall_s": "Wall, s",
    "cpu_s": "CPU, s",
    "peak_rss_mib": "Peak, MiB",
    "ids_per_s": "Ids a second",
    "cpu_us_per_chunk": "CPU a chunk, µs",
    "server_cpu_s": "Server's CPU, s",
}


def number(value: float) -> str:
    """Writes a value with three digits that mean something, and thousands apart."""
    if value >= 1000:
        digits = max(0, len(str(int(value))) - 3)
        return f"{round(value, -digits):,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    all_of_them = spread(values)
    least, most = number(all_of_them.least), number(all_of_them.most)
    return number(all_of_them.median) + ("" if least == most else f" ({least} to {most})")


def case_table(case: Case, lines: Sequence[Line], absent: Mapping[str, str]) -> str:
    """Draws a table with a row for each contender: medians, in brackets the least and the most."""
    present = [name for name in _COLUMNS if any(line.get(name) is not None for line in lines)]
    rows = [
        f"{case.title}:\n",
        "| | " + " | ".join(_COLUMNS[name] for name in present) + " |",
        "| --- |" + " ---: |" * len(present),
    ]
    for one in case.contenders:
        if one.name in absent:
            rows.append(f"| {one.title} | {absent[one.name]} is not installed |" + " |" * (len(present) - 1))
            continue
        cells = [_cell(values_of(lines, one.name, name)) for name in present]
        rows.append(f"| {one.title} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def bars_table(case: Case, lines: Sequence[Line]) -> str:
    """Draws a table with a row for each bar: the median of the ratios within each round, and whether it is enough."""
    rows = ["| | Median | Least to most | Bar | Aim | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for bar in case.bars:
        found = ratios(lines, bar)
        if not found:
            rows.append(
                f"| {bar.says} | | | {_bound(bar, bar.bar)} | {_bound(bar, bar.aim)} | not measured |"
            )
            continue
        all_of_them = spread(found)
        rows.append(
            f"| {bar.says} | {number(all_of_them.median)} {bar.unit} | {number(all_of_them.least)} to "
            f"{number(all_of_them.most)} | {_bound(bar, bar.bar)} | {_bound(bar, bar.aim)} | "
            f"{bar.verdict(all_of_them.median)} |"
        )
    return "\n".join(rows) + "\n"


def _bound(bar: Bar, bound: float | None) -> str:
    return "" if bound is None else f"{'≤' if bar.most else '≥'} {number(bound)}"
