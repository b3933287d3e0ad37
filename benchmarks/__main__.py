"""The one command: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.model import Line, Scale, Suite, WrongResult
from benchmarks.rounds import play
from benchmarks.suites import submit
from benchmarks.table import bars_table, case_table

__all__ = ["ROSTER", "main"]

ROSTER: Final[dict[str, Suite]] = {suite.name: suite for suite in (submit.SUITE,)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures, and compares.")
    add = parser.add_argument
    add("suites", nargs="*", metavar="SUITE", help=f"some of {', '.join(ROSTER)} [all]")
    add("--list", action="store_true", help="name the suites and end")
    add("--rounds", type=int, help="counted rounds of each case [5]")
    add("--seed", type=int, default=1, help="of ids and of the order within a round [1]")
    add("--quick", action="store_true", help="small sizes")
    add("--smoke", action="store_true", help="tiny sizes and one round: does everything work?")
    add("--full", action="store_true", help="a hundred million ids too")
    add("--out", type=Path, metavar="DIR", help="write results there")
    add("--dir", type=Path, help="where inputs and runs go meanwhile [temporary]")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for and prints tables; 1 when a result was wrong."""
    given = _parser().parse_args(arguments)
    rounds = given.rounds or (1 if given.smoke else 5)
    scale = Scale(quick=given.quick, smoke=given.smoke, full=given.full, seed=given.seed)
    lines: list[Line] = []
    try:
        for name in given.suites or ROSTER:
            with (
                tempfile.TemporaryDirectory(prefix="bulkjobs-benchmark-", dir=given.dir) as folder,
                ROSTER[name].cases(scale, Path(folder)) as cases,
            ):
                for case in cases:
                    ours: list[Line] = []
                    absent = play(
                        ROSTER[name], case, Path(folder), rounds=rounds, seed=given.seed, tell=ours.append
                    )
                    lines += ours
                    print(case_table(case, ours, absent))
                    print(bars_table(case, ours))
    except WrongResult as wrong:
        sys.stderr.write(f"wrong result: {wrong}\n")
        return 1
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
