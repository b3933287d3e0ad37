"""Held chunks against the server's list of jobs: adopted, sent again, or left, but never lost and never paid twice.

Every run here ends before the service's books, which know what each job was really made of.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.simulated import BASE_URL, LOGIN_URL, TOKEN, crash_image, json_lines
from support.world import SimulatedWorld

from bulkjobs.engine import Engine
from bulkjobs.errors import ConfigError, LedgerLocked, SourceChanged, SourceError
from bulkjobs.events import (
    BaselineMissing,
    ChunkSettled,
    Event,
    ReconcileWaits,
    RunFinishedBefore,
    Stopping,
)
from bulkjobs.exits import Exit
from bulkjobs.ledger import Ledger, read_run
from bulkjobs.model import Evidence, Phase, Request, RequestKind, RunSummary
from bulkjobs.nonce import nonce_of
from bulkjobs.reconciler import Orders
from bulkjobs.settings import Secret, Settings
from bulkjobs.simulator import FaultPlan, Limit, ServiceConfig, Span
from bulkjobs.sources import open_sources
from bulkjobs.testing import VirtualClock

SETTLE_S = 600.0
SETTINGS = Settings(
    base_url=BASE_URL,
    login_url=LOGIN_URL,
    access_token=Secret(TOKEN),
    rate=None,
    pace=None,
    max_active_jobs=None,
    chunk_size=10,
    workers=2,
    settle_s=SETTLE_S,
)

ALONE = replace(SETTINGS, workers=1)


def config(*faults: str, late_s: float = 240.0, **more: Any) -> ServiceConfig:
    more.setdefault("job_time", Span(min_s=30.0, max_s=90.0))
    return ServiceConfig(faults=FaultPlan.of(*faults, late_s=late_s), **more)


class World(SimulatedWorld):
    """Is what outlives a session, and what it left in its files."""

    def __init__(
        self, tmp_path: Path, service: ServiceConfig, *, chunks: int = 6, settings: Settings = SETTINGS
    ) -> None:
        super().__init__(tmp_path, service, chunks=chunks, settings=settings)

    def submit(self, **changed: Any) -> RunSummary:
        summary: RunSummary = self.go(self.engine(**changed).run())
        return summary

    def hold(self, **changed: Any) -> RunSummary:
        """Runs without settling anything."""
        return self.submit(on_unknown="hold", **changed)

    def reconcile(self, orders: Orders | None = None, **changed: Any) -> RunSummary:
        engine = self.engine(sources=[], **changed)
        summary: RunSummary = self.go(engine.settle(orders or Orders()))
        return summary

    @property
    def held(self) -> list[dict[str, Any]]:
        return json_lines(self.run_dir / "held.jsonl")

    @property
    def records(self) -> list[dict[str, Any]]:
        return json_lines(self.run_dir / "jobs.jsonl")

    @property
    def findings(self) -> dict[int, str]:
        return {line["chunk"]: line["finding"] for line in self.held}

    @property
    def submits(self) -> int:
        return int(self.service.totals()["requests"]["submit"])

    def jobs_nobody_knows(self) -> list[str]:
        """Gives the jobs that the service made for us and that stand in no record."""
        return sorted(set(self.account.bodies) - {record["job_id"] for record in self.records})


async def crash(world: World, engine: Engine, *, when: Callable[[Request], bool]) -> bool:
    """Runs an engine until a certain request is about to leave, and leaves what a killed process leaves."""
    for_ever, crashed = asyncio.Event(), asyncio.Event()
    image = world.tmp_path / "image"

    async def on_leaving(request: Request) -> None:
        if not crashed.is_set() and when(request):
            crash_image(world.run_dir, image)
            crashed.set()
        if crashed.is_set():
            await for_ever.wait()

    engine._transport = world.new_transport(on_leaving)
    return await _until(world, engine, crashed, image)


async def _until(world: World, engine: Engine, crashed: asyncio.Event, image: Path) -> bool:
    session = asyncio.create_task(engine.run())
    dying = asyncio.create_task(crashed.wait())
    await asyncio.wait([session, dying], return_when=asyncio.FIRST_COMPLETED)
    for task in (session, dying):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    if crashed.is_set():
        shutil.rmtree(world.run_dir)
        image.rename(world.run_dir)
    world.new_transport()
    return crashed.is_set()


# --- what comes of a held chunk ---


@pytest.mark.parametrize(
    "fault", ["reset_after", "close_after", "cut_after", "http502_after", "html_after", "error200_after"]
)
def test_a_job_whose_answer_was_lost_is_found_by_its_ids_and_nothing_is_sent_again(
    tmp_path: Path, fault: str
) -> None:
    with World(tmp_path, config(f"submit:{fault}@3")) as world:
        summary = world.submit()
        assert summary.exit_code == Exit.ACCEPTED
        assert (summary.ids["accepted"], summary.ids["held"]) == (60, 0)
        assert world.submits == 6
        assert world.check() == summary.as_dict()
        (told,) = world.seen(ChunkSettled)
        assert told.job_id is not None
        assert "exactly these ids" in told.reason
        assert world.held == []


@pytest.mark.parametrize("fault", ["reset_before", "http500_before", "html_before"])
def test_a_chunk_without_a_job_goes_out_again_in_the_same_session(tmp_path: Path, fault: str) -> None:
    with World(tmp_path, config(f"submit:{fault}@3")) as world:
        summary = world.submit()
        assert summary.exit_code == Exit.ACCEPTED
        assert world.submits == 7
        assert world.check()["ids"]["accepted"] == 60
        (told,) = world.seen(ChunkSettled)
        assert told.job_id is None
        assert world.clock.epoch_utc >= VirtualClock().epoch_utc + 2 * SETTLE_S
        assert not (world.run_dir / "duplicate-risk").exists()


def test_some_of_several_have_jobs(tmp_path: Path) -> None:
    faults = ("submit:reset_after@2", "submit:reset_before@4", "submit:http504_after@6")
    with World(tmp_path, config(*faults), chunks=8) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 9
        world.check()


def test_what_is_lost_again_is_settled_again(tmp_path: Path) -> None:
    faults = [
        f"submit:reset_{when}@{number}" for number, when in ((6, "before"), (7, "before"), (8, "after"))
    ]
    with World(tmp_path, config(*faults)) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 8
        assert [told.job_id is None for told in world.seen(ChunkSettled)] == [True, True, False]
        world.check()


def test_a_server_that_loses_every_answer_is_not_fed_for_ever(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_before@3-99"), chunks=3) as world:
        summary = world.submit()
        assert summary.exit_code == Exit.HELD
        assert world.submits == 3 + 5
        world.check()


def test_with_hold_nothing_is_asked_and_a_later_command_settles_it(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@3", "submit:reset_before@5")) as world:
        assert world.hold().exit_code == Exit.HELD
        assert not world.transport.sent(RequestKind.LIST)
        assert world.hold().exit_code == Exit.HELD
        assert world.submits == 6
        assert world.seen(RunFinishedBefore)
        summary = world.reconcile()
        assert (summary.ids["held"], summary.ids["pending"], summary.ids["accepted"]) == (0, 10, 50)
        assert world.submits == 6  # reconciling submits nothing
        assert world.check() == summary.as_dict()
        assert world.submit(sources=[]).exit_code == Exit.ACCEPTED
        assert world.submits == 7
        world.check()


def test_a_finished_run_with_held_chunks_that_is_given_again_settles_them(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@3")) as world:
        assert world.hold().exit_code == Exit.HELD
        summary = world.submit()
        assert summary.exit_code == Exit.ACCEPTED
        assert world.submits == 6
        world.check()
        requests = len(world.transport.requests)
        assert world.submit().exit_code == Exit.ACCEPTED
        assert len(world.transport.requests) == requests  # there is nothing left to ask


@pytest.mark.parametrize("options", [{"results_shape": "link"}, {"results_packing": "zip"}, {"results_packing": "gzip"},
    {"list_newest_first": True}, {"list_status": "number"}, {"list_zone_h": 13.0}, {"list_zone_h": -12.0},
    {"list_dates": "zoned", "list_type": "x"}])  # fmt: skip
@pytest.mark.parametrize("accept", ["json", "xml"])
def test_lists_and_results_of_any_shape_do(tmp_path: Path, options: dict[str, Any], accept: Any) -> None:
    service = config("submit:reset_after@2", "submit:reset_before@5", **options)
    with World(tmp_path, service, settings=replace(SETTINGS, accept=accept)) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 7
        world.check()


def test_long_lists_are_read_to_their_end(tmp_path: Path) -> None:
    faults = ("submit:reset_after@3", "submit:reset_before@150", "submit:reset_after@170")
    with World(tmp_path, config(*faults, list_newest_first=True), chunks=180) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 181
        world.check()


def test_a_record_of_an_adopted_job_is_delivered_once_and_says_what_it_is(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@3")) as world:
        world.submit()
        (told,) = world.seen(ChunkSettled)
        (record,) = [one for one in world.records if one["chunk"] == told.chunk]
        assert (record["job_id"], record["attempt"], record["ids"]) == (told.job_id, 1, 10)
        assert world.submit().exit_code == Exit.ACCEPTED
        assert len(world.records) == 6


# --- hostile servers ---


def test_jobs_of_others_of_our_size_are_never_adopted(tmp_path: Path) -> None:
    service = config(
        "submit:reset_before@2", "submit:reset_after@5", foreign_per_submit=2.0, foreign_per_page=0.3
    )
    with World(tmp_path, service) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 7
        world.check()


def test_jobs_of_others_without_readable_results_keep_a_chunk_held(tmp_path: Path) -> None:
    service = config("submit:reset_before@2", foreign_per_submit=1.0, job_failure_rate=0.4, seed=3)
    with World(tmp_path, service) as world:
        summary = world.submit()
        assert summary.exit_code == Exit.HELD
        assert world.submits == 6
        assert "may be its: its results cannot be read" in " ".join(world.findings.values())
        world.check()


def test_a_job_of_others_with_ids_of_ours_is_not_ours(tmp_path: Path) -> None:
    service = config("submit:reset_before@2", foreign_per_submit=1.0, foreign_shared=3, results_missing=0.2)
    with World(tmp_path, service) as world:
        summary = world.submit()
        assert summary.ids["held"] in (0, 10)
        world.check()


def test_a_small_job_with_nothing_but_ids_of_ours_keeps_the_chunk_held(tmp_path: Path) -> None:
    service = config("submit:reset_before@2", foreign_per_submit=1.0, foreign_shared=4, foreign_sizes=(4,))
    with World(tmp_path, service) as world:
        assert world.submit().exit_code == Exit.HELD
        assert world.submits == 6
        assert "are not proof enough" in " ".join(world.findings.values())
        world.check()


def test_a_job_of_our_own_that_failed_keeps_the_chunk_held(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@2", job_failure_rate=1.0)) as world:
        assert world.submit().exit_code == Exit.HELD
        assert world.submits == 6
        (line,) = world.held
        assert "failed" in line["finding"]
        world.check()


def test_results_that_leave_out_ids_are_enough_together_with_the_size(tmp_path: Path) -> None:
    service = config("submit:reset_after@2", "submit:reset_before@4", results_missing=0.2, seed=5)
    with World(tmp_path, service) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 7
        world.check()


def test_results_with_an_unknown_column_of_ids_settle_nothing(tmp_path: Path) -> None:
    service = config("submit:reset_after@2", "submit:reset_before@4", results_id_column="person")
    with World(tmp_path, service) as world:
        summary = world.submit()
        assert (summary.exit_code, summary.ids["held"]) == (Exit.HELD, 20)
        assert world.submits == 6
        world.check()


def test_results_under_other_ids_are_seen_through_by_a_job_of_our_own(tmp_path: Path) -> None:
    """Were they believed, the job would be somebody else's, and its ids paid for twice."""
    with World(tmp_path, config("submit:reset_after@2")) as world:
        handle = world.service.handle

        def renumbered(request: Any, now: float) -> Any:
            reply = handle(request, now)
            if request.path.endswith("/results") and reply.status == 200:
                rows = reply.body.split(b"\r\n")
                body = b"\r\n".join([rows[0], *(b"77" + row if row else row for row in rows[1:])])
                return replace(reply, body=body)
            return reply

        world.service.handle = renumbered
        summary = world.submit()
        assert (summary.exit_code, summary.ids["held"]) == (Exit.HELD, 10)
        assert world.submits == 6
        assert "hold other ids than it was made of" in " ".join(world.findings.values())
        world.service.handle = handle
        world.check()


