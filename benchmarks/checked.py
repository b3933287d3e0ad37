"""Times whole runs: `python -m benchmarks.checked --ids 10_000_000`.

The simulated service and `bulkjobs submit` are processes of their own, as in real life; what is measured is what the
operating system says of the client. Each run is checked (the client's account, the service's books, each single id);
times are reported and never judged.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.request import urlopen

import numpy as np

from benchmarks.data import DataSpec, distinct_ids, write
from bulkjobs import __version__

__all__ = ["main"]

_T = TypeVar("_T")

_CHUNK_IDS: Final = 10_000
_SMOKE_IDS: Final = 200_000
_LIBRARIES: Final = ("aiohttp", "aiolimiter", "lxml", "numpy", "orjson", "uvloop")
_RSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


class WrongResult(Exception):  # noqa: N818 - the name says what happened
    """Says how the outcome of a run differs from what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Is one thing to measure."""

    data: DataSpec
    compress: bool
    accept: str
    workers: int
    rounds: int


def measure(case: Case, folder: Path) -> list[dict[str, float]]:
    """Makes the input, runs the case and checks every round.

    Raises:
        WrongResult: a run did not end as it must.
    """
    source = folder / ("ids.txt.gz" if case.compress else "ids.txt")
    _apart(write, case.data, source, compress=case.compress)
    rounds = []
    for number in range(1, case.rounds + 1):
        rounds.append(_round(case, source, folder, number))
        sys.stderr.write(f"round {number} of {case.rounds}: {json.dumps(rounds[-1])}\n")
    return rounds


def _round(case: Case, source: Path, folder: Path, number: int) -> dict[str, float]:
    run_dir, books = folder / f"run-{number}", folder / f"books-{number}.txt"
    with _Server(books, number) as server:
        client = _submit(case, source, run_dir, server.ready)
        with urlopen(server.ready["books_url"], timeout=60) as answer:
            totals = json.load(answer)
    _check_account(case.data, client, totals)
    _check_records(case.data, run_dir / "jobs.jsonl")
    _apart(check_books, case.data, books)
    books.unlink()
    return {
        "wall_s": round(client.process.wall_s, 3),
        "session_s": round(client.summary["elapsed_s"], 3),
        "client_cpu_s": round(client.process.cpu_s, 3),
        "client_peak_rss_mib": round(client.process.peak_rss_bytes / 2**20, 1),
        "server_cpu_s": round(server.usage.cpu_s, 3),
        "requests": totals["requests"]["submit"],
    }


# Processes


@dataclass(frozen=True, slots=True)
class _Usage:
    """Is what the operating system says of a process that has ended."""

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True)
class _Submitted:
    """Is what one `bulkjobs submit` said, and what it took."""

    summary: dict[str, Any]
    process: _Usage


def _submit(case: Case, source: Path, run_dir: Path, ready: dict[str, str]) -> _Submitted:
    command = [
        *(sys.executable, "-m", "bulkjobs", "submit", str(source), "--run", str(run_dir)),
        *("--base-url", ready["base_url"], "--rate", "none", "--max-active-jobs", "none"),
        *("--accept", case.accept, "--workers", str(case.workers), "--json", "--quiet"),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BULKJOBS_")}
    environ["BULKJOBS_ACCESS_TOKEN"] = ready["token"]
    environ["XDG_STATE_HOME"] = str(run_dir.parent / "state")
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read()
    usage = _wait(process, began)
    if not said:
        raise WrongResult(f"The client ended with exit code {usage.exit_code} and without a summary.")
    return _Submitted(json.loads(said), usage)


def _wait(process: subprocess.Popen[bytes], began: float) -> _Usage:
    # wait4 gives the figures of this one child; those of RUSAGE_CHILDREN are sums and maxima over all.
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    return _Usage(process.returncode, wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * _RSS_UNIT_BYTES)


class _Server:
    """Runs the simulated service without limits for as long as the block lasts."""

    usage: _Usage

    def __init__(self, books: Path, seed: int) -> None:
        self._command = [
            *(sys.executable, "-m", "bulkjobs", "simulate", "--rate", "none", "--max-active-jobs", "none"),
            # It ends by itself should this process be killed.
            *("--books", str(books), "--seed", str(seed), "--for", "2h"),
        ]

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise WrongResult("The simulated service did not start.")
        self.ready: dict[str, str] = json.loads(line)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdout is not None
        self._process.terminate()
        self._process.stdout.close()
        self.usage = _wait(self._process, self._began)


def _apart(function: Callable[..., _T], /, *arguments: Any, **named: Any) -> _T:
    """Calls a function in a process of its own.

    On Linux the peak memory of a child begins with that of its parent, so this process must stay small.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()


# Checks


