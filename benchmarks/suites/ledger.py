"""Durable transitions of the ledger a second, by how many workers wait for them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.measuring import run_program
from benchmarks.model import Bar, Case, Contender, Figures, Place, Scale, Suite

__all__ = ["SUITE"]

_WORKERS: Final = (1, 4, 16, 64)
_TRANSITIONS: Final = 3
"""Waited for, of each chunk."""


def _plays(workers: int, chunks: int) -> Callable[[Place], Figures]:
    def play(place: Place) -> Figures:
        return run_program(
            "journaling",
            [str(workers), str(chunks), str(place.folder / "run")],
            place.folder,
            counted=_TRANSITIONS * chunks,
            per="transitions_per_s",
        )

    return play


def _bar(workers: int) -> Bar:
    return Bar(
        says=f"durable transitions a second, {workers} workers",
        figure="transitions_per_s",
        above=f"workers-{workers}",
        bar={16: 2_000.0}.get(workers),
        aim={64: 20_000.0}.get(workers),
        unit="",
    )


@contextmanager
def _cases(scale: Scale, _folder: Path) -> Iterator[Sequence[Case]]:
    chunks = scale.pick(400, 100, 10)
    yield [
        Case(
            name="ledger",
            title=f"{chunks:,} chunks for each worker taken through the ledger, every step synced",
            contenders=tuple(
                Contender(
                    name=f"workers-{workers}",
                    title=f"{workers} workers",
                    play=_plays(workers, chunks * workers),
                )
                for workers in _WORKERS
            ),
            ids=0,
            bars=tuple(_bar(workers) for workers in _WORKERS),
        )
    ]


SUITE: Final = Suite(name="ledger", title="The ledger", cases=_cases)
