"""Whole runs, file to records, against a service that answers at once: this engine, and what people have at hand."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import Usage, lacking, run
from benchmarks.model import OURS, Bar, Case, Contender, Figures, Place, Scale, Suite, WrongResult
from benchmarks.server import Counts, Service, counting, fast

__all__ = ["CHUNK_IDS", "KEPT", "SUITE", "Work", "engine", "environ", "every_id", "made", "our_run", "ours"]

CHUNK_IDS: Final = 10_000
KEPT: Final = f"{OURS}-kept"
"""This engine with `--no-dedupe`."""
_CONTENDERS: Final = Path(__file__).parents[1] / "contenders"
_TOKEN: Final = "benchmark-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Is what everybody has to do: ids of one length, each once."""

    source: Path
    ids: int
    digits: int

    @property
    def chunks(self) -> int:
        """Is how many requests that takes."""
        return math.ceil(self.ids / CHUNK_IDS)

    @property
    def body_bytes(self) -> int:
        """Is the length of all bodies: a newline between each two ids and none at the end."""
        return self.ids * (self.digits + 1) - self.chunks


def made(ids: int, path: Path, seed: int) -> Work:
    """Makes a file of ids, in a process of its own (see `measuring.run`)."""
    command = [sys.executable, "-m", "benchmarks.data", "--ids", str(ids), "--seed", str(seed)]
    run([*command, "-o", str(path)], path.parent)
    return Work(source=path, ids=ids, digits=json.loads((path.parent / "out").read_bytes())["digits"])


Command = Callable[[Work, Service, Place], list[str]]
Check = Callable[[Work, Place, Counts], None]


def _player(
    work: Work, service: Service, command: Command, check: Check, more: Mapping[str, str] | None = None
) -> Callable[[Place], Figures]:
    """Gives what plays one round: the command, then a look at what arrived. Warm-ups go to the counting server."""

    def play(place: Place) -> Figures:
        with counting() if place.warm_up else nullcontext(service) as used:
            before = used.counts()
            usage = run(command(work, used, place), place.folder, {**environ(place.folder), **(more or {})})
            came = used.since(before)
        check(work, place, came)
        return usage.figures(**_rates(work, usage, came))

    return play


def environ(folder: Path) -> dict[str, str]:
    """Gives what everybody finds in the environment, for a round that is played in a folder."""
    return {
        "ACCESS_TOKEN": _TOKEN,
        "BULKJOBS_ACCESS_TOKEN": _TOKEN,
        "XDG_STATE_HOME": str(folder / "state"),
        "BODY": str(folder / "body"),
    }


def _rates(work: Work, usage: Usage, came: Counts) -> dict[str, float]:
    rates = {"ids_per_s": work.ids / usage.wall_s, "cpu_us_per_chunk": usage.cpu_s / work.chunks * 1e6}
    return rates if came.cpu_s is None else {**rates, "server_cpu_s": came.cpu_s}


# What must have arrived


def _number(work: Work, _place: Place, came: Counts) -> None:
    if came.requests != work.chunks:
        raise WrongResult(f"{came.requests} requests arrived instead of {work.chunks}")


def every_id(work: Work, place: Place, came: Counts) -> None:
    """Compares requests, and where they were counted bytes and ids of the bodies, with what is in the file.

    Raises:
        WrongResult: they differ.
    """
    _number(work, place, came)
    _content(work, came)


def _content(work: Work, came: Counts) -> None:
    expected = (work.body_bytes, work.ids)
    if came.ids is not None and (came.body_bytes, came.ids) != expected:
        raise WrongResult(f"bytes and ids that arrived: {(came.body_bytes, came.ids)} instead of {expected}")


