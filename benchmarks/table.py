"""Puts results into Markdown: what each contender took, and how the bars stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from benchmarks.model import Line
from benchmarks.ratios import spread, values_of
from benchmarks.results import rounds_of

__all__ = ["bars_table", "case_table", "document", "number"]

_COLUMNS: Final = {
    "wall_s": "Wall, s",
    "cpu_s": "CPU, s",
    "peak_rss_mib": "Peak, MiB",
    "ids_per_s": "Ids a second",
    "answers_per_s": "Answers a second",
    "transitions_per_s": "Transitions a second",
    "cpu_us_per_chunk": "CPU a chunk, µs",
    "server_cpu_s": "CPU of the service, s",
}


def number(value: float) -> str:
    """Writes a value with three digits that mean something, and thousands apart."""
    if value >= 1000:
        return f"{round(value, 3 - len(str(int(value)))):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    came = spread(values)
    least, most = number(came.least), number(came.most)
    return number(came.median) + ("" if least == most else f" ({least} to {most})")


def case_table(case: Line, rounds: Sequence[Line]) -> str:
    """Draws a table with a row for each contender: medians, in brackets the least and the most."""
    present = [name for name in _COLUMNS if any(line.get(name) is not None for line in rounds)]
    rows = [
        "| | " + " | ".join(_COLUMNS[name] for name in present) + " |",
        "| --- |" + " ---: |" * len(present),
    ]
    for name, title in case["contenders"].items():
        cells = [_cell(values_of(rounds, name, column)) for column in present]
        if name in case["absent"]:
            cells[0] = f"{case['absent'][name]} is not installed"
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def bars_table(cases: Sequence[Line]) -> str:
    """Draws a table with a row for each bar: the median of the ratios within each round, and whether it is enough."""
    rows = ["| | Median | Least to most | Bar | Aim | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for case in cases:
        if len(cases) > 1 and case["bars"]:
            rows.append(f"| **{case['title']}** ({_played(case)}) | | | | | |")
        rows += [_bar_row(bar) for bar in case["bars"]]
    return "\n".join(rows) + "\n"


def _played(case: Line) -> str:
    rounds = max(len(bar["rounds"]) for bar in case["bars"])
    return f"{rounds} round" if rounds == 1 else f"{rounds} rounds"


def _bar_row(bar: dict[str, Any]) -> str:
    bounds = " | ".join(_bound(bar[name], at_most=bar["at_most"]) for name in ("bar", "aim"))
    if not bar["rounds"]:
        return f"| {bar['says']} | | | {bounds} | {bar['verdict']} |"
    median = f"{number(bar['median'])} {bar['unit']}".strip()
    span = f"{number(bar['least'])} to {number(bar['most'])}"
    return f"| {bar['says']} | {median} | {span} | {bounds} | {bar['verdict']} |"


def _bound(bound: float | None, *, at_most: bool) -> str:
    return "" if bound is None else f"{'≤' if at_most else '≥'} {number(bound)}"


def document(lines: Sequence[Line]) -> str:
    """Writes all results: with what they were had, the bars, and each case with its contenders."""
    abouts = [line for line in lines if line["kind"] == "about"]
    cases = [line for line in lines if line["kind"] == "case"]
    parts = [_about(line) for line in abouts]
    if any(case["bars"] for case in cases):
        parts.append("How the bars stand (medians of the ratios within each round):\n\n" + bars_table(cases))
    parts += [f"{case['title']}:\n\n{case_table(case, rounds_of(lines, case['case']))}" for case in cases]
    return "\n".join(parts)


def _about(about: Line) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    programs = ", ".join(f"{name} {version}" for name, version in about["programs"].items())
    load = ", ".join(map(str, about["load_before"]))
    words = (
        f"{about['when'][:10]}, revision {about['revision']}; {about['cpus']} cores ({about['processor']}), load "
        f"before {load}; {about['system']}; CPython {about['python']}, {libraries}; {programs}. Medians of "
        f"{about['rounds']} rounds, in brackets the least and the most; seed {about['seed']}."
    )
    return _wrapped(words) + "\n"


def _wrapped(words: str, width: int = 118) -> str:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
