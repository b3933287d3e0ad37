"""Starting up: the version, and the import, beside the import of aiohttp, which every script has to pay."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.measuring import run
from benchmarks.model import OURS, Bar, Case, Contender, Figures, Place, Scale, Suite

__all__ = ["SUITE"]

_IMPORT: Final = "import-bulkjobs"


def _plays(command: Sequence[str], times: int) -> Callable[[Place], Figures]:
    def play(place: Place) -> Figures:
        usages = [run(command, place.folder) for _ in range(times)]
        return Figures(
            wall_s=sum(one.wall_s for one in usages) / times,
            cpu_s=sum(one.cpu_s for one in usages) / times,
            peak_rss_mib=max(one.peak_rss_bytes for one in usages) / 2**20,
        )

    return play


def _bar(says: str, above: str, figure: str, bar: float) -> Bar:
    return Bar(says=says, figure=figure, above=above, below="import-aiohttp", bar=bar, aim=0.7, most=True)


@contextmanager
def _cases(scale: Scale, _folder: Path) -> Iterator[Sequence[Case]]:
    times = scale.pick(10, 3, 1)
    commands = {
        OURS: ("bulkjobs --version", ["-m", "bulkjobs", "--version"]),
        _IMPORT: ("import bulkjobs", ["-c", "import bulkjobs"]),
        "import-aiohttp": ("import aiohttp", ["-c", "import aiohttp"]),
        "nothing": ("an empty program", ["-c", "pass"]),
    }
    yield [
        Case(
            name="startup",
            title=f"Start to end of a process, mean of {times} in each round",
            contenders=tuple(
                Contender(name=name, title=title, play=_plays([sys.executable, *words], times))
                for name, (title, words) in commands.items()
            ),
            ids=0,
            bars=(
                _bar("`bulkjobs --version` by `import aiohttp`", OURS, "wall_s", 1.5),
                _bar("the same, CPU time", OURS, "cpu_s", 1.5),
                _bar("`import bulkjobs` by `import aiohttp`", _IMPORT, "wall_s", 1.1),
                _bar("the same, CPU time", _IMPORT, "cpu_s", 1.1),
            ),
        )
    ]


SUITE: Final = Suite(name="startup", title="Starting up", cases=_cases)
