"""Millions of ids through a service that breaks what it can, with kills in between, and every single one accounted for.

The faults are spread evenly over the submissions, one kind after the other, so that each kind comes in every run and
never so many that the client takes it for an outage. The account is used with a login, because some of them cost the token.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from support.judge import judge, judge_killed
from support.launcher import Launcher
from support.oracle import Oracle

from soak.town import Result, Town, make_source, wait_until

__all__ = ["FAULTS", "FaultsPlan", "run_faults"]

_EXIT_FINISHED: Final = (0, 3, 4)
_CREDENTIALS: Final = {"BULKJOBS_CLIENT_ID": "simulator-client", "BULKJOBS_CLIENT_SECRET": "simulator-secret"}

FAULTS: Final = (
    "reset_before",
    "reset_after",
    "close_before",
    "close_after",
    "cut_after",
    "html_before",
    "html_after",
    "error200_before",
    "error200_after",
    "mislabel_after",
    "http303_after",
    "http400_before",
    "http401_before",
    "http408_before",
    "http413_before",
    "http421_before",
    "http429_before",
    "http500_before",
    "http500_after",
    "http502_after",
    "http503_before",
    "http504_after",
)
"""Those of `bulkjobs simulate` that do not stop a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultsPlan:
    """Says what is done."""

    ids: int
    seed: int
    chunk_ids: int = 10_000
    workers: int = 8
    every: int = 50
    """One submission in so many meets a fault; more would be an outage, in which the client pauses."""
    kills: int = 5
    on_unknown: str = "hold"


def run_faults(plan: FaultsPlan, folder: Path) -> Result:
    """Moves the ids in an empty folder and gives what came of it."""
    began = time.monotonic()
    result = Result(asdict(plan))
    given = make_source(folder / "ids.txt", ids=plan.ids, seed=plan.seed)
    chunks = -(-len(given.ids) // plan.chunk_ids)
    faults = list(_spread(plan, chunks))
    options = ["--chunk-size", str(plan.chunk_ids), "--workers", str(plan.workers), "--lockout", "50ms"]
    options += ["--pace", "none", "--on-unknown", plan.on_unknown, "--settle", "100ms"]
    # Jobs end at once, so that reconciling can read whose ids they hold.
    oracle_options = ["--seed", str(plan.seed), "--queue-time", "0s", "--job-time", "0s", *faults]
    with Launcher() as launcher, Oracle(folder, *oracle_options, most="24h", launcher=launcher) as oracle:
        town = Town(folder, oracle, launcher, options=options, environ=_CREDENTIALS)
        moving = time.monotonic()
        for kill in range(plan.kills):
            _kill_after(town, chunks * (kill + 1) // (plan.kills + 1), result)
            killed = judge_killed(given, town.books, town.image, workers=plan.workers)
            result.violations += [f"after kill {kill}, seed {plan.seed}: {one}" for one in killed.violations]
        code = town.start().wait(24 * 3_600.0)
        result.figures["moving_ms"] = round(1_000 * (time.monotonic() - moving))
        if code not in _EXIT_FINISHED:
            result.violations.append(f"the last session ended with {code}: {town.stderr[-2000:]}")
        result.figures.update({f"fault_{name}": count for name, count in oracle.totals()["faults"].items()})
        judgement = judge(given, town.books, town.image)
    result.figures.update(judgement.figures)
    result.violations += judgement.violations
    result.elapsed_s = time.monotonic() - began
    return result


def _spread(plan: FaultsPlan, chunks: int) -> Iterator[str]:
    """Gives the options of the service: which submission meets which fault."""
    draw = random.Random(plan.seed)
    kinds = draw.sample(FAULTS, len(FAULTS))
    # Only one of this kind: a second that met the same chunk by chance would rightly end the session.
    again = [kind for kind in FAULTS if kind != "http421_before"]
    for begin in range(1, chunks - plan.every + 2, plan.every):
        kinds = kinds or draw.sample(again, len(again))
        yield "--fault"
        yield f"submit:{kinds.pop()}@{begin + draw.randrange(plan.every)}"


def _kill_after(town: Town, jobs: int, result: Result) -> None:
    """Lets a session work until the service has made so many jobs, and kills it."""
    session = town.start()
    if wait_until(lambda: town.oracle.jobs >= jobs, ended=lambda: not session.running):
        session.send_signal(signal.SIGKILL)
    ended = session.wait()
    result.figures["kills"] += ended == -signal.SIGKILL
    if ended not in (-signal.SIGKILL, *_EXIT_FINISHED):
        result.violations.append(f"a session ended with {ended}: {town.stderr[-2000:]}")
