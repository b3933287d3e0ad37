"""Plays the scenarios and prints the table of `docs/account-gate.md`: `python -m tests.soak scenarios [NAME …]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from support.scenarios import load, markdown, names, play, problems
from support.scenarios.engine import play_engine

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Plays all scenarios, or those named, and gives 1 if one did not come out as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak scenarios")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them by default")
    parser.add_argument("--engine", action="store_true", help="plays the short form with the whole engine")
    given = parser.parse_args(argv)
    reports, found = [], []
    for name in given.names or names():
        scenario = load(name)
        if not given.engine:
            report = play(scenario)
            found += problems(report, scenario.expect)
        elif scenario.engine_chunks is not None:
            with tempfile.TemporaryDirectory(prefix="soak-") as folder:
                report = play_engine(scenario, Path(folder))
            found += problems(report, scenario.engine_expect)
        else:
            continue
        reports.append(report)
    print(markdown(reports))
    print(f"{sum(report.cpu_s for report in reports):.1f} s of one core", *found, sep="\n", file=sys.stderr)
    return 1 if found else 0
