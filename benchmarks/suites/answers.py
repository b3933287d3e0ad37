"""Reading the answer to a submission, checked, beside the bare parsers under it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.measuring import run_program
from benchmarks.model import Bar, Case, Contender, Figures, Place, Scale, Suite

__all__ = ["SUITE"]

_WAYS: Final = {
    "ours-json": "bulkjobs, JSON",
    "orjson": "orjson alone",
    "ours-xml": "bulkjobs, XML",
    "lxml": "lxml alone",
}


def _plays(way: str, times: int) -> Callable[[Place], Figures]:
    def play(place: Place) -> Figures:
        figures = run_program(
            "answering", [way, str(times)], place.folder, counted=times, per="answers_per_s"
        )
        assert figures.cpu_s is not None
        figures.more["cpu_us_per_answer"] = figures.cpu_s / times * 1e6
        return figures

    return play


def _bar(says: str, above: str, below: str | None = None, unit: str = "times") -> Bar:
    return Bar(says=says, figure="cpu_us_per_answer", above=above, below=below, most=True, unit=unit)


@contextmanager
def _cases(scale: Scale, _folder: Path) -> Iterator[Sequence[Case]]:
    times = scale.pick(100_000, 20_000, 1_000)
    yield [
        Case(
            name="answers",
            title=f"{times:,} answers read",
            contenders=tuple(
                Contender(name=name, title=title, play=_plays(name, times)) for name, title in _WAYS.items()
            ),
            ids=0,
            bars=(
                _bar("a JSON answer, CPU", "ours-json", unit="µs"),
                _bar("by orjson alone", "ours-json", "orjson"),
                _bar("an XML answer, CPU", "ours-xml", unit="µs"),
                _bar("by lxml alone", "ours-xml", "lxml"),
            ),
        )
    ]


SUITE: Final = Suite(name="answers", title="Reading answers", cases=_cases)
