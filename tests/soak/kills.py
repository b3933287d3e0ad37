"""SIGKILL at random moments, again and again, on one ledger that grows all the while.

Each cycle starts the command, kills it at a moment that was drawn, and looks at what is left: the database is whole,
and six checks of the judge hold (`judge_killed`). A third of the moments lie in the time from the start of the process
to its first submission; the others come after some jobs more, so that the whole run is met. In the end the command is
given once more and may finish, and the judge looks at everything.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from support.evidence import Given, RunImage
from support.judge import judge, judge_killed
from support.launcher import Launcher
from support.oracle import TOKEN, Oracle

from soak.town import Result, Town, kill_process, make_source, wait_until

__all__ = ["KillPlan", "run_kills"]

_SIGKILLED: Final = -signal.SIGKILL
_EXIT_FINISHED: Final = (0, 3, 4)
_EARLY: Final = 1 / 3
_AFTER_A_JOB_S: Final = 0.006
_FIRST_JOB_S: Final = 0.2
"""A guess of how long it takes to the first job; it follows what is seen."""
_COLD_FIRST_JOB_S: Final = 1.0
_PATIENCE_S: Final = 60.0
_TELLING_S: Final = 1.0
"""Lets a session that does not go on tell where it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillPlan:
    """Says what is done."""

    cycles: int
    ids: int
    seed: int
    chunk_ids: int = 10
    workers: int = 4
    cold: float = 0.1
    """Share of the sessions that are started from nothing, so that kills meet the loading of modules too."""
    on_unknown: str = "hold"


def run_kills(plan: KillPlan, folder: Path) -> Result:
    """Runs the cycles in an empty folder and gives what came of them."""
    began = time.monotonic()
    result = Result(asdict(plan))
    given = make_source(folder / "ids.txt", ids=plan.ids, seed=plan.seed)
    faults = ["--fault", "submit:reset_after=0.004", "--fault", "submit:http503_before=0.004"]
    options = ["--chunk-size", str(plan.chunk_ids), "--workers", str(plan.workers)]
    # A first request that is lost after a crash may be one that the lock-out of a limit ate: that wait is not met here.
    options += ["--lockout", "50ms", "--on-unknown", plan.on_unknown, "--settle", "100ms"]
    with (
        Launcher() as launcher,
        Oracle(
            folder,
            "--latency",
            "10ms..30ms",
            "--queue-time",
            "0s",
            "--job-time",
            "0s",
            "--seed",
            str(plan.seed),
            *faults,
            most="24h",
            launcher=launcher,
        ) as oracle,
    ):
        town = Town(folder, oracle, launcher, options=options, environ={"BULKJOBS_ACCESS_TOKEN": TOKEN})
        _Cycles(plan, town, given, result).run()
    result.elapsed_s = time.monotonic() - began
    return result


class _Cycles:
    def __init__(self, plan: KillPlan, town: Town, given: Given, result: Result) -> None:
        self._plan = plan
        self._town = town
        self._given = given
        self._result = result
        self._draw = random.Random(plan.seed)
        self._chunks = -(-len(given.ids) // plan.chunk_ids)
        self._first_job_s = _FIRST_JOB_S
        self._done = 0
        """Chunks that were not planned any more after the last kill."""

    def run(self) -> None:
        figures = self._result.figures
        for cycle in range(self._plan.cycles):
            ended = self._cycle(self._plan.cycles - cycle)
            figures["kills"] += ended == _SIGKILLED
            figures["ended_before_the_kill"] += ended != _SIGKILLED
            if ended not in (_SIGKILLED, *_EXIT_FINISHED):
                self._violated(cycle, f"the session ended with {ended}")
            if not self._look(cycle):
                return
        code = self._town.start().wait(600.0)
        if code not in _EXIT_FINISHED:
            self._violated(
                self._plan.cycles, f"the last session ended with {code}: {self._town.stderr[-2000:]}"
            )
        judgement = judge(self._given, self._town.books, self._town.image)
        figures.update(judgement.figures)
        self._result.violations += judgement.violations

    def _cycle(self, left: int) -> int:
        """Starts a session and kills it; gives how it ended."""
        if self._draw.random() < self._plan.cold:
            process = self._town.start_anew()
            time.sleep(self._draw.uniform(0, _COLD_FIRST_JOB_S))
            return kill_process(process)
        early = self._draw.random() < _EARLY
        jobs = self._jobs_before_kill(left)
        session = self._town.start()
        if early:
            session.wait_at_most(self._draw.uniform(0, self._first_job_s))
        else:
            try:
                self._wait_for_jobs(jobs, ended=lambda: not session.running)
            except TimeoutError as error:
                session.send_signal(signal.SIGUSR1)
                session.wait_at_most(_TELLING_S)
                self._violated(self._plan.cycles - left, f"{error}: {self._town.stderr[-6_000:]}")
            session.wait_at_most(self._draw.uniform(0, _AFTER_A_JOB_S))
        session.send_signal(signal.SIGKILL)
        return session.wait()

    def _jobs_before_kill(self, left: int) -> int:
        """Spreads the chunks that are left over the kills that are left, whose share of early ones does little."""
        mean = (self._chunks - self._done) * (1 + _EARLY) / left
        return self._draw.randint(1, max(1, int(2 * mean) - 1))

    def _wait_for_jobs(self, jobs: int, ended: Callable[[], bool]) -> None:
        oracle, started = self._town.oracle, time.monotonic()
        before = oracle.jobs
        size = oracle.index_bytes
        if wait_until(lambda: oracle.index_bytes > size, ended, patience_s=_PATIENCE_S):
            self._first_job_s += 0.2 * (time.monotonic() - started - self._first_job_s)
            wait_until(lambda: oracle.jobs >= before + jobs, ended, patience_s=_PATIENCE_S)

    def _look(self, cycle: int) -> bool:
        """Judges what is left; a violation ends the cycles, for the next would hide it."""
        image = self._town.image
        self._note(image)
        violations = judge_killed(self._given, self._town.books, image, workers=self._plan.workers).violations
        for violation in violations:
            self._violated(cycle, violation)
        return not violations

    def _note(self, image: RunImage) -> None:
        """Counts what the kills met."""
        states = Counter(chunk.state for chunk in image.chunks)
        moved = len(image.chunks) - states["planned"]
        figures = self._result.figures
        figures["met_no_ledger"] += image.integrity == "absent"
        figures[f"met_{states['sending']}_in_flight"] += 1
        figures["met_undelivered"] += states["accepted"] > 0
        figures["met_nothing_new"] += moved == self._done
        self._done = moved

    def _violated(self, cycle: int, what: str) -> None:
        self._result.violations.append(f"cycle {cycle}, seed {self._plan.seed}: {what}")
