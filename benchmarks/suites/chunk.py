"""Reading and cutting alone, nothing is sent: each kind of source beside the fastest libraries that read that kind.

A kind more is a row more in `KINDS`, and where its libraries are new, readers more in `benchmarks.programs.reading`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.measuring import lacking, run_program
from benchmarks.model import OURS, Bar, Case, Contender, Figures, Place, Scale, Suite
from benchmarks.suites.submit import CHUNK_IDS, Work, made

__all__ = ["KINDS", "SUITE", "Kind"]

_KEPT: Final = f"{OURS}-kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Is one kind of source."""

    name: str
    make: Callable[[Path], Path]
    """Makes it of a text file and gives its path."""
    readers: dict[str, str]
    """Of `benchmarks.programs.reading`, with the distribution or program that each needs."""
    bars: tuple[Bar, ...] = ()


def _gzip(text: Path) -> Path:
    subprocess.run(["gzip", "-1", "-k", "-n", str(text)], check=True)
    return text.with_name(f"{text.name}.gz")


KINDS: Final = (
    Kind(
        name="text",
        make=lambda text: text,
        readers={"wc": "", "numpy": "numpy", "polars": "polars", "pyarrow": "pyarrow"},
        bars=(
            Bar(
                says="text, checked: million ids a second",
                figure="million_ids_per_s",
                above=_KEPT,
                bar=30,
                aim=60,
                unit="",
            ),
            Bar(
                says="text, duplicates removed: million ids a second",
                figure="million_ids_per_s",
                above=OURS,
                bar=10,
                aim=20,
                unit="",
            ),
        ),
    ),
    Kind(name="gzip", make=_gzip, readers={"zcat": "", "isal": "isal"}),
)


def _plays(program: str, *arguments: str, ids: int) -> Callable[[Place], Figures]:
    def play(place: Place) -> Figures:
        figures = run_program(program, arguments, place.folder, counted=ids, per="ids_per_s")
        figures.more["million_ids_per_s"] = figures.more["ids_per_s"] / 1e6
        return figures

    return play


def _case(kind: Kind, work: Work) -> Case:
    path = str(kind.make(work.source))

    def ours(name: str, title: str, duplicates: str) -> Contender:
        return Contender(
            name=name, title=title, play=_plays("cutting", path, str(CHUNK_IDS), duplicates, ids=work.ids)
        )

    def reader(name: str, library: str) -> Contender:
        return Contender(
            name=name,
            title=name,
            play=_plays("reading", name, path, ids=work.ids),
            missing=lacking(libraries=[library] if library else []),
        )

    return Case(
        name=f"chunk-{kind.name}",
        title=f"{work.ids:,} ids read and cut, {kind.name}",
        contenders=(
            ours(OURS, "bulkjobs, duplicates removed", "dedupe"),
            ours(_KEPT, "bulkjobs, duplicates kept", "keep"),
            *(reader(name, library) for name, library in kind.readers.items()),
        ),
        ids=work.ids,
        chunks=work.chunks,
        bars=(
            *kind.bars,
            *(
                Bar(
                    says=f"{kind.name}: share of the rate of {name}, duplicates kept",
                    figure="million_ids_per_s",
                    above=_KEPT,
                    below=name,
                )
                for name in kind.readers
            ),
        ),
    )


@contextmanager
def _cases(scale: Scale, folder: Path) -> Iterator[Sequence[Case]]:
    work = made(scale.pick(10_000_000, 1_000_000, 50_000), folder / "ids.txt", scale.seed)
    yield [_case(kind, work) for kind in KINDS]


SUITE: Final = Suite(name="chunk", title="Reading and cutting alone", cases=_cases)
