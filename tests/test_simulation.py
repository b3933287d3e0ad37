"""The engine in simulated worlds: whatever goes wrong, each invariant holds at every step, and each seed repeats."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.simulated import BASE_URL, LOGIN_URL, TOKEN
from support.simulation import Outcome, Scenario, long_scenario_of, scenario_of, simulate
from support.simulation.process import End, Ending

from bulkjobs.settings import Rate, Secret, Settings
from bulkjobs.simulator import Limit, ServiceConfig, Span

ROOT = Path(__file__).parent.parent
SECONDS = float(os.environ.get("BULKJOBS_SIMULATION_S", "10"))
"""Real time for the short runs; they go on beyond it until they have met all that they are to meet."""
FIRST_SEED = int(os.environ.get("BULKJOBS_SIMULATION_SEED", "1"))
LAST_SEED = FIRST_SEED + 9_999
LONG_SEEDS = 20
LONG_CHUNKS = int(os.environ.get("BULKJOBS_SIMULATION_CHUNKS", "400"))


STARVED = 401
"""Is a seed that fails: two stray 429 teach a limit of 1 request in 5 minutes, for good. Tokens are taken before the
wait for a permit, so each is too old when its turn comes. Nothing is lost or paid twice, but nothing moves either."""


def told(outcome: Outcome, more: str = "") -> str:
    """Gives what a person needs to see it again."""
    again = f"python -m tests.soak simulate --seed {outcome.seed}{more} --trace"
    return "\n".join([f"seed {outcome.seed}, to be seen with: {again}", *outcome.violations])


MET = {
    *(
        "accepted",
        "refused",
        "unknown",
        "not_applied not_sent",
        "not_applied throttled",
        "not_applied unauthorized",
    ),
    *(
        "not_applied slots_full",
        "not_applied no_quota",
        "not_applied misconfigured",
        "not_applied not_processed",
    ),
    *(
        "fault slow",
        "fault stale",
        "fault expire",
        "fault lost_body",
        "end crash",
        "end drain",
        "end stop",
        "end cancel",
    ),
}
"""What short runs must have met between them: trouble that no seed meets would only be believed to be tested."""


def test_short_runs_with_much_going_wrong_break_no_invariant() -> None:
    begun, seen = time.monotonic(), Counter[str]()
    for seed in range(FIRST_SEED, LAST_SEED + 1):
        if set(seen) >= MET and time.monotonic() - begun > SECONDS:
            break
        # Most of what can happen is found by the briefest, of which there are twice as many in the time.
        brief = seed % 4 != 0
        outcome = simulate(scenario_of(seed, brief=brief), on_files=seed % 10 == 0)
        seen += outcome.seen
        assert not outcome.violations, told(outcome, " --brief" if brief else "")
    assert set(seen) >= MET


def test_a_run_whose_limit_was_learned_from_stray_throttles_comes_to_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("support.simulation.world._LONGEST_S", 2 * 86_400.0)
    outcome = simulate(scenario_of(STARVED))
    assert not outcome.violations, told(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + LONG_SEEDS))
def test_runs_of_hours_with_crashes_and_faults_break_no_invariant(seed: int) -> None:
    outcome = simulate(long_scenario_of(seed, chunks=LONG_CHUNKS))
    assert not outcome.violations, told(outcome, f" --long --chunks {LONG_CHUNKS}")


def test_a_crash_while_a_question_about_jobs_meets_a_lock_out_is_not_followed_by_a_burst_into_it() -> None:
    """The 429 may die with the process although no submission was in flight: one request alone finds out."""
    settings = Settings(
        base_url=BASE_URL,
        login_url=LOGIN_URL,
        access_token=Secret(TOKEN),
        rate=Rate(count=50, period_s=300.0),
        pace=None,
        max_active_jobs=4,
        on_unknown="hold",
        chunk_size=1,
        workers=4,
        forecast=False,
    )
    config = ServiceConfig(
        seed=3,
        rate=Limit(count=10, window_s=300.0),
        max_active_jobs=4,
        job_time=Span(min_s=60.0, max_s=90.0),
        latency=Span(min_s=0.1, max_s=0.3),
    )
    scenario = Scenario(
        seed=3,
        files=(b"\n".join(b"%d" % one for one in range(1, 9)),),
        chunk_size=1,
        settings=settings,
        config=config,
        endings=(),
        travel_s=0.1,
    )
    met = 0
    for step in range(140, 160):
        crash = Ending(how=End.CRASH, step=step, pause_s=1.0)
        outcome = simulate(replace(scenario, endings=(crash,)), keep_trace=True)
        assert not outcome.violations, (step, outcome.violations)
        first = "\n".join(line for line in outcome.trace if "process 1 " in line)
        throttled = any(f"process 1 gets 429 for {kind}" in first for kind in ("list", "status"))
        met += throttled and "process 1 commits lockout+" not in first
    assert met, "no step was the one between the answer and the commit"


def test_a_process_that_is_cancelled_before_it_begins_leaves_to_the_next_one_what_a_crash_left() -> None:
    crash = Ending(how=End.CRASH, step=80, pause_s=1.0)
    cancel = Ending(how=End.CANCEL, step=3, pause_s=1.0)
    scenario = replace(scenario_of(7, brief=True), endings=(crash, cancel), jumps=(), fault_share=0.0)
    outcome = simulate(scenario, keep_trace=True)
    assert not outcome.violations
    commits = [line for line in outcome.trace if "process 2 commits" in line or "process 3 commits" in line]
    assert "process 3" in commits[0]
    assert "sending held" in commits[0]


@pytest.mark.parametrize("seed", [3, 7, 20, 41])
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    first, second = (simulate(scenario_of(seed), keep_trace=True) for _ in range(2))
    assert first.trace == second.trace
    assert first.trace_hash == second.trace_hash
    assert len(first.trace) > 5


@pytest.mark.parametrize("seed", [30, 33, 83, 98])
def test_a_ledger_that_stays_open_in_memory_leads_to_the_trace_of_one_on_files(seed: int) -> None:
    """What a process finds, and what a dead one still does, must not depend on who keeps the database."""
    scenario = scenario_of(seed, brief=True)
    on_files, in_memory = (simulate(scenario, on_files=where, keep_trace=True) for where in (True, False))
    assert in_memory.seen["end crash"] > 0
    assert in_memory.trace == on_files.trace


def test_different_seeds_give_different_traces() -> None:
    assert len({simulate(scenario_of(seed, brief=True)).trace_hash for seed in range(10)}) == 10


def test_the_trace_does_not_depend_on_the_interpreters_own_chance() -> None:
    """Sets of words and addresses of objects differ between processes; nothing may follow from them."""
    hashes = set()
    for chance in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-m", "tests.soak", "simulate", "--seed", "41"],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": chance},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(ended.stdout.splitlines()[-1])
    assert len(hashes) == 1
