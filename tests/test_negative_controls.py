"""Engines that were broken on purpose, each in the situation in which it matters: the judge has to notice.

The same situations with the engine as it is leave nothing to notice, so it is the damage that is seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.judge import Judgement, judge_run
from support.launcher import Launcher, Session
from support.oracle import TOKEN, Oracle
from support.sabotage import SABOTAGES

CHUNK_IDS = 5
IDS = range(41_000_001, 41_000_501)
SIGKILLED = -9
RIVAL_AT_JOBS = 10


@dataclass(frozen=True, kw_only=True)
class Situation:
    """When the damage shows, and how."""

    faults: tuple[str, ...] = ()
    crash: str = ""
    """Where the first session dies; the second is to finish."""
    rival: bool = False
    """Whether a second session starts while the first is at work."""
    unhindered: bool = False
    """Nothing goes wrong here but what the session does itself, so that every chunk must be delivered."""
    final_newline: bool = True
    seen: tuple[str, ...]
    """What the judge says, all of it in these words."""


SITUATIONS = {
    "retry_on_timeout": Situation(faults=("submit:reset_after@3",), seen=("5 ids were paid for again", "silent orphan")),
    "intent_after_send": Situation(crash="status_read@3", seen=("5 ids were paid for again", "silent orphan")),
    "in_flight_is_planned_at_start": Situation(
        crash="status_read@3", seen=("5 ids were paid for again", "had attempt 2, but 1 is unknown")
    ),
    "bloom_filter": Situation(seen=("ids are lost", "valid, invalid and duplicate ids, the source")),
    "redirects_followed": Situation(faults=("submit:http303_after@3",), seen=("silent orphan",)),
    "last_line_dropped": Situation(final_newline=False, seen=("1 ids are lost",)),
    "no_lock": Situation(rival=True, unhindered=True, seen=("were not delivered although nothing went wrong",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def judged(folder: Path, launcher: Launcher, situation: Situation, sabotage: str) -> Judgement:
    """Brings an engine into the situation and judges what came of it."""
    source = folder / "ids.txt"
    source.write_text("\n".join(map(str, IDS)) + ("\n" if situation.final_newline else ""))
    faults = [word for rule in situation.faults for word in ("--fault", rule)]
    latency = ("--latency", "10ms..20ms") if situation.rival else ()
    with Oracle(folder, *faults, *latency, launcher=launcher) as oracle:

        def start(crash: str = "") -> Session:
            command = ["submit", "ids.txt", "--run", "the.run", "--quiet", "--on-unknown", "hold"]
            command += ["--chunk-size", str(CHUNK_IDS), "--workers", "1", *oracle.options()]
            environ = {"BULKJOBS_ACCESS_TOKEN": TOKEN, "CRASH": crash, "SABOTAGE": sabotage}
            return launcher.start(command, folder=folder, environ=environ)

        if situation.crash:
            assert start(situation.crash).wait() == SIGKILLED
        session = start()
        if situation.rival:
            while oracle.jobs < RIVAL_AT_JOBS and session.running:
                session.wait_at_most(0.002)
            start().wait()
        session.wait()
        judgement = judge_run([source], oracle.books, folder / "the.run")
    missing = len(IDS) - judgement.figures["delivered"]
    judgement.require(
        not situation.unhindered or not missing,
        f"{missing} ids were not delivered although nothing went wrong",
    )
    return judgement


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_a_broken_engine_is_noticed(tmp_path: Path, launcher: Launcher, sabotage: str) -> None:
    situation = SITUATIONS[sabotage]
    found = "\n".join(judged(tmp_path, launcher, situation, sabotage).violations)
    print(found)
    assert found
    assert [words for words in situation.seen if words not in found] == []


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_the_engine_as_it_is_passes_where_the_broken_one_fails(
    tmp_path: Path, launcher: Launcher, sabotage: str
) -> None:
    assert judged(tmp_path, launcher, SITUATIONS[sabotage], "").violations == []
