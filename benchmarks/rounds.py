"""Plays the rounds of a case: a warm-up that is checked and dropped, then everybody once in each."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.model import Case, Figures, Line, Place
from benchmarks.ratios import order

__all__ = ["absent", "play"]


def absent(case: Case) -> dict[str, str]:
    """Names who is left out of a case, and what is missing for it."""
    return {one.name: why for one in case.contenders if (why := one.missing()) is not None}


def play(case: Case, folder: Path, *, rounds: int, seed: int, tell: Callable[[Line], None]) -> None:
    """Plays a case and tells each counted round of each contender as it ends.

    Args:
        case: to play.
        folder: in which each round gets an empty one.
        rounds: counted ones; with 0 the warm-up is played and told.
        seed: of the order within a round.
        tell: takes a line of the results.

    Raises:
        WrongResult: a contender did not do what it should.
    """
    missing = absent(case)
    present = {one.name: one for one in case.contenders if one.name not in missing}
    for number in range(rounds + 1):
        for name in order(list(present), case=case.name, number=number, seed=seed):
            spot = folder / f"{case.name}-{number}-{name}"
            spot.mkdir(parents=True)
            began = dt.datetime.now(dt.UTC)
            figures = present[name].play(Place(folder=spot, warm_up=number == 0))
            shutil.rmtree(spot)
            line = {
                "round": number,
                **_line(case, name, figures),
                "when": began.isoformat(timespec="seconds"),
            }
            if number or not rounds:
                tell(line)
            _say(line)


def _line(case: Case, name: str, figures: Figures) -> Line:
    measured = {
        "wall_s": figures.wall_s,
        "cpu_s": figures.cpu_s,
        "peak_rss_mib": figures.peak_rss_mib,
        **figures.more,
    }
    return {
        "case": case.name,
        "contender": name,
        "ids": case.ids,
        "chunks": case.chunks,
        **{key: None if value is None else round(value, 6) for key, value in measured.items()},
    }


def _say(line: Line) -> None:
    what = f"round {line['round']}" if line["round"] else "warm-up"
    cpu = "" if line["cpu_s"] is None else f", CPU {line['cpu_s']:.3f} s"
    sys.stderr.write(f"{line['case']} {what}: {line['contender']} {line['wall_s']:.3f} s{cpu}\n")
