"""When everything will be sent: the true end lies in the range, which begins wide and narrows; or nobody can tell."""

from __future__ import annotations

import asyncio
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.histories import BEGAN_UTC, World, any_world, told
from test_engine import FREE as FREE_OF_LIMITS
from test_engine import World as Engines

from bulkjobs.cli import status
from bulkjobs.events import (
    AttemptNotApplied,
    ChunkHeld,
    ChunkSettled,
    Controlled,
    Event,
    LimitLearned,
    LockedOut,
    LockoutEnded,
    SourceProgress,
    Stopping,
)
from bulkjobs.exits import Exit
from bulkjobs.ledger import read_run
from bulkjobs.model import Cause
from bulkjobs.outlook import Outlook, read_eta
from bulkjobs.planning import Eta, History, NoEta, eta
from bulkjobs.settings import Rate
from bulkjobs.simulator import Limit, ServiceConfig, Span
from bulkjobs.sources import FileSource

MOMENTS = 40
TWENTY = Rate(count=20, period_s=300.0)


def moments(world: World, points: int = MOMENTS) -> tuple[list[Eta | NoEta], float]:
    """Looks ahead at evenly spread moments of a session; gives what was seen, and the true end."""
    events, end = told(world)
    ahead: list[Eta | NoEta] = []
    history, remaining = History(), iter(events)
    event = next(remaining, None)
    for point in range(points):
        at = BEGAN_UTC + (end - BEGAN_UTC) * (point + 0.5) / points
        while event is not None and event[0] <= at:
            history.add(event[1], event[0])
            event = next(remaining, None)
        ahead.append(eta(history, at))
    return ahead, end


def holds(ahead: Eta, end: float) -> bool:
    return ahead.low_utc <= end <= ahead.high_utc


# --- simulated sessions ---


@pytest.fixture(scope="module")
def sessions() -> list[tuple[World, list[Eta | NoEta], float]]:
    return [(world, *moments(world)) for world in map(any_world, range(70))]


Sessions = list[tuple[World, list[Eta | NoEta], float]]


def test_the_true_end_lies_in_the_range_at_nine_of_ten_moments(sessions: Sessions) -> None:
    known = [(one, end) for _, ahead, end in sessions for one in ahead if isinstance(one, Eta)]
    assert sum(holds(one, end) for one, end in known) / len(known) >= 0.95
    assert len(known) / (MOMENTS * len(sessions)) >= 0.95, "it may not pass over what is hard to tell"


