"""Peak memory of whole runs, by the number of ids: flat, but for the set of ids already met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.model import OURS, Bar, Case, Scale, Suite
from benchmarks.server import Service, fast
from benchmarks.suites.submit import KEPT, Work, made, ours

__all__ = ["SUITE"]

_MOST_IDS: Final = 100_000_000


def _case(work: Work, service: Service) -> Case:
    largest = work.ids == _MOST_IDS

    def bar(name: str, says: str) -> Bar:
        return Bar(
            says=f"{work.ids:,} dense ids, {says}",
            figure="peak_rss_mib",
            above=name,
            bar=120 if largest and name == OURS else None,
            aim=90 if largest and name == OURS else None,
            most=True,
            unit="MiB",
        )

    return Case(
        name=f"memory-{work.ids}",
        title=f"{work.ids:,} dense ids",
        contenders=ours(work, service),
        ids=work.ids,
        chunks=work.chunks,
        bars=(bar(OURS, "duplicates removed"), bar(KEPT, "duplicates kept")),
    )


@contextmanager
def _cases(scale: Scale, folder: Path) -> Iterator[Sequence[Case]]:
    sizes = [scale.pick(1_000_000, 100_000, 20_000)]
    if not scale.smoke:
        sizes.append(scale.pick(10_000_000, 1_000_000, 0))
    if scale.full:
        sizes.append(_MOST_IDS)
    with fast(folder / "service") as service:
        yield [_case(made(size, folder / f"ids-{size}.txt", scale.seed), service) for size in sizes]


SUITE: Final = Suite(name="memory", title="Peak memory", cases=_cases)