def _engine_too(work: Work, place: Place, came: Counts) -> None:
    """Compares also the engine's own account with what was put in, and looks at each of its records."""
    _content(work, came)
    said = json.loads((place.folder / "out").read_bytes())
    asked = sum(count for kind, count in said["requests"].items() if kind != "throttled")
    if came.requests != asked or said["requests"]["submit"] != work.chunks:
        raise WrongResult(f"{came.requests} requests arrived, and the engine says {said['requests']}")
    expected = {"read": work.ids, "invalid": 0, "duplicate": 0, "accepted": work.ids}
    if any(said["ids"][name] != count for name, count in expected.items()):
        raise WrongResult(f"the engine's account is {said['ids']}")
    jobs, ids = set(), 0
    with (place.folder / "run" / "jobs.jsonl").open("rb") as lines:
        for record in map(json.loads, lines):
            jobs.add(record["job_id"])
            ids += record["ids"]
    if (len(jobs), ids) != (work.chunks, work.ids):
        raise WrongResult(f"the records name {len(jobs)} jobs with {ids} ids")


# This engine


def engine(work: Work, service: Service, *more: str, python: str = sys.executable) -> list[str]:
    """Is `bulkjobs submit` with its defaults, but for the limits of the account."""
    return [
        *(python, "-m", "bulkjobs", "submit", str(work.source), "--run", "run"),
        *("--base-url", service.base_url, "--rate", "none", "--max-active-jobs", "none", "--json", "--quiet"),
        *more,
    ]


def our_run(
    work: Work, service: Service, *more: str, name: str, title: str, python: str = sys.executable
) -> Contender:
    """Gives this engine with some options, as an interpreter has it installed."""

    def command(work: Work, used: Service, _place: Place) -> list[str]:
        return engine(work, used, *more, python=python)

    # Nothing of this checkout comes before what the interpreter has installed: that may be another revision.
    play = _player(work, service, command, _engine_too, {"PYTHONPATH": ""})
    return Contender(name=name, title=title, play=play)


def ours(work: Work, service: Service) -> tuple[Contender, Contender]:
    """Gives this engine with duplicates removed, as is its default, and kept."""
    return (
        our_run(work, service, name=OURS, title="bulkjobs submit"),
        our_run(work, service, "--no-dedupe", name=KEPT, title="bulkjobs submit --no-dedupe"),
    )


# The others


def _script(*start: str) -> Command:
    def command(work: Work, service: Service, _place: Place) -> list[str]:
        *program, name = start
        return [
            *(program or [sys.executable]),
            *(str(_CONTENDERS / name), str(work.source), str(CHUNK_IDS), service.submit_url),
        ]

    return command


def _bare(work: Work, service: Service, place: Place) -> list[str]:
    return [*_script("bare_aiohttp.py")(work, service, place), str(work.chunks)]


def _wrk(work: Work, service: Service) -> Callable[[Place], Figures]:
    """Gives what plays the ceiling: it runs for a fixed time, and its figures are scaled to the work's chunks."""

    def play(place: Place) -> Figures:
        with work.source.open("rb") as lines:
            (place.folder / "body").write_bytes(b"".join(islice(lines, CHUNK_IDS)).rstrip(b"\n"))
        seconds = max(1, min(5, work.chunks // 500))
        before = service.counts()
        usage = run(
            [
                *("wrk", "--threads", "1", "--connections", "8", "--duration", f"{seconds}s"),
                *("--script", str(_CONTENDERS / "wrk.lua"), service.submit_url),
            ],
            place.folder,
            environ(place.folder),
        )
        came = service.since(before)
        share = work.chunks / came.requests
        scaled = Usage(0, usage.wall_s * share, usage.cpu_s * share, usage.peak_rss_bytes)
        cpu_s = None if came.cpu_s is None else came.cpu_s * share
        return scaled.figures(**_rates(work, scaled, Counts(work.chunks, None, None, cpu_s)))

    return play


def _undici(folder: Path, *, wanted: bool) -> Callable[[], str | None]:
    """Installs undici into a folder, and gives what says why it is not there."""
    if wanted and shutil.which("npm") is not None:
        folder.mkdir()
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "undici"],
            cwd=folder,
            capture_output=True,
            check=False,
        )
    found = (folder / "node_modules" / "undici").is_dir()
    return lambda: None if found else "undici"