def _check_account(data: DataSpec, client: _Submitted, totals: dict[str, Any]) -> None:
    chunks = math.ceil(data.ids / _CHUNK_IDS)
    expected_ids = {
        "read": data.lines,
        "invalid": data.invalid_lines,
        "duplicate": data.duplicate_lines,
        "accepted": data.ids,
        "refused": 0,
        "held": 0,
        "pending": 0,
    }
    pairs = [
        ("ids in the summary", client.summary["ids"], expected_ids),
        ("accepted chunks", client.summary["chunks"]["accepted"], chunks),
        ("exit code", client.process.exit_code, 3 if data.invalid_lines else 0),
        ("jobs in the books", totals["jobs"], chunks),
        ("ids in the books", totals["ids"], data.ids),
        ("repeated bodies", totals["repeated_bodies"], 0),
        ("malformed bodies", totals["malformed_bodies"], 0),
        ("submissions", totals["requests"]["submit"], chunks),
    ]
    for what, found, expected in pairs:
        if found != expected:
            raise WrongResult(f"{what}: {found}, and it should be {expected}")


def _check_records(data: DataSpec, jobs: Path) -> None:
    with jobs.open("rb") as lines:
        records = [json.loads(line) for line in lines]
    chunks = math.ceil(data.ids / _CHUNK_IDS)
    if sorted(record["chunk"] for record in records) != list(range(1, chunks + 1)):
        raise WrongResult("The job records do not name every chunk exactly once.")
    if len({record["job_id"] for record in records}) != chunks:
        raise WrongResult("Two job records name the same job.")


def check_books(data: DataSpec, books: Path) -> None:
    """Compares the bodies that the service accepted with the ids that were made, one by one.

    Raises:
        WrongResult: an id is missing, stands there twice, or was never made.
    """
    accepted = np.sort(np.fromfile(books, dtype=np.uint64, sep="\n"))
    made = np.sort(np.concatenate(list(distinct_ids(data))))
    if not np.array_equal(accepted, made):
        raise WrongResult("The service does not have each of the ids exactly once.")


# The command


def report(case: Case, rounds: Sequence[dict[str, float]]) -> dict[str, object]:
    """Puts the figures of all rounds together with what they were had with."""
    walls = [one["wall_s"] for one in rounds]
    return {
        "benchmark": "submit",
        "ids": case.data.ids,
        "lines": case.data.lines,
        "spread": case.data.spread,
        "gzip": case.compress,
        "accept": case.accept,
        "workers": case.workers,
        "wall_s": {"median": statistics.median(walls), "min": min(walls), "max": max(walls)},
        "ids_per_s": round(case.data.ids / statistics.median(walls)),
        "client_cpu_us_per_chunk": round(
            statistics.median(one["client_cpu_s"] for one in rounds)
            / math.ceil(case.data.ids / _CHUNK_IDS)
            * 1e6
        ),
        "client_peak_rss_mib": max(one["client_peak_rss_mib"] for one in rounds),
        "rounds": list(rounds),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "libraries": {"bulkjobs": __version__, **{name: _version(name) for name in _LIBRARIES}},
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bulkjobs-benchmark-", dir=given) as name:
        yield Path(name)


def _case(arguments: Sequence[str] | None) -> tuple[Case, Path | None]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checked", description="Times whole runs against the simulated service."
    )
    parser.add_argument("--ids", type=int, default=10_000_000, help="distinct valid ids [10_000_000]")
    parser.add_argument("--duplicates", type=float, default=0.02, help="as for benchmarks.data [0.02]")
    parser.add_argument("--invalid", type=float, default=0.0001, help="as for benchmarks.data [0.0001]")
    parser.add_argument("--spread", type=int, default=1, help="as for benchmarks.data [1]")
    parser.add_argument("--seed", type=int, default=1, help="as for benchmarks.data [1]")
    parser.add_argument("--gzip", action="store_true", help="give the client a gzip file")
    parser.add_argument("--accept", choices=("json", "xml"), default="json")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where the files go, about ten bytes an id each [temporary]")
    parser.add_argument(
        "--smoke", action="store_true", help=f"one round of {_SMOKE_IDS:,} ids: does it work at all?"
    )
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be at least 1.")
    try:
        data = DataSpec(
            ids=_SMOKE_IDS if given.smoke else given.ids,
            duplicates=given.duplicates,
            invalid=given.invalid,
            spread=given.spread,
            seed=given.seed,
        )
    except ValueError as error:
        parser.error(str(error))
    rounds = 1 if given.smoke else given.rounds
    case = Case(data=data, compress=given.gzip, accept=given.accept, workers=given.workers, rounds=rounds)
    return case, given.dir


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for and prints one line of JSON; 1 when a result was wrong."""
    case, given = _case(arguments)
    try:
        with _folder(given) as folder:
            rounds = measure(case, folder)
    except WrongResult as wrong:
        sys.stderr.write(f"wrong result: {wrong}\n")
        return 1
    print(json.dumps(report(case, rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