def test_a_list_that_hides_our_kind_of_job_proves_nothing(tmp_path: Path) -> None:
    service = config("submit:reset_after@2", "submit:reset_before@4", list_hides_type=True)
    with World(tmp_path, service) as world:
        summary = world.submit()
        assert (summary.exit_code, summary.ids["held"]) == (Exit.HELD, 20)
        assert world.submits == 6
        assert all("does not show job" in one for one in world.findings.values())
        world.check()


def test_a_list_that_keeps_too_few_jobs_proves_nothing(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_before@2", list_keeps=3)) as world:
        assert world.submit().exit_code == Exit.HELD
        assert world.submits == 6
        world.check()


@pytest.mark.parametrize("lag_s", [60.0, 599.0, 601.0, 1_500.0, 7_200.0])
@pytest.mark.parametrize("fault", ["reset_after", "reset_before", "reset_late"])
def test_a_list_that_lags_costs_time_or_an_answer_but_no_second_payment(
    tmp_path: Path, lag_s: float, fault: str
) -> None:
    with World(tmp_path, config(f"submit:{fault}@2", list_lag_s=lag_s)) as world:
        world.submit()
        world.check()
        assert world.submits == 6 + (fault == "reset_before") * (not world.held)


def test_a_job_that_appears_minutes_later_is_adopted(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_late@2", late_s=500.0)) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 6
        world.check()


def test_the_first_answers_of_a_run_may_all_be_lost(tmp_path: Path) -> None:
    """Then there is no job by which it shows that the list can be trusted; what is there is adopted all the same."""
    with World(tmp_path, config("submit:reset_after@1", "submit:reset_before@2-9"), chunks=2) as world:
        summary = world.submit()
        assert (summary.exit_code, summary.ids["accepted"], summary.ids["held"]) == (Exit.HELD, 10, 10)
        assert world.submits == 2
        assert "no job of this run was accepted" in " ".join(world.findings.values())
        world.check()


def test_other_runs_with_the_same_ids_on_the_account_are_known_by_the_baseline(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_before@8")) as world:
        first = world.go(world.engine(run_dir=tmp_path / "first").run())
        assert first.exit_code == Exit.ACCEPTED
        summary = world.submit()
        assert summary.exit_code == Exit.ACCEPTED
        assert world.submits == 6 + 7
        jobs = {line["job_id"] for line in json_lines(tmp_path / "first" / "jobs.jsonl")}
        assert not jobs & {record["job_id"] for record in world.records}


def test_a_job_with_our_ids_that_somebody_made_besides_ours_leaves_the_choice_to_a_person(
    tmp_path: Path,
) -> None:
    with World(tmp_path, config("submit:reset_after@2")) as world:
        world.hold()
        (line,) = world.held
        ids = range(int(line["first_id"]), int(line["last_id"]) + 1)
        world.service.add_foreign(ids, world.clock.epoch_utc + 1)
        assert world.submit().exit_code == Exit.HELD
        assert "all fit it" in world.findings[line["chunk"]]
        assert world.submits == 6
        world.check()


def test_with_exclusive_a_size_is_enough_when_results_cannot_be_had(tmp_path: Path) -> None:
    service = config("submit:reset_after@5", results_id_column="person")
    with World(tmp_path, service, chunks=5) as world:
        world.source.write_text("\n".join(map(str, world.ids[:-3])) + "\n")
        world.ids = world.ids[:-3]
        settings = {"exclusive": True, "workers": 1}
        summary = world.submit(**settings)
        assert summary.exit_code == Exit.ACCEPTED
        (told,) = world.seen(ChunkSettled)
        assert "only job of 7 ids" in told.reason
        world.check()


def test_with_exclusive_a_size_is_not_enough_once_a_person_took_a_risk(tmp_path: Path) -> None:
    """The first job of that chunk may be there too, of the same size."""
    service = config("submit:reset_after@2", "submit:reset_before@7-99", results_id_column="person")
    with World(tmp_path, service, settings=ALONE) as world:
        world.hold()
        (line,) = world.held
        world.reconcile(Orders(resubmit=[line["chunk"]]))
        summary = world.submit(exclusive=True)
        assert summary.exit_code == Exit.HELD
        assert not [told for told in world.seen(ChunkSettled) if told.job_id]


def test_the_webhooks_call_is_enough_without_results(tmp_path: Path) -> None:
    service = config("submit:reset_after@2", results_id_column="person")
    with World(tmp_path, service) as world:
        world.hold()
        (line,) = world.held
        run = read_run(world.run_dir).run
        assert run is not None
        (job_id,) = world.jobs_nobody_knows()
        call = f'GET /hook?bulkjobs={nonce_of(run.nonce_key, line["chunk"])} {{"jobId": "{job_id}"}}'
        summary = world.reconcile(Orders(calls=[b"noise", call.encode()]))
        assert summary.exit_code == Exit.ACCEPTED
        assert world.submits == 6
        world.check()


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_server_does_nothing_is_paid_twice_and_nothing_lost(tmp_path: Path, seed: int) -> None:
    """Each seed is another hostile server; a failure shows it."""
    draw = random.Random(seed)
    faults = []
    for number in range(1, 9):
        if draw.random() < 0.4:
            what = draw.choice(["reset_after", "reset_before", "reset_late", "http502_after", "cut_after", "close_before",
                                "html_before", "error200_after", "slots_before"])  # fmt: skip
            faults.append(f"submit:{what}@{number}")
    for kind in ("list", "results", "status"):
        if draw.random() < 0.3:
            faults.append(
                f"{kind}:{draw.choice(['reset_after', 'html_after', 'http503_before', 'cut_after'])}=0.2"
            )
    service = config(
        *faults,
        seed=seed,
        late_s=draw.choice([30.0, 240.0, 590.0]),
        foreign_per_submit=draw.choice([0.0, 0.0, 0.5, 2.0]),
        foreign_per_page=draw.choice([0.0, 0.0, 0.4]),
        foreign_shared=draw.choice([0, 0, 1, 3]),
        foreign_sizes=draw.choice([(), (), (3,), (10, 25)]),
        list_lag_s=draw.choice([0.0, 0.0, 100.0, 900.0]),
        list_newest_first=draw.random() < 0.5,
        list_keeps=draw.choice([None, None, None, 8]),
        list_hides_type=draw.random() < 0.05,
        list_zone_h=draw.choice([0.0, -11.0, 13.0]),
        results_shape=draw.choice(["file", "link"]),
        results_missing=draw.choice([0.0, 0.0, 0.1]),
        job_failure_rate=draw.choice([0.0, 0.0, 0.1]),
        job_time=draw.choice([Span(min_s=0.0, max_s=0.0), Span(min_s=30.0, max_s=2_000.0)]),
        queue_time=draw.choice([Span(min_s=0.0, max_s=0.0), Span(min_s=0.0, max_s=900.0)]),
        latency=draw.choice([Span(min_s=0.0, max_s=0.0), Span(min_s=0.1, max_s=100.0)]),
        rate=draw.choice([None, Limit(count=20, window_s=300.0)]),
    )
    with World(tmp_path, service, chunks=5) as world:
        world.submit(workers=draw.choice([1, 3]))
        world.check()
        if draw.random() < 0.4:
            world.submit()
            world.check()


# --- the jobs there are before the run ---


def test_the_jobs_there_were_before_the_first_submission_are_remembered(tmp_path: Path) -> None:
    with World(tmp_path, config()) as world:
        theirs = [world.service.add_foreign([number], world.clock.epoch_utc) for number in range(1, 60)]
        world.submit()

        async def baseline() -> Any:
            async with await Ledger.open(world.run_dir, clock=world.clock) as ledger:
                return await ledger.baseline()

        assert world.go(baseline()) == frozenset(theirs)
        assert world.transport.requests[0].kind is RequestKind.LIST
        assert world.transport.requests[-1].kind is RequestKind.SUBMIT


@pytest.mark.parametrize(
    "fault", ["http503_before", "html_after", "error200_after", "cut_after", "reset_before"]
)
def test_a_list_that_cannot_be_read_before_the_run_is_done_without(tmp_path: Path, fault: str) -> None:
    with World(tmp_path, config(f"list:{fault}@1-3", "submit:reset_after@2")) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert len(world.seen(BaselineMissing)) == 1
        world.check()


def test_a_list_that_answers_at_the_second_try_is_remembered(tmp_path: Path) -> None:
    with World(tmp_path, config("list:http503_before@1")) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert not world.seen(BaselineMissing)


def test_without_the_jobs_before_the_run_a_size_is_not_enough_even_with_exclusive(tmp_path: Path) -> None:
    service = config("list:http503_before@1-3", "submit:reset_after@2", results_id_column="person")
    with World(tmp_path, service, chunks=2) as world:
        assert world.submit(exclusive=True, workers=1).exit_code == Exit.HELD


# --- sessions that end in the middle ---


@pytest.mark.parametrize("asked", range(1, 7))
@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_a_signal_at_any_request_of_reconciling_ends_it_and_the_next_session_goes_on(
    tmp_path: Path, asked: int, fault: str
) -> None:
    with World(tmp_path, config(f"submit:{fault}@2")) as world:
        world.hold()
        count = 0

        async def on_leaving(request: Request) -> None:
            nonlocal count
            count += 1
            if count == asked:
                engine.drain("SIGTERM", Exit.SIGTERM)

        world.new_transport(on_leaving)
        engine = world.engine()
        summary = world.go(engine.run())
        if count < asked:
            assert summary.exit_code == Exit.ACCEPTED
            return
        assert summary.exit_code in (Exit.SIGTERM, Exit.HELD, Exit.ACCEPTED)
        world.check()
        world.new_transport()
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 6 + (fault == "reset_before")
        world.check()


@pytest.mark.parametrize("wait", [1, 2])
def test_a_signal_in_a_wait_ends_it_at_once_and_keeps_what_was_found(tmp_path: Path, wait: int) -> None:
    with World(tmp_path, config("submit:reset_before@2")) as world:
        waits = 0

        def observe(event: Event) -> None:
            nonlocal waits
            if isinstance(event, ReconcileWaits):
                waits += 1
                if waits == wait:
                    asyncio.get_running_loop().call_later(5.0, engine.drain, "SIGTERM", Exit.SIGTERM)

        engine = world.engine(observe=observe)
        summary = world.go(engine.run())
        assert (summary.exit_code, summary.ids["held"]) == (Exit.HELD, 10)
        assert world.clock.epoch_utc < VirtualClock().epoch_utc + wait * SETTLE_S + 120
        assert world.submit().exit_code == Exit.ACCEPTED
        world.check()


def test_a_session_cut_short_keeps_an_earlier_finding(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@2", results_id_column="person")) as world:
        world.submit()
        before = world.findings
        assert "cannot be read" in " ".join(before.values())

        def observe(event: Event) -> None:
            if isinstance(event, ReconcileWaits):
                engine.drain("SIGTERM", Exit.SIGTERM)

        engine = world.engine(observe=observe)
        assert world.go(engine.run()).exit_code == Exit.HELD
        assert world.findings == before


@pytest.mark.parametrize("asked", range(1, 9))
@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_a_crash_at_any_request_of_reconciling_costs_nothing(tmp_path: Path, asked: int, fault: str) -> None:
    with World(tmp_path, config(f"submit:{fault}@2")) as world:
        world.hold()
        count = 0

        def when(request: Request) -> bool:
            nonlocal count
            count += 1
            return count == asked

        world.go(crash(world, world.engine(), when=when))
        assert world.submit().exit_code == Exit.ACCEPTED
        world.check()
        assert world.submits - 6 <= 2 * (fault == "reset_before")


@pytest.mark.parametrize("moment", ["settled", "stays"])
@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_a_crash_between_settling_and_what_follows_costs_nothing(
    tmp_path: Path, fault: str, moment: str
) -> None:
    """Adopted and not delivered; planned and not sent."""
    with World(tmp_path, config(f"submit:{fault}@2", "submit:reset_before@4")) as world:
        world.hold()
        image = world.tmp_path / "image"

        async def dying() -> bool:
            crashed = asyncio.Event()

            def observe(event: Event) -> None:
                kind = ChunkSettled if moment == "settled" else ReconcileWaits
                if isinstance(event, kind) and not crashed.is_set():
                    crash_image(world.run_dir, image)
                    crashed.set()

            return await _until(world, world.engine(observe=observe), crashed, image)

        assert world.go(dying())
        assert world.submit().exit_code == Exit.ACCEPTED
        assert len({record["chunk"] for record in world.records}) == len(world.records) == 6
        world.check()


def test_a_process_that_died_while_sending_is_settled_by_the_next(tmp_path: Path) -> None:
    with World(tmp_path, config()) as world:
        submits = 0

        def when(request: Request) -> bool:
            nonlocal submits
            submits += request.kind is RequestKind.SUBMIT
            return submits == 4

        assert world.go(crash(world, world.engine(workers=1), when=when))
        summary = world.submit()
        assert summary.exit_code == Exit.ACCEPTED
        assert len(world.seen(ChunkSettled)) == 1
        world.check()


def test_an_attempt_whose_process_died_is_over_when_the_next_session_begins(tmp_path: Path) -> None:
    """Its answer may have been waited for longer than this session would wait."""
    with World(tmp_path, config()) as world:
        world.go(
            crash(world, world.engine(workers=1), when=lambda request: request.kind is RequestKind.SUBMIT)
        )
        world.clock.epoch_utc += 3_000
        began = world.clock.epoch_utc
        world.submit(request_timeout_s=30.0)
        first = world.seen(ReconcileWaits)[0]
        assert first.until_utc >= began + SETTLE_S


# --- sources ---


async def numbers(ids: range) -> AsyncIterator[int]:
    for one in ids:
        yield one


def test_the_ids_of_a_stream_are_found_in_its_copy(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@2", "submit:reset_before@5")) as world:
        (sources,) = [open_sources([numbers(world.ids)])]
        assert world.hold(sources=list(sources)).exit_code == Exit.HELD
        summary = world.submit(sources=[])
        assert summary.exit_code == Exit.ACCEPTED
        assert world.submits == 7
        world.check()


@pytest.mark.parametrize("change", ["gone", "other ids", "fewer ids"])
def test_a_source_that_is_no_longer_what_it_was_settles_nothing(tmp_path: Path, change: str) -> None:
    with World(tmp_path, config("submit:reset_before@2", "submit:reset_after@5")) as world:
        world.hold()
        before, kept = world.held, world.source.read_bytes()
        if change == "gone":
            world.source.unlink()
        else:
            text = kept.replace(b"5", b"6") if change == "other ids" else kept[: len(kept) // 3]
            world.source.write_bytes(text)
        with suppress(SourceError, SourceChanged, ConfigError):
            summary = world.reconcile()
            assert summary.exit_code == Exit.USAGE
        assert world.submits == 6
        world.source.write_bytes(kept)
        assert [line["chunk"] for line in world.held] == [line["chunk"] for line in before]
        assert world.submit().exit_code in (Exit.ACCEPTED, Exit.HELD)
        world.check()


# --- what a person says ---


def held_with_a_job(world: World) -> tuple[int, str]:
    world.hold()
    (line,) = world.held
    (job_id,) = world.jobs_nobody_knows()
    return int(line["chunk"]), job_id


def test_a_person_can_have_a_job_adopted(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@2", results_id_column="person")) as world:
        chunk, job_id = held_with_a_job(world)
        summary = world.reconcile(Orders(adopt={chunk: job_id}))
        assert summary.exit_code == Exit.ACCEPTED
        assert not world.seen(ReconcileWaits)
        assert [record["job_id"] for record in world.records if record["chunk"] == chunk] == [job_id]
        world.check()


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("nobody's", "does not confirm"),
        ("another chunk's", "job of another chunk"),
        ("older", "before the run began"),
    ],
)
def test_a_job_that_cannot_be_the_chunks_is_not_adopted(tmp_path: Path, which: str, says: str) -> None:
    with World(tmp_path, config("submit:reset_after@2")) as world:
        older = world.service.add_foreign([1], world.clock.epoch_utc)

        def observe(event: Event) -> None:
            if isinstance(event, ReconcileWaits):
                engine.drain("enough", Exit.SIGTERM)

        engine = world.engine(observe=observe)
        world.go(engine.run())  # with a baseline, and held
        (line,) = world.held
        job_id = {"nobody's": "nosuchjob", "another chunk's": world.records[0]["job_id"], "older": older}[
            which
        ]
        summary = world.reconcile(Orders(adopt={line["chunk"]: job_id}))
        assert summary.exit_code == Exit.USAGE
        assert says in " ".join(event.reason for event in world.seen(Stopping))
        assert [one["chunk"] for one in world.held] == [line["chunk"]]
        assert world.submit().exit_code == Exit.ACCEPTED
        world.check()


@pytest.mark.parametrize("orders", [Orders(adopt={99: "a"}), Orders(resubmit=[99]), Orders(adopt={1: "a"})])
def test_only_a_held_chunk_can_be_settled(tmp_path: Path, orders: Orders) -> None:
    with World(tmp_path, config("submit:reset_after@2"), settings=ALONE) as world:
        world.hold()
        assert world.reconcile(orders).exit_code == Exit.USAGE
        assert "is not held" in " ".join(event.reason for event in world.seen(Stopping))
        assert len(world.held) == 1


def test_a_person_can_take_the_risk_and_it_is_on_record(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_before@2", results_id_column="person")) as world:
        world.hold()
        (line,) = world.held
        summary = world.reconcile(Orders(resubmit=[line["chunk"]]))
        assert summary.ids["pending"] == 10
        assert world.submits == 6
        assert world.submit().exit_code == Exit.ACCEPTED
        (file,) = (world.run_dir / "duplicate-risk").iterdir()
        assert len(file.read_text().split()) == 10
        assert world.submits == 7
        world.check()


def test_a_run_without_held_chunks_has_nothing_to_reconcile(tmp_path: Path) -> None:
    with World(tmp_path, config()) as world:
        world.submit()
        requests = len(world.transport.requests)
        assert world.reconcile().exit_code == Exit.ACCEPTED
        assert len(world.transport.requests) == requests


def test_reconciling_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with World(tmp_path, config()) as world, pytest.raises(ConfigError, match="no run"):
        world.reconcile()


def test_two_at_the_same_time_are_one_too_many(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@2")) as world:
        world.hold()

        async def both() -> list[Any]:
            engines = [world.engine(sources=[]) for _ in range(2)]
            return await asyncio.gather(*(one.settle(Orders()) for one in engines), return_exceptions=True)

        results = world.go(both())
        assert sorted(type(one).__name__ for one in results) == [LedgerLocked.__name__, RunSummary.__name__]
        world.check()


# --- the account ---


def test_a_lock_out_in_the_middle_is_waited_out(tmp_path: Path) -> None:
    """The listing that met it says little of how far the list lags: the proof waits for as long."""
    service = config("submit:reset_before@2", "list:lockout_before@3")
    with World(tmp_path, service) as world:
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.service.totals()["requests_during_lockout"] == 0
        world.check()


def test_a_lock_out_from_the_last_session_is_waited_out_first(tmp_path: Path) -> None:
    service = config("submit:reset_after@2", "submit:lockout_before@6")
    with World(tmp_path, service) as world:
        engine = world.engine(on_unknown="hold", observe=lambda event: _drain_on_lockout(engine, event))
        world.go(engine.run())
        assert world.reconcile().ids["held"] == 0
        assert world.service.totals()["requests_during_lockout"] == 0
        world.check()


def _drain_on_lockout(engine: Engine, event: Event) -> None:
    if type(event).__name__ == "LockedOut":
        engine.drain("enough", Exit.SIGTERM)


def test_a_token_that_the_server_does_not_take_ends_it_and_keeps_what_is_held(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@2")) as world:
        world.hold()
        summary = world.reconcile(access_token=Secret("another-token"))
        assert (summary.exit_code, summary.ids["held"]) == (Exit.STOPPED, 10)


def test_a_server_that_is_not_there_leaves_chunks_held_after_some_looks(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@2")) as world:
        world.hold()
        handle = world.transport.request

        async def unreachable(request: Request, **_: Any) -> Evidence:
            now = world.clock.utc()
            return Evidence(
                phase=Phase.STARTED, started_utc=now, ended_utc=now, error="ConnectionRefusedError"
            )

        world.transport.request = unreachable
        summary = world.reconcile()
        world.transport.request = handle
        assert (summary.exit_code, summary.ids["held"]) == (Exit.HELD, 10)
        assert "ConnectionRefusedError" in " ".join(world.findings.values())
        assert world.clock.epoch_utc <= VirtualClock().epoch_utc + 5 * SETTLE_S
        assert world.reconcile().exit_code == Exit.ACCEPTED


def test_an_id_of_an_adopted_job_that_comes_again_for_another_chunk_is_not_believed(tmp_path: Path) -> None:
    """A contradiction: that chunk is held, and what it was really made into is found by its ids."""
    faults = ("submit:reset_after@5", "submit:reset_before@6", "submit:reused_after@7")
    with World(tmp_path, config(*faults), settings=ALONE) as world:
        summary = world.submit()
        assert summary.exit_code in (Exit.ACCEPTED, Exit.HELD)
        jobs = [record["job_id"] for record in world.records]
        assert len(set(jobs)) == len(jobs)
        assert world.submits == 7
        world.check()


def test_the_first_chunk_of_a_new_account_is_not_sent_again_because_nothing_older_is_listed(
    tmp_path: Path,
) -> None:
    """A list that keeps only the newest jobs would look the same."""
    with World(tmp_path, config("submit:reset_before@1"), settings=ALONE) as world:
        summary = world.submit()
        assert (summary.exit_code, summary.ids["held"]) == (Exit.HELD, 10)
        assert "may not reach back so far" in " ".join(world.findings.values())
        assert world.submits == 6
        world.check()


def test_a_job_from_before_the_run_shows_that_the_list_reaches_back(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_before@1"), settings=ALONE) as world:
        world.service.add_foreign([1], world.clock.epoch_utc)
        assert world.submit().exit_code == Exit.ACCEPTED
        assert world.submits == 7
        world.check()


def test_a_clock_that_jumps_ahead_during_a_wait_does_not_shorten_it(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_late@2", late_s=590.0)) as world:

        def observe(event: Event) -> None:
            if isinstance(event, ReconcileWaits) and len(world.seen(ReconcileWaits)) == 1:
                world.clock.epoch_utc += 7_200

        assert world.go(world.engine(observe=observe).run()).exit_code == Exit.ACCEPTED
        assert world.submits == 6


def test_what_was_settled_cannot_be_settled_again(tmp_path: Path) -> None:
    with World(tmp_path, config("submit:reset_after@2")) as world:
        chunk, job_id = held_with_a_job(world)
        world.reconcile(Orders(adopt={chunk: job_id}))
        requests = len(world.transport.requests)
        world.reconcile(Orders(adopt={chunk: job_id}))
        assert len(world.transport.requests) == requests
        assert len(world.records) == 6
        world.check()
