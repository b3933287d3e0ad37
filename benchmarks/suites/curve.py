"""What a run costs by ids and by workers: both should be straight lines, the second a flat one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.model import Case, Contender, Scale, Suite
from benchmarks.server import Service, fast
from benchmarks.suites.submit import Work, made, our_run

__all__ = ["SUITE"]

_WORKERS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_USUAL_WORKERS: Final = 8


def _by_ids(work: Work, service: Service) -> Contender:
    return our_run(work, service, name=f"ids-{work.ids}", title=f"{work.ids:,} ids")


def _by_workers(work: Work, service: Service, workers: int) -> Contender:
    return our_run(
        work, service, "--workers", str(workers), name=f"workers-{workers}", title=f"{workers} workers"
    )


@contextmanager
def _cases(scale: Scale, folder: Path) -> Iterator[Sequence[Case]]:
    sizes = [100_000, 1_000_000, 10_000_000, 100_000_000]
    sizes = [50_000] if scale.smoke else sizes[:2] if scale.quick else sizes[: 4 if scale.full else 3]
    workers = (64,) if scale.smoke else _WORKERS
    with fast(folder / "service") as service:
        works = [made(size, folder / f"ids-{size}.txt", scale.seed) for size in sizes]
        usual = works[min(1, len(works) - 1)]
        yield [
            Case(
                name="curve-ids",
                title=f"By ids, {_USUAL_WORKERS} workers",
                contenders=tuple(_by_ids(work, service) for work in works),
                ids=0,
            ),
            Case(
                name="curve-workers",
                title=f"By workers, {usual.ids:,} ids",
                contenders=tuple(_by_workers(usual, service, count) for count in workers),
                ids=usual.ids,
                chunks=usual.chunks,
            ),
        ]


SUITE: Final = Suite(name="curve", title="What a run costs by ids and by workers", cases=_cases)
