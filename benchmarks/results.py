"""The results as lines of JSON, from which everything that people look at is made again at any time.

Three kinds of line: `about` says with what they were had, `case` what was measured and how the bars stand, and
`round` is one contender in one round.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import ROOT
from benchmarks.model import Bar, Case, Line, Scale, Suite
from benchmarks.ratios import ratios, spread

__all__ = ["about", "case_line", "read", "rounds_of", "write"]

_LIBRARIES: Final = (
    *(
        "aiohttp",
        "aiolimiter",
        "aiohttp-retry",
        "aiometer",
        "httpx",
        "isal",
        "lxml",
        "numpy",
        "orjson",
        "polars",
    ),
    *("pyarrow", "uvloop"),
)
_PROGRAMS: Final = {"nginx": "-v", "curl": "--version", "node": "--version", "wrk": "--version"}


def about(scale: Scale, rounds: int) -> Line:
    """Says with what, on what and of which revision the figures of this run are had."""
    return {
        "kind": "about",
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "revision": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "rounds": rounds,
        "seed": scale.seed,
        "size": "smoke" if scale.smoke else "quick" if scale.quick else "full" if scale.full else "usual",
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name)) is not None},
        "programs": {
            name: said for name, ask in _PROGRAMS.items() if (said := _release(name, ask)) is not None
        },
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    said = (done.stdout or done.stderr).strip()
    return said.partition("\n")[0] or None


def _release(program: str, ask: str) -> str | None:
    found = re.search(r"\d+(\.\d+)+", _said(program, ask) or "")
    return None if found is None else found[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def case_line(
    case: Case, rounds: Sequence[Line], missing: Mapping[str, str], suite: Suite | None = None
) -> Line:
    """Puts the rounds of a case together: who took part, and what became of each bar."""
    return {
        "kind": "case",
        "suite": None if suite is None else suite.name,
        "suite_title": None if suite is None else suite.title,
        "case": case.name,
        "title": case.title,
        "contenders": {one.name: one.title for one in case.contenders},
        "absent": dict(missing),
        "bars": [_bar_line(bar, rounds) for bar in case.bars],
    }


def _bar_line(bar: Bar, rounds: Sequence[Line]) -> dict[str, Any]:
    found = ratios(rounds, bar)
    line: dict[str, Any] = {
        "says": bar.says,
        "unit": bar.unit,
        "bar": bar.bar,
        "aim": bar.aim,
        "at_most": bar.most,
        "rounds": [round(value, 6) for value in found],
    }
    if not found:
        return {**line, "verdict": "not measured"}
    came = spread(found)
    return {
        **line,
        "median": came.median,
        "least": came.least,
        "most": came.most,
        "verdict": bar.verdict(came.median),
    }


def rounds_of(lines: Iterable[Line], case: str) -> list[Line]:
    """Gives the rounds of one case."""
    return [line for line in lines if line["kind"] == "round" and line["case"] == case]


def write(lines: Iterable[Line], path: Path, *, more: bool = False) -> None:
    """Writes results, or with `more` adds them to what is there."""
    with path.open("a" if more else "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def read(path: Path) -> list[Line]:
    """Reads results again."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
