"""The one command: `python -m benchmarks`. It measures, and puts what it measured before people's eyes."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import results
from benchmarks.measuring import ROOT, apart, clean_environ, end_in_order
from benchmarks.model import Line, Scale, Suite, WrongResult
from benchmarks.page import page
from benchmarks.plots import can_draw, draw
from benchmarks.rounds import absent, play
from benchmarks.suites import answers, checked, chunk, curve, ledger, memory, resume, startup, submit
from benchmarks.table import bars_table, case_table, document

__all__ = ["ROSTER", "between_markers", "main"]

_GOODPUT: Final = "goodput"
"""A comparison with rounds and tables of its own; it is started beside the suites."""
ROSTER: Final[dict[str, Suite]] = {
    module.SUITE.name: module.SUITE
    for module in (submit, chunk, memory, resume, startup, answers, ledger, curve, checked)
}
_README: Final = ROOT / "benchmarks" / "README.md"
_PICTURES: Final = ROOT / "benchmarks" / "pictures"
_BEGIN: Final = "<!-- figures: written by `python -m benchmarks --update-readme` -->"
_END: Final = "<!-- end of figures -->"


def measure(names: Sequence[str], scale: Scale, rounds: int, folder: Path | None, path: Path) -> None:
    """Plays suites; each case is written to the results and printed as it is done.

    Raises:
        WrongResult: a contender did not do what it should.
    """
    about = results.about(scale, max(rounds, 1))
    results.write([about], path)
    # So that lines of several runs may stand in one file.
    mark = {"revision": about["revision"], "seed": scale.seed, "run": about["when"]}
    for name in names:
        suite = ROSTER[name]
        with (
            tempfile.TemporaryDirectory(prefix="bulkjobs-benchmark-", dir=folder) as place,
            suite.cases(scale, Path(place)) as cases,
        ):
            for case in cases:
                told: list[Line] = []
                play(case, Path(place), rounds=rounds, seed=scale.seed, tell=told.append)
                told = [{"kind": "round", "suite": name, **line, **mark} for line in told]
                summary = results.case_line(case, told, absent(case), suite)
                results.write([summary, *told], path, more=True)
                print(_tables(summary, told), flush=True)


def _tables(case: Line, rounds: Sequence[Line]) -> str:
    bars = f"\n{bars_table([case])}" if case["bars"] else ""
    return f"{case['title']}:\n\n{case_table(case, rounds)}{bars}"


def show(lines: Sequence[Line], out: Path) -> None:
    """Writes tables, pictures and the page into the folder that has the results."""
    (out / "results.md").write_text(document(lines), encoding="utf-8")
    pictures = apart(draw, out / "results.jsonl", out) if can_draw() else []
    goodput = [name for name in ("goodput.png",) if (out / name).is_file()]
    (out / "index.html").write_text(
        page(lines, [out / name for name in [*pictures, *goodput]]), encoding="utf-8"
    )


def between_markers(text: str, figures: str) -> str:
    """Gives a text with what stands between the two markers exchanged.

    Raises:
        ValueError: a marker is missing.
    """
    head, _, rest = text.partition(_BEGIN)
    _, found, tail = rest.partition(_END)
    if not found:
        raise ValueError(f"There must be {_BEGIN!r} and {_END!r}.")
    return f"{head}{_BEGIN}\n\n{figures.strip()}\n\n{_END}{tail}"


def update_readme(lines: Sequence[Line], out: Path) -> None:
    """Exchanges the figures and the pictures in the README."""
    shown = [line["suite"] for line in lines if line["kind"] == "case"]
    pictures = []
    _PICTURES.mkdir(exist_ok=True)
    for name in dict.fromkeys(shown):
        if (out / f"{name}.png").is_file():
            shutil.copyfile(out / f"{name}.png", _PICTURES / f"{name}.png")
            pictures.append(f"![{ROSTER[name].title}](pictures/{name}.png)")
    figures = "\n\n".join([document(lines), *pictures])
    _README.write_text(between_markers(_README.read_text(encoding="utf-8"), figures), encoding="utf-8")


def _goodput(out: Path, *, smoke: bool) -> int:
    options = ["--smoke"] if smoke else ["--out", str(out), "--variants", "exact,too-high,lost-answers"]
    command = [sys.executable, "-m", "benchmarks.goodput", *options]
    return subprocess.run(command, env=clean_environ({}), check=False).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures this engine beside what people have at hand."
    )
    names = ", ".join([*ROSTER, _GOODPUT])
    add = parser.add_argument
    add("suites", nargs="*", metavar="SUITE", help=f"some of {names} [all]")
    add("--list", action="store_true", help="name the suites and end")
    add("--rounds", type=int, default=5, help="counted rounds of each case [5]")
    add("--seed", type=int, default=1, help="of ids and of the order within a round [1]")
    add("--quick", action="store_true", help="small sizes")
    add("--full", action="store_true", help="a hundred million ids too, where there is something to be seen")
    add("--smoke", action="store_true", help="tiny sizes and only the checked warm-up: does everything work?")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where results, tables, pictures and page go [benchmark-results]",
    )
    add("--dir", type=Path, help="where inputs and runs go meanwhile, about 10 bytes an id twice [temporary]")
    add("--show", type=Path, metavar="RESULTS", help="measure nothing; show a results.jsonl")
    add("--update-readme", action="store_true", help="put the figures into benchmarks/README.md")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line asks for; 1 when a result was wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    known = [*ROSTER, _GOODPUT]
    if unknown := set(given.suites) - set(known):
        parser.error(f"There is no suite {min(unknown)!r}; there are {', '.join(known)}.")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1.")
    if given.list:
        print("\n".join(known))
        return 0
    scale = Scale(quick=given.quick, smoke=given.smoke, full=given.full, seed=given.seed)
    if given.smoke and given.out is None:
        with tempfile.TemporaryDirectory(prefix="bulkjobs-benchmark-") as folder:
            return _work(given, scale, Path(folder))
    out = given.out or Path("benchmark-results")
    out.mkdir(parents=True, exist_ok=True)
    return _work(given, scale, out)


def _work(given: argparse.Namespace, scale: Scale, out: Path) -> int:
    names = given.suites or [*ROSTER, _GOODPUT]
    suites = [name for name in names if name != _GOODPUT]
    path = out / "results.jsonl"
    try:
        if given.show is None:
            measure(suites, scale, 0 if given.smoke else given.rounds, given.dir, path)
        elif given.show.resolve() != path.resolve():
            shutil.copyfile(given.show, path)
    except WrongResult as wrong:
        sys.stderr.write(f"wrong result: {wrong}\n")
        return 1
    lines = results.read(path)
    if _GOODPUT in names and not given.show and _goodput(out, smoke=given.smoke):
        return 1
    show(lines, out)
    if given.update_readme:
        update_readme(lines, out)
    return 0


if __name__ == "__main__":
    end_in_order()
    sys.exit(main())
