"""The forecast: what the quota leaves, read to the safe side, is told before the first submission and ends nothing."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_engine import FIRST_ID, World, at_once, crash

from bulkjobs.events import ChunkAccepted, QuotaRead, QuotaUnknown
from bulkjobs.exits import Exit
from bulkjobs.model import RequestKind
from bulkjobs.observers.wording import Level, say
from bulkjobs.planning import Forecast, Sample, others_allowance, still_undebited_since
from bulkjobs.simulator import FaultPlan, ServiceConfig, Span
from bulkjobs.sources import open_sources

MID_MONTH = 1_768_478_400.0
"""2026-01-15 12:00 UTC."""


def forecast(**changed: Any) -> Forecast:
    parts = {
        "allocated": 1000,
        "consumed": 300,
        "undebited": 50,
        "allowance": 20,
        "needed": 630,
        "exact": True,
    }
    return Forecast(**parts | changed)


# --- what is left ---


def test_everything_that_may_be_spent_is_taken_from_what_was_allotted():
    assert forecast().left == 630
    assert forecast().fits is True
    assert forecast(needed=631).fits is False
    assert forecast(needed=None).fits is None


def test_nothing_is_left_of_a_quota_that_is_overdrawn():
    assert forecast(consumed=5000).left == 0
    assert forecast(consumed=5000, needed=0).fits is True


def test_others_may_have_started_a_full_job_in_each_slot():
    assert others_allowance(exclusive=False, slots=3, most_ids=10_000) == 30_000
    assert others_allowance(exclusive=False, slots=None, most_ids=10_000) == 20_000
    assert others_allowance(exclusive=True, slots=3, most_ids=10_000) == 0


def test_the_servers_count_may_miss_five_minutes_and_what_is_queued_for_a_day():
    assert still_undebited_since(100_000.0) == (13_600.0, 99_700.0)


def test_ids_are_estimated_by_the_bytes_they_take():
    assert Sample(1000, 8000).ids_in(80_000) == 10_000
    assert (Sample(1, 10) + Sample(2, 10)).ids_in(100) == 15
    assert Sample().ids_in(100) is None


# --- a run ---


def quota_world(tmp_path: Path, quota: int | None, *, chunks: int = 10, **more: Any) -> World:
    """Makes a world of an account that nobody else uses, in the middle of a month."""
    world = World(tmp_path, at_once(quota_ids=quota, **more), chunks=chunks)
    world.clock.epoch_utc = MID_MONTH
    return world


def read(world: World) -> QuotaRead:
    event: QuotaRead = world.seen(QuotaRead)[-1]
    return event


def asked(world: World) -> int:
    return sum(request.kind is RequestKind.USAGE for request in world.transport.requests)


def test_a_run_that_does_not_fit_says_so_before_the_first_submission_and_goes_as_far_as_it_can(
    tmp_path: Path,
) -> None:
    with quota_world(tmp_path, 55) as world:
        summary = world.go(world.engine(forecast=True, exclusive=True).run())
        assert read(world) == QuotaRead(
            allocated=55, consumed=0, undebited=0, allowance=0, left=55, needed=100, exact=False, fits=False
        )
        assert world.events.index(read(world)) < world.events.index(world.seen(ChunkAccepted)[0])
        kinds = [request.kind for request in world.transport.requests]
        assert kinds[0] is RequestKind.USAGE
        assert kinds.count(RequestKind.USAGE) == 1
        assert (summary.exit_code, summary.ids["accepted"]) == (Exit.STOPPED, 50)
        assert summary.requests["usage"] == 1


def test_what_is_said_has_both_figures_and_what_to_do(tmp_path: Path) -> None:
    with quota_world(tmp_path, 55) as world:
        world.go(world.engine(forecast=True, exclusive=True).run())
        saying = say(read(world))
    assert saying is not None
    assert saying.level is Level.WARN
    for text in ("needs about 100 ids", "about 55 ids are left", "55 allotted, 0 used", "--spend-cap"):
        assert text in saying.text


def test_a_run_that_fits_is_told_quietly(tmp_path: Path) -> None:
    with quota_world(tmp_path, 30_000) as world:
        assert world.go(world.engine(forecast=True).run()).exit_code == Exit.ACCEPTED
        assert (read(world).allowance, read(world).left, read(world).fits) == (20_000, 10_000, True)
        saying = say(read(world))
        assert saying is not None
        assert saying.level is Level.INFO


def test_without_a_quota_everything_fits(tmp_path: Path) -> None:
    with quota_world(tmp_path, None) as world:
        world.go(world.engine(forecast=True).run())
        assert read(world).fits is True


@pytest.mark.parametrize(
    "fault",
    [
        *("http401_before", "http403_before", "http404_before", "http503_before", "lockout_before"),
        *("reset_before", "html_after", "cut_after", "mislabel_after"),
    ],
)
def test_a_quota_that_cannot_be_read_stops_no_run(tmp_path: Path, fault: str) -> None:
    with quota_world(tmp_path, 1000, faults=FaultPlan.of(f"usage:{fault}=1")) as world:
        assert world.go(world.engine(forecast=True).run()).exit_code == Exit.ACCEPTED
        assert len(world.seen(QuotaUnknown)) + len(world.seen(QuotaRead)) == 1
        if fault != "mislabel_after":
            (unknown,) = world.seen(QuotaUnknown)
            saying = say(unknown)
            assert saying is not None
            assert "cannot be read" in saying.text


def test_the_forecast_can_be_left_out(tmp_path: Path) -> None:
    with quota_world(tmp_path, 55) as world:
        world.go(world.engine(forecast=False).run())
        assert asked(world) == 0


def test_nothing_is_asked_when_nothing_is_to_be_sent(tmp_path: Path) -> None:
    with quota_world(tmp_path, None, faults=FaultPlan.of("submit:reset_after=1")) as world:
        world.go(world.engine(forecast=True).run())
        world.transport.requests.clear()
        world.go(world.engine(forecast=True, on_unknown="reconcile").run())
        assert asked(world) == 0


def test_of_an_input_without_a_size_only_what_is_left_is_told(tmp_path: Path) -> None:
    def ids() -> Iterator[int]:
        yield from range(FIRST_ID, FIRST_ID + 40)

    with quota_world(tmp_path, 30) as world:
        sources = open_sources([ids()])
        world.go(world.engine(forecast=True, exclusive=True, sources=sources).run())
        assert (read(world).left, read(world).needed, read(world).fits) == (30, None, None)
        saying = say(read(world))
        assert saying is not None
        assert "an unknown number of ids" in saying.text


def test_the_spend_cap_bounds_what_is_needed(tmp_path: Path) -> None:
    with quota_world(tmp_path, 55) as world:
        world.go(world.engine(forecast=True, exclusive=True, spend_cap=50).run())
        assert (read(world).needed, read(world).fits) == (50, True)


@pytest.mark.parametrize("packed", [False, True])
def test_the_ids_of_a_large_file_are_estimated_from_its_beginning(tmp_path: Path, packed: bool) -> None:
    draw = random.Random(7)
    ids = draw.sample(range(10**6, 10**8), 150_000)
    with quota_world(tmp_path, 0) as world:
        text = "\n".join(map(str, ids)).encode()
        world.source.write_bytes(gzip.compress(text) if packed else text)
        world.go(world.engine(forecast=True, chunk_size=10_000).run())
        assert read(world).needed == pytest.approx(150_000, rel=0.02)


def test_once_all_is_read_what_is_needed_is_counted(tmp_path: Path) -> None:
    with quota_world(tmp_path, 52) as world:
        world.go(world.engine(forecast=True, workers=64).run())
        world.clock.epoch_utc += 86_401
        world.go(world.engine(forecast=True, exclusive=True).run())
        assert (read(world).needed, read(world).exact, read(world).left) == (50, True, 2)


def test_duplicates_and_invalid_ids_are_expected_to_go_on_as_before(tmp_path: Path) -> None:
    with quota_world(tmp_path, 100) as world:
        lines = [f"{FIRST_ID + number}\n" + "7\n" * (number > 0) for number in range(400)]
        world.source.write_text("".join(lines))
        world.go(world.engine(forecast=True).run())
        assert read(world).needed == pytest.approx(800, rel=0.05)  # nobody knew
        world.go(world.engine(forecast=True).run())
        assert read(world).needed == pytest.approx(300, rel=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_said_to_be_left_is_never_more_than_the_server_would_take(tmp_path: Path, seed: int) -> None:
    """Sessions that die at any moment, jobs that wait and run for any time, with and without anybody who follows."""
    draw = random.Random(seed)
    quota = 10_000
    config = ServiceConfig(
        seed=seed,
        quota_ids=quota,
        max_active_jobs=None,
        queue_time=Span(min_s=0.0, max_s=draw.choice([10.0, 900.0])),
        job_time=Span(min_s=1.0, max_s=draw.choice([30.0, 600.0])),
        faults=FaultPlan.of("submit:reset_after=0.05"),
    )
    with World(tmp_path, config, chunks=60) as world:
        world.clock.epoch_utc = MID_MONTH
        for _ in range(5):
            before = quota - world.books["ids"]
            world.events.clear()
            slots = draw.choice([None, 2, 5])
            engine = world.engine(forecast=True, exclusive=True, max_active_jobs=slots)
            world.go(crash(world, engine, after=draw.randrange(2, 25)))
            if told := world.seen(QuotaRead):
                assert told[0].left <= before, f"seed {seed}"
                assert told[0].left >= 0, f"seed {seed}"
            world.clock.epoch_utc += draw.choice([0, 1, 200, 301, 3600])
