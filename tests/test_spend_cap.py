"""`--spend-cap`: whatever the server does and however often the process dies, no id more than that is spent."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from test_engine import World, at_once, crash

from bulkjobs.cli.report import next_steps
from bulkjobs.events import ChunkSplit, Stopping
from bulkjobs.exits import Exit
from bulkjobs.ledger import read_run, summarise
from bulkjobs.model import RequestKind, RunSummary
from bulkjobs.reconciler import Orders
from bulkjobs.simulator import FaultPlan, Limit


def posts(world: World) -> int:
    return sum(request.kind is RequestKind.SUBMIT for request in world.transport.requests)


def spent(summary: RunSummary) -> int:
    return summary.ids["accepted"] + summary.ids["held"]


def test_a_run_stops_before_the_chunk_that_would_exceed_the_cap(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=25) as world:
        summary = world.go(world.engine(spend_cap=75).run())
        assert summary.exit_code == Exit.STOPPED
        assert (summary.ids["accepted"], world.books["ids"]) == (70, 70)
        (stopping,) = world.seen(Stopping)
        assert "spend cap of 75 ids is reached: 70 are accepted or held" in stopping.reason
        assert "would add 10" in stopping.reason
        pending = re.search(r"Of what was read by now (\d+) ids are pending", stopping.reason)
        assert pending is not None
        assert 10 <= int(pending[1]) <= summary.ids["pending"]  # the reading goes on for a moment
        assert "higher --spend-cap" in stopping.reason
        assert read_run(world.run_dir).stop_reason == stopping.reason


def test_a_cap_that_fits_ends_nothing(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=25) as world:
        assert world.go(world.engine(spend_cap=250).run()).exit_code == Exit.ACCEPTED


def test_a_cap_smaller_than_one_chunk_sends_nothing(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=25) as world:
        summary = world.go(world.engine(spend_cap=9).run())
        assert (summary.exit_code, spent(summary), posts(world)) == (Exit.STOPPED, 0, 0)


def test_the_same_cap_again_sends_nothing_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=25) as world:
        for cap, ids in ((75, 70), (75, 70), (79, 70), (80, 80), (1000, 250)):
            summary = world.go(world.engine(spend_cap=cap).run())
            assert (summary.ids["accepted"], world.books["ids"]) == (ids, ids)
            assert summary.exit_code == (Exit.ACCEPTED if ids == 250 else Exit.STOPPED)
        world.check()


def test_duplicates_cost_nothing(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=0) as world:
        world.source.write_text("\n".join(str(1 + number % 30) for number in range(3000)))
        assert world.go(world.engine(spend_cap=30).run()).exit_code == Exit.ACCEPTED


def test_held_ids_count_as_spent(tmp_path: Path) -> None:
    config = at_once(faults=FaultPlan.of("submit:reset_after@1-2"))
    with World(tmp_path, config, chunks=25) as world:
        summary = world.go(world.engine(spend_cap=70).run())
        assert (summary.ids["held"], summary.ids["accepted"]) == (20, 50)


def test_refused_ids_are_given_back(tmp_path: Path) -> None:
    config = at_once(bad_ids="5000001,5000015,5000029")
    with World(tmp_path, config, chunks=10) as world:
        summary = world.go(world.engine(spend_cap=70).run())
        assert (summary.ids["refused"], summary.ids["accepted"]) == (30, 70)
        assert summary.exit_code == Exit.PARTS_REFUSED


def test_parts_of_a_divided_chunk_count(tmp_path: Path) -> None:
    config = at_once(bad_ids="5000003,5000038")
    with World(tmp_path, config, chunks=10) as world:
        summary = world.go(world.engine(spend_cap=50, bisect=True, workers=3).run())
        assert world.seen(ChunkSplit)
        assert summary.exit_code == Exit.STOPPED
        assert 40 < world.books["ids"] == summary.ids["accepted"] <= 50
        summary = world.go(world.engine(spend_cap=98, bisect=True).run())
        assert (summary.exit_code, world.books["ids"]) == (Exit.PARTS_REFUSED, 98)


@pytest.mark.parametrize("seed", range(6))
def test_with_faults_of_every_kind_no_id_more_is_spent_and_none_less_than_fits(
    tmp_path: Path, seed: int
) -> None:
    faults = FaultPlan.of(
        *("submit:http503_after=0.1", "submit:reset_before=0.1", "submit:input_before=0.1"),
        *("submit:slots_before=0.1", "submit:lockout_before=0.05"),
    )
    config = at_once(seed=seed, faults=faults, rate=Limit(count=40, window_s=60))
    cap = random.Random(seed).randrange(50, 200)
    with World(tmp_path, config, chunks=25) as world:
        summary = world.go(world.engine(spend_cap=cap, workers=7).run())
        assert summary.exit_code == Exit.STOPPED, f"seed {seed}"
        assert spent(summary) == cap // 10 * 10, f"seed {seed}"
        assert world.books["ids"] <= cap, f"seed {seed}"


@pytest.mark.parametrize("seed", range(6))
def test_killed_again_and_again_a_run_keeps_its_cap(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    with World(tmp_path, at_once(seed=seed), chunks=25) as world:
        for _ in range(12):
            world.go(crash(world, world.engine(spend_cap=120), after=draw.randrange(1, 9)))
            world.clock.epoch_utc += 1
            assert world.books["ids"] <= 120, f"seed {seed}"
            snapshot = read_run(world.run_dir)
            if snapshot.exit_code == Exit.STOPPED:
                break
        assert snapshot.run is not None
        ids = summarise(snapshot.run, snapshot.counts, 0).ids
        assert ids["accepted"] + ids["held"] <= 120, f"seed {seed}"
        assert snapshot.exit_code == Exit.STOPPED, f"seed {seed}"
        world.go(world.engine(spend_cap=1000).run())
        world.check()


def test_killed_with_the_last_chunk_that_fits_in_flight_nothing_more_goes(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=25) as world:
        world.go(crash(world, world.engine(spend_cap=70, workers=1), after=7))
        summary = world.go(world.engine(spend_cap=70).run())
        assert (summary.exit_code, summary.ids["accepted"], summary.ids["held"]) == (Exit.STOPPED, 60, 10)
        assert posts(world) == 0


def test_whoever_goes_on_is_reminded_of_the_cap(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=25) as world:
        summary = world.go(world.engine(spend_cap=75).run())
    command = "bulkjobs resume run --spend-cap 75"
    lines = list(next_steps(summary, world.run_dir, command, all_read=True))
    assert any(f"{command} (if the spend cap stopped it, with a higher one)" in line for line in lines)
    assert not any("higher one" in line for line in next_steps(summary, world.run_dir, "x", all_read=True))


def test_a_chunk_sent_again_by_a_person_is_spent_twice(tmp_path: Path) -> None:
    config = at_once(faults=FaultPlan.of("submit:reset_after@1-1"))
    with World(tmp_path, config, chunks=3) as world:
        world.go(world.engine(spend_cap=10).run())
        world.go(world.engine().settle(Orders(resubmit=[1])))
        summary = world.go(world.engine(spend_cap=19).run())
        assert (posts(world), spent(summary), summary.exit_code) == (1, 0, Exit.STOPPED)
        assert world.books["ids"] == 10
        world.go(world.engine(spend_cap=20).run())
        assert world.books["ids"] == 20
