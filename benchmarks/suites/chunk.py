"""Reading and cutting alone, nothing is sent: each kind of source beside the fastest libraries that read that kind.

A kind more is a row more in `KINDS`, and where its libraries are new, readers more in `benchmarks.programs.reading`.
"""

from __future__ import annotations

import bz2
import lzma
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import apart, lacking, run_program
from benchmarks.model import OURS, Bar, Case, Contender, Figures, Place, Scale, Suite
from benchmarks.suites.submit import CHUNK_IDS, Work, made
from bulkjobs.ids import IdForm

__all__ = ["KINDS", "SUITE", "Kind"]

_KEPT: Final = f"{OURS}-kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Is one kind of source."""

    name: str
    make: Callable[[Path], Path]
    """Makes it of a text file and gives its path."""
    readers: dict[str, str]
    """Of `benchmarks.programs.reading`, with the distribution that each needs; a program if that is empty."""
    bars: tuple[Bar, ...] = ()
    needs: str = ""
    """The distribution without which there is no such file; then the kind is left out."""
    column: str = ""
    """Of a table: where the ids are."""
    form: IdForm = IdForm.INTEGER


_COLUMN: Final = "contact_id"
_OPAQUE_AT_ONCE: Final = 1 << 16


def _as_it_is(text: Path) -> Path:
    return text


def _gzip(text: Path) -> Path:
    subprocess.run(["gzip", "-1", "-k", "-n", str(text)], check=True)
    return text.with_name(f"{text.name}.gz")


def _beside(text: Path, suffix: str, content: bytes) -> Path:
    path = text.with_name(f"{text.name}.{suffix}")
    path.write_bytes(content)
    return path


def _bzip2(text: Path) -> Path:
    return _beside(text, "bz2", bz2.compress(text.read_bytes()))


def _xz(text: Path) -> Path:
    return _beside(text, "xz", lzma.compress(text.read_bytes(), preset=1))


def _zstd(text: Path) -> Path:
    from backports import zstd  # noqa: PLC0415 - an extra

    return _beside(text, "zst", zstd.compress(text.read_bytes()))


def _csv(text: Path) -> Path:
    """Makes a table of three columns; the ids are in the middle."""
    ids = text.read_bytes().rstrip(b"\n").replace(b"\n", b",NL\nAda,")
    return _beside(text, "csv", b"name,%s,country\nAda,%s,NL\n" % (_COLUMN.encode(), ids))


def _opaque(text: Path) -> Path:
    """Makes an opaque id of each integer one, a block at a time: the whole is several gigabytes on the way."""
    import numpy as np  # noqa: PLC0415 - only the process that makes the file is to have it

    from benchmarks.data import opaque_text  # noqa: PLC0415 - as above

    path = text.with_name(f"{text.name}.opaque")
    numbers = np.fromfile(text, dtype=np.uint64, sep="\n")
    with path.open("wb") as file:
        for begin in range(0, len(numbers), _OPAQUE_AT_ONCE):
            file.write(opaque_text(numbers[begin : begin + _OPAQUE_AT_ONCE]))
    return path


def _parquet(text: Path) -> Path:
    from pyarrow import csv, parquet  # noqa: PLC0415 - an extra

    options: Any = csv.ReadOptions(column_names=[_COLUMN])
    table = text.with_name(f"{text.name}.parquet")
    write: Any = parquet.write_table
    write(csv.read_csv(text, read_options=options), table)
    return table


KINDS: Final = (
    Kind(
        name="text",
        make=_as_it_is,
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
    Kind(
        name="opaque",
        make=_opaque,
        readers={"wc": "", "pyarrow": "pyarrow"},
        form=IdForm.OPAQUE,
    ),
    Kind(name="gzip", make=_gzip, readers={"zcat": "", "isal": "isal"}),
    Kind(
        name="zstd",
        make=_zstd,
        readers={"zstdcat": "", "backports.zstd": "backports.zstd"},
        needs="backports.zstd",
    ),
    Kind(name="bzip2", make=_bzip2, readers={"bzcat": ""}),
    Kind(name="xz", make=_xz, readers={"xzcat": ""}),
    Kind(name="csv", make=_csv, readers={"polars-csv": "polars", "pyarrow-csv": "pyarrow"}, column=_COLUMN),
    Kind(
        name="parquet",
        make=_parquet,
        readers={"polars-parquet": "polars", "pyarrow-parquet": "pyarrow"},
        needs="pyarrow",
        column=_COLUMN,
    ),
)


def _plays(program: str, *arguments: str, ids: int) -> Callable[[Place], Figures]:
    def play(place: Place) -> Figures:
        figures = run_program(program, arguments, place.folder, counted=ids, per="ids_per_s")
        figures.more["million_ids_per_s"] = figures.more["ids_per_s"] / 1e6
        return figures

    return play


def _case(kind: Kind, work: Work) -> Case:
    # Apart: a process begins with the peak memory of the one that starts it.
    path = str(apart(kind.make, work.source))

    def ours(name: str, title: str, duplicates: str) -> Contender:
        return Contender(
            name=name,
            title=title,
            play=_plays("cutting", path, str(CHUNK_IDS), duplicates, kind.form, kind.column, ids=work.ids),
        )

    def reader(name: str, library: str) -> Contender:
        return Contender(
            name=name,
            title=name,
            play=_plays("reading", name, path, kind.column, ids=work.ids),
            missing=lacking(libraries=[library]) if library else lacking(programs=[name]),
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
    there = [kind for kind in KINDS if not kind.needs or lacking(libraries=[kind.needs])() is None]
    yield [_case(kind, work) for kind in there]


SUITE: Final = Suite(name="chunk", title="Reading and cutting alone", cases=_cases)
