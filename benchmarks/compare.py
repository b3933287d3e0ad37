"""Compares two revisions of this repository: `python -m benchmarks.compare main HEAD --rounds 9`.

Each revision gets a worktree and a virtual environment of its own. In every round both submit the same file to the
same service, in a drawn order, and only figures of the same round are divided by each other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.measuring import ROOT, end_in_order
from benchmarks.model import Bar, Case, Contender, Line, Scale, WrongResult
from benchmarks.results import about, case_line
from benchmarks.rounds import absent, play
from benchmarks.server import fast
from benchmarks.suites.submit import made, our_run
from benchmarks.table import bars_table, case_table

__all__ = ["Plan", "main", "read_plan"]

_FIGURES: Final = {"wall_s": "wall time", "cpu_s": "CPU time", "peak_rss_mib": "peak memory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Is what the command line asks for."""

    revisions: tuple[str, str]
    ids: int
    rounds: int
    seed: int
    options: tuple[str, ...]
    folder: Path | None


def read_plan(arguments: Sequence[str] | None) -> Plan:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compares whole runs of two revisions.",
        epilog="What stands behind -- goes to `bulkjobs submit`, such as -- --no-dedupe.",
    )
    add = parser.add_argument
    add("before", metavar="REV1", help="whatever git takes for a commit")
    add("after", metavar="REV2")
    add("--ids", type=int, default=10_000_000, help="ids to submit [10_000_000]")
    add("--rounds", type=int, default=9)
    add("--seed", type=int, default=1)
    add("--dir", type=Path, help="where worktrees, inputs and runs go meanwhile [temporary]")
    words = sys.argv[1:] if arguments is None else list(arguments)
    end = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:end])
    if min(given.ids, given.rounds) < 1:
        parser.error("--ids and --rounds must be at least 1.")
    return Plan(
        revisions=(given.before, given.after),
        ids=given.ids,
        rounds=given.rounds,
        seed=given.seed,
        options=tuple(words[end + 1 :]),
        folder=given.dir,
    )


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongResult(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def _installed(revision: str, folder: Path) -> Iterator[str]:
    """Gives the Python of an environment in which a revision is installed, and cleans up behind it."""
    tree = folder / "tree"
    _git("worktree", "add", "--detach", str(tree), revision)
    try:
        python = folder / "venv" / "bin" / "python"
        for command in (
            [sys.executable, "-m", "venv", str(folder / "venv")],
            # Not editable: the benchmark's own folder, in which programs may start, must not lend its package.
            [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(tree)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise WrongResult(f"{revision} cannot be installed: {done.stderr.strip()[-800:]}")
        yield str(python)
    finally:
        _git("worktree", "remove", "--force", str(tree))


def _bars(before: str, after: str) -> tuple[Bar, ...]:
    return tuple(
        Bar(says=f"{says}, after by before", figure=figure, above=after, below=before, most=True)
        for figure, says in _FIGURES.items()
    )


@contextmanager
def _case(plan: Plan, folder: Path) -> Iterator[Case]:
    names = ("before", "after")
    # Looked up once: a branch may move while this takes its minutes.
    commits = [_git("rev-parse", "--verify", f"{revision}^{{commit}}") for revision in plan.revisions]
    with (
        _installed(commits[0], folder / names[0]) as before,
        _installed(commits[1], folder / names[1]) as after,
        fast(folder / "service") as service,
    ):
        work = made(plan.ids, folder / "ids.txt", plan.seed)

        def contender(name: str, commit: str, python: str) -> Contender:
            title = f"{name}: {_git('log', '-1', '--format=%h %s', commit)}"
            return our_run(work, service, *plan.options, name=name, title=title, python=python)

        yield Case(
            name="compare",
            title=f"{plan.ids:,} ids, file to records",
            contenders=tuple(map(contender, names, commits, (before, after))),
            ids=work.ids,
            chunks=work.chunks,
            bars=_bars(*names),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares what the command line names and prints tables; 1 when something cannot be had or was wrong."""
    plan = read_plan(arguments)
    told: list[Line] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="bulkjobs-compare-", dir=plan.folder) as folder,
            _case(plan, Path(folder)) as case,
        ):
            play(case, Path(folder), rounds=plan.rounds, seed=plan.seed, tell=told.append)
            missing = absent(case)
    except WrongResult as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 1
    line = case_line(case, told, missing)
    on = about(Scale(seed=plan.seed), plan.rounds)
    print(
        f"{case_table(line, told)}\n{bars_table([line])}\n{on['system']}, {on['cpus']} cores, {on['processor']}"
    )
    return 0


if __name__ == "__main__":
    end_in_order()
    sys.exit(main())
