"""A whole run against the simulated service, after which each single id is looked for in the service's books."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.measuring import run
from benchmarks.model import OURS, Case, Contender, Figures, Place, Scale, Suite

__all__ = ["SUITE"]


def _play(place: Place, ids: int, seed: int) -> Figures:
    # With duplicates and invalid lines, as its defaults are; a wrong result ends it with exit code 1.
    program = [sys.executable, "-m", "benchmarks.checked", "--rounds", "1", "--dir", str(place.folder)]
    run([*program, "--ids", str(ids), "--seed", str(seed)], place.folder)
    (took,) = json.loads((place.folder / "out").read_bytes())["rounds"]
    return Figures(
        wall_s=took["wall_s"],
        cpu_s=took["client_cpu_s"],
        peak_rss_mib=took["client_peak_rss_mib"],
        more={"ids_per_s": ids / took["wall_s"], "server_cpu_s": took["server_cpu_s"]},
    )


@contextmanager
def _cases(scale: Scale, _folder: Path) -> Iterator[Sequence[Case]]:
    ids = scale.pick(10_000_000, 1_000_000, 200_000)
    yield [
        Case(
            name="checked",
            title=f"{ids:,} ids, 2 % of them twice and some lines that are none, against the simulated service",
            contenders=(
                Contender(
                    name=OURS, title="bulkjobs submit", play=lambda place: _play(place, ids, scale.seed)
                ),
            ),
            ids=ids,
            chunks=-(-ids // 10_000),
        )
    ]


SUITE: Final = Suite(name="checked", title="Whole runs, every id checked", cases=_cases)
