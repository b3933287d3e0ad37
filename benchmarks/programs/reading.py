"""Reads a source with one of the fastest libraries for its kind and counts its ids: LIBRARY SOURCE [COLUMN].

Some only count lines (`wc`, `zcat`, isal and their like), some give integers (numpy, polars, pyarrow): nobody else
checks and cuts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

from benchmarks.programs.stopwatch import stopwatch

__all__ = ["READERS"]

_BLOCK_BYTES: Final = 1 << 20
_Reader = Callable[[str, str], int]
"""Takes a path and, of a table, the column."""


def _wc(path: str, _column: str) -> int:
    return int(subprocess.run(["wc", "-l", path], capture_output=True, check=True).stdout.split()[0])


def _unpacking(program: str) -> _Reader:
    def read(path: str, _column: str) -> int:
        command = ["sh", "-c", f'{program} "$0" | wc -l', path]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    return read


def _numpy(path: str, _column: str) -> int:
    import numpy as np  # noqa: PLC0415 - each program loads what it needs

    return len(np.fromfile(path, dtype=np.int64, sep="\n"))


def _polars(path: str, _column: str) -> int:
    import polars as pl  # noqa: PLC0415

    frame: Any = pl.read_csv(path, has_header=False, new_columns=["id"], schema_overrides={"id": pl.Int64})
    return int(frame.height)


def _arrow(path: str, _column: str) -> int:
    from pyarrow import csv  # noqa: PLC0415

    options: Any = csv.ReadOptions(column_names=["id"])
    return int(csv.read_csv(path, read_options=options).num_rows)


def _polars_csv(path: str, column: str) -> int:
    import polars as pl  # noqa: PLC0415

    return int(pl.read_csv(path, columns=[column], schema_overrides={column: pl.Int64}).height)


def _arrow_csv(path: str, column: str) -> int:
    from pyarrow import csv  # noqa: PLC0415

    options: Any = csv.ConvertOptions(include_columns=[column])
    return int(csv.read_csv(path, convert_options=options).num_rows)


def _polars_parquet(path: str, column: str) -> int:
    import polars as pl  # noqa: PLC0415

    return int(pl.read_parquet(path, columns=[column]).height)


def _arrow_parquet(path: str, column: str) -> int:
    from pyarrow import parquet  # noqa: PLC0415

    read: Any = parquet.read_table
    return int(read(path, columns=[column]).num_rows)


def _isal(path: str, _column: str) -> int:
    from isal import igzip  # noqa: PLC0415

    return _lines_of(igzip, path)


def _zstd(path: str, _column: str) -> int:
    from backports import zstd  # noqa: PLC0415

    return _lines_of(zstd, path)


def _lines_of(library: Any, path: str) -> int:
    lines = 0
    with library.open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
    return lines


READERS: Final[dict[str, _Reader]] = {
    "wc": _wc,
    **{program: _unpacking(program) for program in ("zcat", "zstdcat", "bzcat", "xzcat")},
    "numpy": _numpy,
    "polars": _polars,
    "pyarrow": _arrow,
    "isal": _isal,
    "backports.zstd": _zstd,
    "polars-csv": _polars_csv,
    "pyarrow-csv": _arrow_csv,
    "polars-parquet": _polars_parquet,
    "pyarrow-parquet": _arrow_parquet,
}
_LOADS: Final = {
    "numpy": "numpy",
    "polars": "polars",
    "pyarrow": "pyarrow.csv",
    "isal": "isal.igzip",
    "backports.zstd": "backports.zstd",
    "polars-csv": "polars",
    "pyarrow-csv": "pyarrow.csv",
    "polars-parquet": "polars",
    "pyarrow-parquet": "pyarrow.parquet",
}


def main(library: str, path: str, column: str = "") -> None:
    """Times it."""
    if library in _LOADS:
        __import__(_LOADS[library])
    with stopwatch() as found:
        found["counted"] = READERS[library](path, column)


if __name__ == "__main__":
    main(*sys.argv[1:])
