"""Whole runs, from a file to records, against a service that answers at once: this engine, and what people have at hand."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import Usage, lacking, run
from benchmarks.model import OURS, Bar, Case, Contender, Figures, Place, Scale, Suite, WrongResult
from benchmarks.server import Service, counting, fast

__all__ = ["CHUNK_IDS", "SUITE", "Work", "engine", "made"]

CHUNK_IDS: Final = 10_000
_CONTENDERS: Final = Path(__file__).parents[1] / "contenders"
_TOKEN: Final = "benchmark-token"
_WRK_S: Final = 2


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


def made(ids: int, path: Path, seed: int, *more: str) -> Work:
    """Makes a file of ids, in a process of its own (see `measuring.run`)."""
    command = [sys.executable, "-m", "benchmarks.data", "--ids", str(ids), "--seed", str(seed), *more]
    run([*command, "-o", str(path)], path.parent)
    said = json.loads((path.parent / "out").read_bytes())
    return Work(source=path, ids=ids, digits=said["digits"])


Command = Callable[[Work, Service], list[str]]


def _player(
    work: Work,
    service: Service,
    command: Command,
    check: Callable[[Work, Place], None] | None = None,
    *,
    extra: int = 0,
    same_body: bool = False,
) -> Callable[[Place], Figures]:
    """Gives what plays one round: the command, then what arrived is compared with what should have.

    Args:
        work: to do.
        service: that is measured against; warm-up rounds go to the counting server.
        command: of the contender.
        check: looks at what the contender itself says.
        extra: requests that it makes besides, at most.
        same_body: it posts one body again and again.
    """

    def play(place: Place) -> Figures:
        with counting() if place.warm_up else nullcontext(service) as used:
            before = used.counts()
            usage = run(command(work, used), place.folder, _environ(place))
            came = used.since(before)
        if not work.chunks <= came.requests <= work.chunks + extra:
            raise WrongResult(f"{came.requests} requests arrived instead of {work.chunks}")
        if came.body_bytes is not None and not same_body and came.body_bytes != work.body_bytes:
            raise WrongResult(f"{came.body_bytes} bytes arrived instead of {work.body_bytes}")
        if came.ids is not None and not same_body and came.ids != work.ids:
            raise WrongResult(f"{came.ids} ids arrived instead of {work.ids}")
        if check is not None:
            check(work, place)
        return usage.figures(**_rates(work, usage, came.cpu_s))

    return play


def _environ(place: Place) -> dict[str, str]:
    return {
        "ACCESS_TOKEN": _TOKEN,
        "BULKJOBS_ACCESS_TOKEN": _TOKEN,
        "XDG_STATE_HOME": str(place.folder / "state"),
    }


def _rates(work: Work, usage: Usage, server_cpu_s: float | None) -> dict[str, float]:
    rates = {"ids_per_s": work.ids / usage.wall_s, "cpu_us_per_chunk": usage.cpu_s / work.chunks * 1e6}
    return rates if server_cpu_s is None else {**rates, "server_cpu_s": server_cpu_s}


def engine(work: Work, service: Service, *more: str) -> list[str]:
    """Is `bulkjobs submit` with its defaults, but for the limits of the account."""
    return [
        *(sys.executable, "-m", "bulkjobs", "submit", str(work.source), "--run", "run"),
        *("--base-url", service.base_url, "--rate", "none", "--max-active-jobs", "none", "--json", "--quiet"),
        *more,
    ]


def check_engine(work: Work, place: Place) -> None:
    """Compares the engine's own account with what was put in, and looks at each of its records.

    Raises:
        WrongResult: they differ.
    """
    said = json.loads((place.folder / "out").read_bytes())
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


def _script(name: str, *more: str) -> Command:
    start = ["sh"] if name.endswith(".sh") else ["node"] if name.endswith(".mjs") else [sys.executable]

    def command(work: Work, service: Service) -> list[str]:
        arguments = [str(work.source), str(CHUNK_IDS), service.submit_url]
        return [*start, str(_CONTENDERS / name), *arguments, *more]

    return command


def _bare(work: Work, service: Service) -> list[str]:
    return [*_script("bare_aiohttp.py")(work, service), str(work.chunks)]


def _contenders(work: Work, service: Service) -> tuple[Contender, ...]:
    def contender(name: str, title: str, command: Command, *libraries: str, **options: Any) -> Contender:
        programs = options.pop("programs", ())
        return Contender(
            name=name,
            title=title,
            play=_player(work, service, command, **options),
            missing=lacking(libraries=libraries, programs=programs),
        )

    return (
        contender("script", "usual script (aiohttp, aiolimiter)", _script("usual_script.py"), "aiolimiter"),
        contender("curl", "split and curl --parallel", _script("split_curl.sh"), programs=("curl", "split")),
        contender("bare", "bare aiohttp loop, one ready body", _bare, "uvloop", same_body=True),
    )


def _ours(work: Work, service: Service, *more: str, name: str = OURS, title: str) -> Contender:
    def command(work: Work, service: Service) -> list[str]:
        return engine(work, service, *more)

    return Contender(name=name, title=title, play=_player(work, service, command, check_engine, extra=8))


@contextmanager
def _cases(scale: Scale, folder: Path) -> Iterator[Sequence[Case]]:
    ids = scale.pick(10_000_000, 1_000_000, 50_000)
    sizes = [ids, 100_000_000] if scale.full else [ids]
    with fast(folder / "service") as service:
        yield [_case(made(size, folder / f"ids-{size}.txt", scale.seed), service) for size in sizes]


def _case(work: Work, service: Service) -> Case:
    return Case(
        name=f"submit-{work.ids}",
        title=f"{work.ids:,} ids, file to records",
        contenders=(
            _ours(work, service, title="bulkjobs submit"),
            _ours(work, service, "--no-dedupe", name="bulkjobs-kept", title="bulkjobs submit --no-dedupe"),
            *_contenders(work, service),
        ),
        ids=work.ids,
        chunks=work.chunks,
        bars=_BARS,
    )


_KEPT: Final = "bulkjobs-kept"
_BARS: Final = (
    Bar(says="times faster than the usual script", figure="wall_s", above="script", below=OURS, bar=2, aim=4),
    Bar(says="the same, duplicates kept", figure="wall_s", above="script", below=_KEPT, bar=4, aim=8),
    Bar(
        says="times faster than curl, duplicates kept",
        figure="wall_s",
        above="curl",
        below=_KEPT,
        bar=1,
        aim=2,
    ),
    Bar(says="times faster than curl", figure="wall_s", above="curl", below=OURS, aim=1),
    Bar(
        says="CPU time by that of the bare loop, duplicates kept",
        figure="cpu_s",
        above=_KEPT,
        below="bare",
        bar=2.5,
        aim=1.6,
        most=True,
    ),
)

SUITE: Final = Suite(name="submit", title="Whole runs", cases=_cases)
