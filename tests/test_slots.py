"""How much of the slots is used, of the best that any client could do on the same server."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from support.slots import Draw, play, reachable
from test_engine import FREE, World, now

from bulkjobs.exits import Exit
from bulkjobs.settings import Rate
from bulkjobs.simulator import Limit, ServiceConfig, Span

RATE = Rate(count=900, period_s=300.0)
DRAWS: dict[str, tuple[Draw, float]] = {
    "1 s": (lambda _: 1.0, 1_200.0),
    "10 s": (lambda _: 10.0, 2_000.0),
    "60 s": (lambda _: 60.0, 6_000.0),
    "54 to 66 s": (lambda source: source.uniform(54.0, 66.0), 6_000.0),
    "9 of 10 60 s, 1 of 10 2 h": (lambda source: 60.0 if source.random() < 0.9 else 7_200.0, 60_000.0),
    "about 10 minutes, log-normal": (lambda source: source.lognormvariate(6.4, 1.0), 60_000.0),
    "3 h": (lambda _: 10_800.0, 300_000.0),
    "2 to 4 h": (lambda source: source.uniform(7_200.0, 14_400.0), 300_000.0),
}
CASES = [
    *((name, 1, "newest first") for name in DRAWS),
    *((name, 2, "newest first") for name in ("1 s", "9 of 10 60 s, 1 of 10 2 h", "3 h")),
    *((name, 10, "newest first") for name in ("1 s", "3 h")),
    ("1 s", 2, "nothing"),
    ("1 s", 10, "nothing"),
    ("60 s", 2, "nothing"),
    ("60 s", 2, "oldest first"),
]


@pytest.mark.parametrize(("name", "slots", "shows"), CASES)
def test_slots_are_used_to_97_percent_of_the_optimum(name, slots, shows) -> None:
    draw, seconds = DRAWS[name]
    figures = play(draw, slots=slots, rate=RATE, seconds=seconds, shows=shows)
    # What the first jobs teach takes a greater part of a run as short as that of jobs of a second.
    least = 0.965 if name == "1 s" else 0.97
    assert figures.use >= least, figures
    assert figures.fullest <= RATE.count


JITTER: Draw = lambda source: source.uniform(0.9, 1.1)  # noqa: E731 - beside the other draws
SCATTERED: Draw = lambda source: source.lognormvariate(2.3, 1.0)  # noqa: E731


@pytest.mark.parametrize(
    ("draw", "slots", "shows", "least"),
    [
        (JITTER, 1, "nothing", 0.97),
        (JITTER, 2, "nothing", 0.97),
        # With a page for two, each would look at its own best times: nobody can for both.
        (JITTER, 2, "newest first", 0.94),
        (SCATTERED, 10, "newest first", 0.97),
        # Sixteen jobs a change of mind: what is not known yet of durations that scatter so widely costs the rest.
        (SCATTERED, 10, "nothing", 0.94),
    ],
)
def test_ends_that_nobody_can_foresee_are_met_as_well_as_by_who_knows_their_chances(
    draw, slots, shows, least
) -> None:
    """The rate leaves one to four questions for a job. Compared is with a bound for all that must ask."""
    seconds = 900.0
    figures = play(draw, slots=slots, rate=RATE, seconds=seconds, shows=shows)
    most = reachable(draw, jobs=figures.submits, slots=slots, rate=RATE, seconds=seconds, shows=shows)
    assert least <= figures.submits / most <= 1.0, (figures, most)
    assert figures.fullest <= RATE.count


@pytest.mark.parametrize("shows", ["newest first", "nothing"])
def test_a_rate_of_three_requests_in_five_minutes_is_used_to_the_full(shows) -> None:
    rate = Rate(count=3, period_s=300.0)
    figures = play(lambda _: 60.0, slots=2, rate=rate, seconds=60_000.0, shows=shows)
    assert figures.use >= 0.95, figures
    assert figures.fullest <= 3


def test_without_a_rate_every_slot_is_taken_again_at_once() -> None:
    figures = play(lambda _: 60.0, slots=4, rate=None, seconds=3_000.0)
    assert figures.use >= 0.99, figures


def test_durations_that_change_from_a_second_to_half_an_hour_and_back_are_followed() -> None:
    drawn = 0

    def draw(_: random.Random) -> float:
        nonlocal drawn
        drawn += 1
        return 1.0 if drawn // 300 % 2 == 0 else 1_800.0

    figures = play(draw, slots=4, rate=RATE, seconds=100_000.0)
    assert figures.use >= 0.95, figures


@pytest.mark.parametrize("shows", ["newest first", "nothing"])
def test_slots_that_jobs_of_others_leave_are_taken_soon_and_with_few_tries(shows) -> None:
    others = [(0.0, 500.0 * number) for number in range(1, 4)]
    figures = play(lambda _: 60.0, slots=5, rate=RATE, seconds=3_000.0, shows=shows, others=others)
    assert figures.use >= 0.97, figures
    assert figures.refused < 80


@pytest.mark.parametrize(
    ("job_s", "slots", "chunks", "listed"),
    [(1.0, 2, 100, True), (60.0, 2, 40, False), (600.0, 10, 50, True)],
)
def test_a_whole_run_uses_its_slots(
    tmp_path: Path, job_s: float, slots: int, chunks: int, listed: bool
) -> None:
    """With tracker, gate, ledger and the simulated service; the list begins with the oldest job."""
    config = ServiceConfig(
        rate=Limit(count=900, window_s=300.0),
        max_active_jobs=slots,
        job_time=Span(min_s=job_s, max_s=job_s),
        latency=Span(min_s=0.2, max_s=0.2),
        list_hides_type=not listed,
    )
    settings = replace(FREE, rate=RATE, max_active_jobs=slots, workers=max(2, slots))
    with World(tmp_path, config, chunks=chunks, settings=settings) as world:

        async def main() -> float:
            summary = await world.engine().run()
            assert summary.exit_code == Exit.ACCEPTED
            return now()

        elapsed_s = world.go(main())
        # The last jobs are not waited for, and the first ones teach how long they take.
        best_s = (chunks / slots - 1) * (job_s + 0.2)
        assert elapsed_s < 1.06 * best_s + 2.0
        assert world.books["submits_refused"] == 0
        assert world.books["lockouts"] == 0
        world.check()
