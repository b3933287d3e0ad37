"""Reads a source with one of the fastest libraries for its kind and counts its ids: LIBRARY SOURCE.

Some only count lines (`wc`, `zcat`, isal), some give integers (numpy, polars, pyarrow): nobody else checks and cuts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

from benchmarks.programs.stopwatch import stopwatch

__all__ = ["READERS"]

_BLOCK_BYTES: Final = 1 << 20


def _wc(path: str) -> int:
    return int(subprocess.run(["wc", "-l", path], capture_output=True, check=True).stdout.split()[0])


def _zcat(path: str) -> int:
    return int(
        subprocess.run(["sh", "-c", 'zcat "$0" | wc -l', path], capture_output=True, check=True).stdout
    )


def _numpy(path: str) -> int:
    import numpy as np  # noqa: PLC0415 - each program loads what it needs

    return len(np.fromfile(path, dtype=np.int64, sep="\n"))


def _polars(path: str) -> int:
    import polars as pl  # noqa: PLC0415

    frame: Any = pl.read_csv(path, has_header=False, new_columns=["id"], schema_overrides={"id": pl.Int64})
    return int(frame.height)


def _arrow(path: str) -> int:
    from pyarrow import csv  # noqa: PLC0415

    options: Any = csv.ReadOptions(column_names=["id"])
    return int(csv.read_csv(path, read_options=options).num_rows)


def _isal(path: str) -> int:
    from isal import igzip  # noqa: PLC0415

    opened: Any = igzip
    lines = 0
    with opened.open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
    return lines


READERS: Final[dict[str, Callable[[str], int]]] = {
    "wc": _wc,
    "zcat": _zcat,
    "numpy": _numpy,
    "polars": _polars,
    "pyarrow": _arrow,
    "isal": _isal,
}
_LOADS: Final = {"numpy": "numpy", "polars": "polars", "pyarrow": "pyarrow.csv", "isal": "isal.igzip"}


def main(library: str, path: str) -> None:
    """Times it."""
    if library in _LOADS:
        __import__(_LOADS[library])
    with stopwatch() as found:
        found["counted"] = READERS[library](path)


if __name__ == "__main__":
    main(*sys.argv[1:])
