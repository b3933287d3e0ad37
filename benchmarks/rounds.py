"""Plays the rounds of a case: a warm-up that is checked and dropped, then everybody once in each, in a drawn order."""

from __future__ import annotations

import datetime
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.model import Case, Figures, Line, Place, Suite
from benchmarks.ratios import order

__all__ = ["play"]


def play(
    suite: Suite, case: Case, folder: Path, *, rounds: int, seed: int, tell: Callable[[Line], None]
) -> dict[str, str]:
    """Plays a case and tells each counted round as it ends.

    Returns:
        Who was left out, and what is missing for it.

    Raises:
        WrongResult: a contender did not do what it should.
    """
    absent = {one.name: why for one in case.contenders if (why := one.missing()) is not None}
    present = {one.name: one for one in case.contenders if one.name not in absent}
    for number in range(rounds + 1):
        names = order(list(present), case=case.name, number=number, seed=seed)
        for place, name in enumerate(names, 1):
            spot = folder / f"{case.name}-{number}-{name}"
            spot.mkdir(parents=True)
            began = datetime.datetime.now(datetime.UTC)
            figures = present[name].play(Place(folder=spot, warm_up=number == 0, number=number))
            shutil.rmtree(spot)
            line = _line(suite, case, name, number, place, figures, began)
            if number:
                tell(line)
            _say(line, warm_up=number == 0)
    return absent


def _line(
    suite: Suite,
    case: Case,
    name: str,
    number: int,
    place: int,
    figures: Figures,
    began: datetime.datetime,
) -> Line:
    return {
        "kind": "round",
        "suite": suite.name,
        "case": case.name,
        "contender": name,
        "round": number,
        "place": place,
        "wall_s": round(figures.wall_s, 6),
        "cpu_s": None if figures.cpu_s is None else round(figures.cpu_s, 6),
        "peak_rss_mib": None if figures.peak_rss_mib is None else round(figures.peak_rss_mib, 2),
        "ids": case.ids,
        "chunks": case.chunks,
        **case.more,
        **{key: round(value, 6) for key, value in figures.more.items()},
        "when": began.isoformat(timespec="seconds"),
    }


def _say(line: Line, *, warm_up: bool) -> None:
    what = "warm-up" if warm_up else f"round {line['round']}"
    cpu = "" if line["cpu_s"] is None else f", CPU {line['cpu_s']:.3f} s"
    sys.stderr.write(f"{line['case']} {what}: {line['contender']} {line['wall_s']:.3f} s{cpu}\n")