def test_so_it_does_at_the_first_moments_of_all(sessions: Sessions) -> None:
    early = [
        (one, end) for _, ahead, end in sessions for one in ahead[: MOMENTS // 10] if isinstance(one, Eta)
    ]
    assert sum(holds(one, end) for one, end in early) / len(early) >= 0.90
    assert len(early) / (MOMENTS // 10 * len(sessions)) >= 0.7


def test_the_range_narrows(sessions: Sessions) -> None:
    """Its width as a share of the whole session, in each quarter of it; and no range is all of time."""
    quarter = MOMENTS // 4
    widths = [
        statistics.median(
            (one.high_utc - one.low_utc) / (end - BEGAN_UTC)
            for _, ahead, end in sessions
            for one in ahead[first : first + quarter]
            if isinstance(one, Eta)
        )
        for first in range(0, MOMENTS, quarter)
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] <= 1.0
    assert widths[-1] <= 0.25


@pytest.mark.parametrize(
    "world",
    [
        World(seed=1, chunks=5000, limit=900),
        World(seed=2, chunks=400, slots=2, job_s=120.0),
        World(seed=3, chunks=400, slots=2, job_s=3600.0, limit=900, lockout_every_s=40_000.0),
        World(seed=4, chunks=2000, answer_s=3.0),
    ],
)
def test_in_the_second_half_of_a_long_session_the_range_is_of_use(world: World) -> None:
    ahead, end = moments(world)
    for point, one in enumerate(ahead):
        if point > MOMENTS // 2:
            assert isinstance(one, Eta)
            rest_s = (end - BEGAN_UTC) * (1 - point / MOMENTS)
            assert one.high_utc - one.low_utc < 1.2 * rest_s + 2 * max(300.0, world.job_s), f"at {point}"


# --- unknown rather than a guess ---


def history(world: World, until: int) -> History:
    seen = History()
    for at, event in told(world)[0][:until]:
        seen.add(event, at)
    return seen


def reason(ahead: Eta | NoEta) -> str:
    assert isinstance(ahead, NoEta)
    return ahead.reason


FREE = World(seed=1, chunks=100)


def test_before_the_first_answer_nobody_can_tell() -> None:
    assert reason(eta(History(), BEGAN_UTC)) == "nothing was answered yet"
    assert reason(eta(history(FREE, 3), BEGAN_UTC)) == "nothing was answered yet"


def test_without_the_size_of_the_input_nobody_can_tell_until_it_was_read() -> None:
    piped = replace(FREE, sized=False)
    assert reason(eta(history(piped, 100), BEGAN_UTC + 60)) == "nobody knows how long the input is"
    ahead, end = moments(piped)
    assert isinstance(ahead[-1], Eta)
    assert holds(ahead[-1], end)


def test_while_jobs_bound_a_run_nobody_can_tell_before_one_has_ended() -> None:
    world = World(seed=1, chunks=100, slots=2, job_s=3600.0, job_spread=0.1)
    ahead, _ = moments(world, points=400)
    assert reason(ahead[3]) == "no job has ended yet"
    assert isinstance(ahead[20], Eta)


def test_without_bounds_two_answers_are_no_basis() -> None:
    seen = history(FREE, 30)
    seen.chunks = 2
    assert reason(eta(seen, BEGAN_UTC + 1)) == "too little was answered yet"


def test_a_run_that_stops_has_no_end_to_tell() -> None:
    seen = history(FREE, 100)
    seen.add(Stopping(reason="SIGTERM."), BEGAN_UTC + 9)
    assert reason(eta(seen, BEGAN_UTC + 10)) == "nothing more is sent"


def test_what_would_take_years_is_not_told_in_years() -> None:
    slow = replace(history(FREE, 100), read_ids=10**15, size_bytes=10**18)
    assert "years" in reason(eta(slow, BEGAN_UTC + 10))


# --- what is taken into account ---


def end_of(ahead: Eta | NoEta) -> tuple[float, float]:
    assert isinstance(ahead, Eta), ahead
    return ahead.low_utc, ahead.high_utc


def test_a_lock_out_that_goes_on_is_waited_for_first() -> None:
    at = BEGAN_UTC + 30
    seen = history(FREE, 150)
    low, high = end_of(eta(seen, at))
    seen.add(LockedOut(until_utc=at + 300, wait_s=300, reason="429"), at)
    locked_low, locked_high = end_of(eta(seen, at))
    assert locked_low == pytest.approx(low + 300)
    assert locked_high >= high + 300


def test_lock_outs_that_come_often_are_expected_to_come_again() -> None:
    world = World(seed=5, chunks=3000, limit=900, answer_s=1.0)
    seen = history(world, 4000)
    quiet = end_of(eta(seen, seen_utc := BEGAN_UTC + 700))
    seen.lockouts, seen.locked_s = 1, 300.0
    assert end_of(eta(seen, seen_utc))[1] > quiet[1]


def test_a_limit_that_was_learned_counts_at_once() -> None:
    world = World(seed=5, chunks=3000, limit=900)
    seen, at = history(world, 1000), BEGAN_UTC + 60
    before = end_of(eta(seen, at))
    seen.add(LimitLearned(requests=90, window_s=300.0), at)
    after = end_of(eta(seen, at))
    assert after[0] > before[0]
    assert after[1] > 5 * (before[1] - at) + at


def test_commands_count_at_once() -> None:
    def command(name: str, value: str | None = None) -> Controlled:
        return Controlled(command=name, value=value, origin="a test")

    seen, at = history(World(seed=5, chunks=3000, limit=900), 1000), BEGAN_UTC + 60
    before = eta(seen, at)
    seen.add(command("rate", "90/5m"), at)
    assert end_of(eta(seen, at))[0] > end_of(before)[0]
    seen.add(command("rate", "none"), at)
    assert (seen.limit, seen.window_s) == (None, None)
    seen.add(command("workers", "3"), at)
    assert seen.workers == 3
    seen.add(command("rate", "900/5m"), at)
    seen.add(command("workers", "8"), at)
    assert eta(seen, at) == before
    seen.add(command("pause"), at)
    assert reason(eta(seen, at + 3000)) == "submitting is paused"
    seen.add(command("resume"), at + 3000)
    assert end_of(eta(seen, at + 3000)) == pytest.approx([utc + 3000 for utc in end_of(before)])


def test_attempts_in_vain_take_their_part_of_the_window() -> None:
    seen, at = history(World(seed=5, chunks=3000, limit=900), 1000), BEGAN_UTC + 60
    before = end_of(eta(seen, at))
    vain = AttemptNotApplied(chunk=1, attempt=1, cause=Cause.SLOTS_FULL, reason="", wait_s=0.0)
    for _ in range(seen.submits):
        seen.add(vain, at)
    assert end_of(eta(seen, at))[1] - at > 1.5 * (before[1] - at)


def test_a_chunk_that_goes_out_again_is_left_again() -> None:
    seen, at = history(FREE, 250), BEGAN_UTC + 60
    left = seen.ids
    seen.add(ChunkHeld(chunk=7, ids=10_000, reason=""), at)
    seen.add(ChunkSettled(chunk=7, ids=10_000, job_id=None, reason=""), at)
    assert seen.ids == left


def test_a_run_that_goes_on_counts_what_earlier_sessions_did() -> None:
    seen, at = history(FREE, 100), BEGAN_UTC + 20
    fresh = end_of(eta(seen, at))
    seen.settled_before = 500_000
    assert end_of(eta(seen, at))[1] < fresh[1]
    seen.settled_before, seen.planned_ids = 0, seen.ids
    assert end_of(eta(seen, at)) == (at, at)


def test_a_spend_cap_ends_a_run_sooner() -> None:
    seen, at = history(FREE, 100), BEGAN_UTC + 20
    whole = end_of(eta(seen, at))
    seen.spendable_ids = seen.ids + 100_000
    assert end_of(eta(seen, at))[1] < whole[1]
    seen.spendable_ids = seen.ids
    assert end_of(eta(seen, at)) == (at, at)


def test_the_figures_stay_small_however_long_a_session_is() -> None:
    world = World(seed=1, chunks=20_000, limit=900)
    seen = history(world, 10**9)
    assert len(seen.samples) <= 33
    assert len(orjson.dumps(seen.as_dict())) < 3000
    again = History.of(json.loads(json.dumps(seen.as_dict())))
    assert eta(again, BEGAN_UTC + 9999) == eta(seen, BEGAN_UTC + 9999)


@pytest.mark.parametrize("clock_s", [-1e6, 0.0, 1e9])
def test_a_clock_that_jumps_breaks_nothing(clock_s: float) -> None:
    seen = history(World(seed=9, chunks=50, limit=20, slots=2, lockout_every_s=3000.0), 120)
    for at in (BEGAN_UTC + clock_s, BEGAN_UTC + clock_s + 10):
        seen.add(LockoutEnded(), at)
        ahead = eta(seen, at)
        assert isinstance(ahead, NoEta) or ahead.low_utc <= ahead.high_utc


# --- for another process ---


class Hand:
    now = BEGAN_UTC

    def utc(self) -> float:
        return self.now


def watched(path: Path, events: list[tuple[float, Event]]) -> Hand:
    clock = Hand()
    outlook = Outlook(path, clock=clock)
    for clock.now, event in events:
        outlook(event)
    return clock


def test_another_process_sees_the_same_range(tmp_path: Path) -> None:
    events = told(World(seed=1, chunks=3000, limit=900))[0][:5000]
    path = tmp_path / "outlook.json"
    clock = watched(path, events)
    seen = History()
    for at, event in events:
        seen.add(event, at)
    there, here = read_eta(path, clock.now), eta(seen, clock.now)
    assert end_of(there) == pytest.approx(end_of(here), abs=60)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["outlook.json"]


def test_the_status_of_a_run_at_work_says_when_it_will_be_done(tmp_path: Path) -> None:
    with Engines(tmp_path, ServiceConfig(), chunks=10) as world:
        world.go(world.engine().run())
    at = watched(world.run_dir / "outlook.json", told(World(seed=1, chunks=3000, limit=900))[0][:5000]).now
    done = read_run(world.run_dir)
    at_work = replace(done, owner="pid 7 on host")
    said = status._object(at_work, world.run_dir, at)["eta"]
    assert isinstance(said, dict)
    assert said["reason"] is None
    assert said["low"] < said["high"]
    (line,) = [line for line in status._lines(at_work, world.run_dir, at) if line.startswith("all sent")]
    assert "all sent   in " in line
    gone = {"low": None, "high": None, "reason": "nobody works on it"}
    assert status._object(done, world.run_dir, at)["eta"] == gone
    assert not [line for line in status._lines(done, world.run_dir, at) if line.startswith("all sent")]


def test_a_short_session_leaves_nothing(tmp_path: Path) -> None:
    watched(tmp_path / "outlook.json", [told(FREE)[0][0], (BEGAN_UTC + 4.9, Stopping(reason="x"))])
    assert list(tmp_path.iterdir()) == []
    assert reason(read_eta(tmp_path / "outlook.json", BEGAN_UTC)) == "the session has just begun"


def test_a_place_that_cannot_be_written_is_let_be(tmp_path: Path) -> None:
    watched(tmp_path / "missing" / "outlook.json", told(FREE)[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"{}",
            b"[]",
            b"null",
            b"{",
            b'{"chunks": 1}',
            b'{"unknown": 1}',
            b'{"chunks": "x", "ids": []}',
        ),
        b'{"chunks": 4, "ids": 1, "all_read": true, "read_ids": 9, "began_utc": 1, "samples": []}',
    ],
)
def test_a_file_that_is_not_of_this_kind_is_no_basis(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outlook.json"
    path.write_bytes(content)
    assert isinstance(read_eta(path, BEGAN_UTC), NoEta)


# --- the engine ---


@pytest.mark.parametrize(
    ("config", "settings", "chunks"),
    [
        (
            {"job_time": Span(min_s=20.0, max_s=100.0), "max_active_jobs": 2},
            {"max_active_jobs": 2, "rate": Rate(count=200, period_s=300.0)},
            40,
        ),
        (
            {"job_time": Span(min_s=0.0, max_s=0.0), "rate": Limit(count=25, window_s=300.0)},
            {"rate": TWENTY},
            130,
        ),
    ],
)
def test_in_a_real_session_the_true_end_lies_in_the_range(
    tmp_path: Path, config: dict[str, Any], settings: dict[str, Any], chunks: int
) -> None:
    with Engines(tmp_path, ServiceConfig(**config), chunks=chunks) as world:
        seen, ahead = History(), []

        def observe(event: Event) -> None:
            at = world.clock.utc()
            seen.add(event, at)
            if not seen.over:
                ahead.append(eta(seen, at))

        world.go(world.engine(observe=observe, **settings).run())
        assert seen.began_utc is not None
        end = seen.began_utc + seen.last_open_s
        known = [one for one in ahead if isinstance(one, Eta)]
        assert len(known) > 0.8 * len(ahead)
        assert sum(holds(one, end) for one in known) / len(known) >= 0.95
        assert not (world.run_dir / "outlook.json").exists()


def test_a_session_that_goes_on_looks_ahead_from_what_is_left(tmp_path: Path) -> None:
    config = ServiceConfig(job_time=Span(min_s=0.0, max_s=0.0), rate=Limit(count=25, window_s=300.0))
    with Engines(tmp_path, config, chunks=130, settings=replace(FREE_OF_LIMITS, rate=TWENTY)) as world:
        ahead: list[Eta | NoEta] = []
        seen = History()

        def observe(event: Event) -> None:
            seen.add(event, world.clock.utc())
            if not seen.over:
                ahead.append(eta(seen, world.clock.utc()))

        async def drained() -> None:
            engine = world.engine()
            asyncio.get_running_loop().call_later(950.0, engine.drain, "enough", Exit.SIGTERM)
            await engine.run()

        world.go(drained())
        world.go(world.engine(observe=observe).run())
        assert seen.settled_before > 500
        assert seen.began_utc is not None
        known = [one for one in ahead if isinstance(one, Eta)]
        end = seen.began_utc + seen.last_open_s
        assert sum(holds(one, end) for one in known) / len(known) >= 0.95
        assert len(known) > 0.5 * len(ahead)
        assert max(one.high_utc for one in known) - seen.began_utc < 2000


def test_several_sources_are_one_input(tmp_path: Path) -> None:
    with Engines(tmp_path, ServiceConfig(), chunks=10) as world:
        more = tmp_path / "more.txt"
        more.write_text("1\n2\n3\n")
        world.go(world.engine(sources=[FileSource(world.source), FileSource(more)]).run())
        size = world.source.stat().st_size + 6
        told = [(one.run_position_bytes, one.run_size_bytes) for one in world.seen(SourceProgress)]
        assert told == [(size - 6, size), (size, size), (size, size)]