def _others(work: Work, service: Service, undici: Callable[[], str | None]) -> tuple[Contender, ...]:
    def one(name: str, title: str, command: Command, check: Check = every_id, **needs: Any) -> Contender:
        play = _player(work, service, command, check)
        return Contender(name=name, title=title, play=play, missing=needs.get("absent") or lacking(**needs))

    node = _script("node", "undici.cjs")
    return (
        one("script", "usual script: aiohttp, aiolimiter", _script("usual_script.py")),
        one("curl", "split and curl --parallel", _script("sh", "split_curl.sh"), programs=("curl", "split")),
        one(
            "aiometer",
            "httpx with aiometer",
            _script("aiometer_httpx.py"),
            libraries=("aiometer", "httpx"),
        ),
        one("retry", "aiohttp-retry", _script("aiohttp_retrying.py"), libraries=("aiohttp-retry",)),
        one("undici", "Node's undici", node, absent=undici),
        one("bare", "bare aiohttp on uvloop, one ready body", _bare, _number, libraries=("uvloop",)),
        Contender(
            name="wrk",
            title="wrk, one ready body (scaled)",
            play=_wrk(work, service),
            missing=lacking(programs=("wrk",)),
        ),
    )


@contextmanager
def _cases(scale: Scale, folder: Path) -> Iterator[Sequence[Case]]:
    ids = scale.pick(10_000_000, 1_000_000, 50_000)
    sizes = [ids, 100_000_000] if scale.full else [ids]
    node = folder / "node"
    undici = _undici(node, wanted=not scale.smoke)
    os.environ["NODE_PATH"] = str(node / "node_modules")
    with fast(folder / "service") as service:
        yield [_case(made(size, folder / f"ids-{size}.txt", scale.seed), service, undici) for size in sizes]


def _case(work: Work, service: Service, undici: Callable[[], str | None]) -> Case:
    return Case(
        name=f"submit-{work.ids}",
        title=f"{work.ids:,} ids, file to records",
        contenders=(*ours(work, service), *_others(work, service, undici)),
        ids=work.ids,
        chunks=work.chunks,
        bars=_BARS,
    )


def _times(
    says: str, against: str, of: str, bar: float | None = None, aim: float | None = None, *, cpu: bool = False
) -> Bar:
    """Is how many times faster we are, or with `cpu` how many times less CPU time we take."""
    return Bar(says=says, figure="cpu_s" if cpu else "wall_s", above=against, below=of, bar=bar, aim=aim)


_BARS: Final = (
    _times("times faster than the usual script", "script", OURS, 2, 4),
    _times("the same in CPU time", "script", OURS, cpu=True),
    _times("times faster than the usual script, duplicates kept", "script", KEPT, 4, 8),
    _times("the same in CPU time", "script", KEPT, cpu=True),
    _times("times faster than split and curl, duplicates kept", "curl", KEPT, 1, 2),
    _times("the same in CPU time", "curl", KEPT, cpu=True),
    _times("times faster than split and curl", "curl", OURS, None, 1),
    _times("times faster than httpx with aiometer, duplicates kept", "aiometer", KEPT, 1),
    _times("times faster than aiohttp-retry, duplicates kept", "retry", KEPT, 1),
    _times("times faster than Node's undici, duplicates kept", "undici", KEPT, 1),
    Bar(
        says="CPU time by that of the bare loop, duplicates kept",
        figure="cpu_s",
        above=KEPT,
        below="bare",
        bar=2.5,
        aim=1.6,
        most=True,
    ),
    Bar(
        says="share of the rate of wrk, duplicates kept",
        figure="ids_per_s",
        above=KEPT,
        below="wrk",
        aim=0.15,
    ),
)

SUITE: Final = Suite(name="submit", title="Whole runs", cases=_cases)
