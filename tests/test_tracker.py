"""The life of a job after its acceptance: only its seen end frees its slot, and asking harms nobody."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bulkjobs.account.auth import GivenToken
from bulkjobs.account.gate import Gate
from bulkjobs.endpoints import endpoint_named
from bulkjobs.events import Event, JobChanged, PollFailed
from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.ledger import Ledger, OpenJob
from bulkjobs.model import (
    Accepted,
    Chunk,
    Evidence,
    JobId,
    JobState,
    Phase,
    Request,
    RequestKind,
    Tally,
)
from bulkjobs.polling.plan import Question
from bulkjobs.settings import Rate, Secret
from bulkjobs.testing import EPOCH_UTC, FakeTransport, VirtualClock, answered, lost, run_virtual
from bulkjobs.throttle import Throttle
from bulkjobs.tracker import Tracker

POLL_S = 5.0


def said(job_id: str, word: str) -> Evidence:
    return answered(200, f'{{"jobId": "{job_id}", "status": "{word}", "type": "contact"}}'.encode())


def job_of(request: Request) -> str:
    return request.url.rpartition("/")[2]


class Post:
    """A tracker with everything around it real but the network. Jobs are known to ledger and gate."""

    def __init__(self, ledger: Ledger, handler: Callable[[Request], Any], **options: Any) -> None:
        self.ledger = ledger
        self.clock = VirtualClock()
        self.asked: defaultdict[str, list[float]] = defaultdict(list)
        self.events: list[Event] = []
        self.halt = Halt()

        def answer(request: Request) -> Any:
            self.asked[job_of(request)].append(now())
            return handler(request)

        self.transport = FakeTransport(answer, clock=self.clock)
        self.gate = Gate(
            Throttle(
                rate=options.get("rate"), lockout_s=300.0, max_active_jobs=options.get("max_active_jobs", 2)
            ),
            pace=None,
            clock=self.clock,
            observer=self.events.append,
            on_lockout=lambda *_: None,
            on_limit=lambda _: None,
        )
        self.tracker = Tracker(
            endpoint_named("contacts"),
            base_url="https://host/api/v1",
            accept="json",
            poll_s=options.get("poll_s", POLL_S),
            gate=self.gate,
            auth=GivenToken(Secret("token"), self.events.append),
            transport=self.transport,
            ledger=ledger,
            clock=self.clock,
            halt=self.halt,
            emit=self.events.append,
        )

    async def accept(self, ordinal: int, job: str) -> None:
        body = str(ordinal).encode()
        self.ledger.plan(
            Chunk(
                ordinal=ordinal,
                body=body,
                ids=1,
                digest=hashlib.sha256(body).hexdigest(),
                first_id=str(ordinal),
                last_id=str(ordinal),
                source="ids",
                line=ordinal,
                tally=Tally(),
            )
        )
        await self.ledger.begin_attempt(ordinal, 1)
        utc = self.clock.utc()
        evidence = Evidence(phase=Phase.COMPLETE, started_utc=utc, ended_utc=utc, status=200)
        verdict = Accepted(job_id=JobId(job), state=JobState.ACCEPTED, job_type="contacts")
        with await self.gate.admit(RequestKind.SUBMIT) as permit:
            await self.ledger.end_attempt(ordinal, 1, evidence, verdict)
            permit.job_opened(job)
        self.tracker.add(job)

    async def free_slots(self) -> bool:
        """Tells whether a submit would be let through now."""
        waiting = asyncio.create_task(self.gate.admit(RequestKind.SUBMIT))
        await asyncio.sleep(0.01)
        if waiting.done():
            with waiting.result() as permit:
                permit.not_sent()
            return True
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        return False

    def seen(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def open_jobs(self) -> dict[str, JobState]:
        return {job.job_id: job.state for job in (await self.ledger.account_state(0.0)).open_jobs}


def now() -> float:
    return asyncio.get_running_loop().time()


def on(
    folder: Path,
    handler: Callable[[Request], Any],
    test: Callable[[Post], Coroutine[Any, Any, None]],
    **options: Any,
) -> None:
    async def main() -> None:
        async with await Ledger.open(folder / "run", clock=VirtualClock()) as ledger:
            await ledger.create_run({"endpoint": "contacts"})
            await ledger.begin_session()
            post = Post(ledger, handler, **options)
            tracking = asyncio.create_task(post.tracker.run())
            try:
                await test(post)
            finally:
                tracking.cancel()
                with suppress(asyncio.CancelledError):
                    await tracking

    run_virtual(main())


def test_a_question_outlives_the_jobs_that_ended_while_it_waited(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        asked = post.tracker._request(Question(jobs=("gone", "a"), page=1), "token")
        assert "page=1" in asked.url
        await post.tracker._ask(Question(jobs=("gone",), page=1), asyncio.Event())
        await post.tracker._ask(Question(jobs=("gone",)), asyncio.Event())
        assert list(await post.open_jobs()) == ["a"]

    on(tmp_path, lambda _: answered(200, b'{"bulkJobs": []}'), test)


# --- what frees a slot ---


@pytest.mark.parametrize("word", ["finished", "failed", "aborted", "FINISHED"])
def test_the_end_of_a_job_frees_its_slot(tmp_path: Path, word: str) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        assert not await post.free_slots()
        await asyncio.sleep(POLL_S + 1)
        assert await post.free_slots()
        assert [event.word for event in post.seen(JobChanged)] == [word]
        assert await post.open_jobs() == {}
        await asyncio.sleep(3600)
        assert len(post.asked["a"]) == 1

    on(tmp_path, lambda request: said(job_of(request), word), test, max_active_jobs=1)


@pytest.mark.parametrize("word", ["accepted", "processing", "queued for review"])
def test_any_other_state_frees_nothing(tmp_path: Path, word: str) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(3600)
        assert not await post.free_slots()
        assert len(post.seen(JobChanged)) == (word != "accepted")

    on(tmp_path, lambda request: said(job_of(request), word), test, max_active_jobs=1)


FAILURES = {
    "no answer": lost("TimeoutError"),
    "no connection": lost("ClientConnectorError", phase=Phase.STARTED),
    "500": answered(500, b"<html>"),
    "403": answered(403),
    "a page": answered(200, b"<html>Sign in</html>"),
    "an error": answered(200, b'{"message": "Something went wrong."}'),
    "another job": said("somebody-elses", "finished"),
    "nothing": answered(200, b""),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_a_request_that_fails_says_nothing_about_the_job(tmp_path: Path, failure: Evidence) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(60.0)
        assert not await post.free_slots()
        assert await post.open_jobs() == {"a": JobState.ACCEPTED}
        assert len(post.seen(PollFailed)) == len(post.asked["a"]) > 3
        assert not post.halt.pulled
        answers.append(said("a", "finished"))
        await asyncio.sleep(120.0)
        assert await post.free_slots()

    answers = [failure]
    on(tmp_path, lambda _: answers[-1], test, max_active_jobs=1)


def test_a_job_that_is_unknown_twice_in_a_row_runs_no_more(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(POLL_S + 1)
        assert not await post.free_slots()
        await asyncio.sleep(60.0)
        assert await post.free_slots()
        assert len(post.asked["a"]) == 2
        assert post.seen(JobChanged)[-1].word == "not found"
        assert list(await post.open_jobs()) == ["a"]  # no end was seen: the next session asks again

    on(tmp_path, lambda _: answered(404), test, max_active_jobs=1)


def test_a_job_that_is_unknown_now_and_then_keeps_its_slot(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(600.0)
        assert len(post.asked["a"]) > 10
        assert not await post.free_slots()

    def every_other(_: Request) -> Evidence:
        nonlocal count
        count += 1
        return answered(404) if count % 2 else said("a", "processing")

    count = 0
    on(tmp_path, every_other, test, max_active_jobs=1)


# --- when is asked ---


@pytest.mark.parametrize("poll_s", [5.0, 30.0])
def test_the_least_time_between_two_questions_is_obeyed_and_they_become_rarer_with_age(
    tmp_path: Path, poll_s: float
) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(7200)
        times = post.asked["a"]
        gaps = [later - before for before, later in pairwise(times)]
        assert times[0] == pytest.approx(poll_s, abs=0.1)
        assert min(gaps) >= poll_s - 0.01
        assert gaps[0] == pytest.approx(poll_s, abs=0.1)
        assert 100.0 < gaps[-1] < 7200 / 20

    on(tmp_path, lambda request: said(job_of(request), "processing"), test, poll_s=poll_s)


@pytest.mark.parametrize("job_s", [1.0, 60.0, 7200.0])
def test_the_end_of_the_very_first_job_is_seen_soon_however_long_it_takes(
    tmp_path: Path, job_s: float
) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(1.06 * job_s + 0.1)
        assert await post.free_slots()
        assert len(post.asked["a"]) < 250

    on(
        tmp_path,
        lambda request: said(job_of(request), "finished" if now() >= job_s else "processing"),
        test,
        poll_s=None,
        max_active_jobs=1,
    )


def test_while_nothing_is_known_all_jobs_together_take_at_most_half_of_the_rate(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        for number in range(1, 31):
            await post.accept(number, f"j{number}")
        await asyncio.sleep(3 * 3600)
        windows = 3 * 3600 / 300.0
        asked = {job: times for job, times in post.asked.items() if not job.startswith("jobs?")}
        assert sum(map(len, post.asked.values())) <= 20 * windows + 30
        assert min(map(len, asked.values())) > 10

    on(
        tmp_path,
        lambda request: said(job_of(request), "processing"),
        test,
        rate=Rate(count=40, period_s=300.0),
        max_active_jobs=None,
    )


def page_of(jobs: dict[str, str]) -> Evidence:
    rows = ", ".join(f'{{"jobId": "{job}", "jobStatus": "{word}"}}' for job, word in jobs.items())
    return answered(200, f'{{"bulkJobs": [{rows}]}}'.encode())


def is_page(request: Request) -> bool:
    return request.kind is RequestKind.LIST


def test_jobs_that_are_due_together_are_asked_for_with_one_page_of_the_list(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await post.accept(2, "b")
        await asyncio.sleep(POLL_S + 1)
        assert await post.free_slots()
        assert await post.open_jobs() == {}
        assert {event.job_id: event.word for event in post.seen(JobChanged)} == {
            "a": "finished",
            "b": "failed",
        }
        assert [request.kind for request in post.transport.requests] == [RequestKind.LIST]

    on(tmp_path, lambda _: page_of({"b": "failed", "x": "processing", "a": "finished"}), test)


@pytest.mark.parametrize(
    "page",
    [page_of({}), page_of({"x": "finished"}), answered(405), answered(200, b"<html>"), lost("TimeoutError")],
    ids=["empty", "hides ours", "405", "no list", "no answer"],
)
def test_a_page_that_does_not_show_a_job_says_nothing_of_it_and_it_is_asked_for_itself(
    tmp_path: Path, page: Evidence
) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await post.accept(2, "b")
        await asyncio.sleep(POLL_S + 1)
        assert await post.open_jobs() == {"a": JobState.PROCESSING, "b": JobState.PROCESSING}
        assert [len(post.asked[job]) for job in "ab"] == [1, 1]
        await asyncio.sleep(50.0)
        assert sum(map(is_page, post.transport.requests)) == 1  # the list is left alone for a while

    on(
        tmp_path,
        lambda request: page if is_page(request) else said(job_of(request), "processing"),
        test,
    )


def test_a_list_that_never_shows_an_end_is_found_out(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        for number in range(1, 9):
            await post.accept(number, f"j{number}")
        await asyncio.sleep(900.0)
        assert await post.open_jobs() == {}

    frozen = page_of({f"j{number}": "processing" for number in range(1, 9)})
    on(
        tmp_path,
        lambda request: (
            frozen if is_page(request) else said(job_of(request), "finished" if now() > 60 else "processing")
        ),
        test,
        max_active_jobs=None,
    )


def test_a_wall_clock_that_is_set_changes_nothing(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(60.0)
        before = len(post.asked["a"])
        post.clock.epoch_utc -= 7200.0
        await asyncio.sleep(60.0)
        post.clock.epoch_utc += 86_400.0
        await asyncio.sleep(60.0)
        assert before > 5
        assert 3 <= len(post.asked["a"]) - before <= before

    on(tmp_path, lambda request: said(job_of(request), "processing"), test, poll_s=None)


def test_what_earlier_sessions_saw_of_durations_saves_questions(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        post.tracker.resume([], [600.0] * 20)
        await post.accept(1, "a")
        await asyncio.sleep(560.0)
        assert len(post.asked["a"]) < 25
        await asyncio.sleep(60.0)
        assert await post.free_slots()

    on(
        tmp_path,
        lambda request: said(job_of(request), "finished" if now() > 590 else "processing"),
        test,
        poll_s=None,
        max_active_jobs=1,
    )


def test_an_ended_job_of_somebody_else_on_the_list_lets_a_submit_try_at_once(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        with await post.gate.admit(RequestKind.SUBMIT) as permit:
            permit.answered()
            post.gate.slots_full("2 jobs are already running.")
        waiting = asyncio.create_task(post.gate.admit(RequestKind.SUBMIT))
        await asyncio.sleep(4.0)
        assert not waiting.done()
        others.clear()
        await asyncio.sleep(0.9)
        with await waiting as permit:
            permit.not_sent()

    others = {"theirs": "processing"}
    on(
        tmp_path,
        lambda request: (
            page_of({"a": "processing"} | others) if is_page(request) else said("a", "processing")
        ),
        test,
        poll_s=60.0,
    )


def test_one_slow_answer_does_not_hold_up_the_other_jobs(tmp_path: Path) -> None:
    async def handler(request: Request) -> Evidence:
        if job_of(request) == "slow":
            await asyncio.sleep(250.0)
        return said(job_of(request), "finished")

    async def test(post: Post) -> None:
        await post.accept(1, "slow")
        await post.accept(2, "quick")
        await asyncio.sleep(20.0)
        assert list(await post.open_jobs()) == ["slow"]

    on(tmp_path, handler, test)


def test_a_job_has_few_questions_under_way_when_answers_are_slow(tmp_path: Path) -> None:
    async def handler(request: Request) -> Evidence:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(250.0)
        in_flight -= 1
        return said("a", "processing")

    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(3000.0)
        assert 1 <= most <= 4

    in_flight = most = 0
    on(tmp_path, handler, test, poll_s=None)


# --- resuming, tokens, the account ---


def test_jobs_of_an_earlier_session_are_asked_for_at_once(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        post.tracker.resume(
            [
                OpenJob(job_id=JobId(job), chunk=number, state=state, accepted_utc=EPOCH_UTC - 7200.0)
                for number, (job, state) in enumerate(
                    [("a", JobState.PROCESSING), ("b", JobState.ACCEPTED)], start=1
                )
            ]
        )
        await asyncio.sleep(1.0)
        assert [request.kind for request in post.transport.requests] == [RequestKind.LIST]
        assert [event.job_id for event in post.seen(JobChanged)] == ["b"]  # a is where it was
        await asyncio.sleep(50.0)
        assert (
            len(post.transport.requests) <= 2
        )  # they are old, and one is asked for itself to check the list

    on(tmp_path, lambda request: page_of({"a": "processing", "b": "processing"}), test)


def test_status_requests_are_logged_so_that_a_restart_knows_the_window(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(31.0)
        counts = await post.ledger.counts()
        assert counts.requests["status"] == len(post.asked["a"])
        assert len((await post.ledger.account_state(0.0)).history) == len(post.asked["a"]) + 1

    on(tmp_path, lambda request: said(job_of(request), "processing"), test)


def test_a_throttled_status_request_closes_the_account_and_is_asked_again_after_it(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(300.0)
        assert len(post.asked["a"]) == 1
        assert not await post.free_slots()
        await asyncio.sleep(60.0)
        assert len(post.asked["a"]) == 2
        assert await post.open_jobs() == {}

    answers = iter([answered(429), said("a", "finished")])
    on(tmp_path, lambda _: next(answers), test, max_active_jobs=5)


def test_a_refused_token_without_a_successor_stops_the_run(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        await asyncio.sleep(60.0)
        assert post.halt.codes == [Exit.STOPPED]
        assert len(post.asked["a"]) == 1

    on(tmp_path, lambda _: answered(401), test)


def test_when_the_gate_is_closed_the_tracker_ends(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.accept(1, "a")
        post.gate.close()
        await asyncio.sleep(3600.0)
        assert not post.asked

    on(tmp_path, lambda request: said(job_of(request), "processing"), test)
