"""Reading the list of jobs and results: whole, at rest, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.asking import NOON, steady, submit_id
from support.simulated import BASE_URL, TOKEN, SimulatedTransport

from bulkjobs.account.gate import Gate
from bulkjobs.account.listing import JobList, JobReader, Unreadable
from bulkjobs.endpoints import endpoint_named
from bulkjobs.errors import AuthError
from bulkjobs.model import Evidence, JobId, Phase, Request, RequestKind
from bulkjobs.simulator import FaultPlan, Service
from bulkjobs.testing import FakeTransport, VirtualClock, answered, lost, run_virtual
from bulkjobs.throttle import Throttle
from bulkjobs.wire.usage import Usage

Handler = Callable[[Request], Evidence]


class Log:
    """Numbers requests, as the ledger does."""

    def __init__(self) -> None:
        self.begun: list[RequestKind] = []

    async def begin_request(self, kind: RequestKind) -> int:
        self.begun.append(kind)
        return len(self.begun)

    def end_request(self, number: int, status: int | None) -> None:
        """Takes note of nothing."""


class Tokens:
    """Has a new token each time one is refused."""

    def __init__(self, *more: str) -> None:
        self.tokens = [TOKEN, *more]

    async def token(self) -> str:
        return self.tokens[0]

    last_token = token

    async def refresh(self, refused: str, reason: str) -> None:
        if len(self.tokens) == 1:
            raise AuthError("There is no other token.")
        self.tokens.remove(refused)

    def worked(self, token: str) -> None:
        assert token == self.tokens[0]


def reader(transport: Any, clock: VirtualClock, auth: Any = None, base_url: str = BASE_URL) -> JobReader:
    gate = Gate(
        Throttle(rate=None, lockout_s=300.0, max_active_jobs=None),
        pace=None,
        clock=clock,
        observer=lambda _: None,
        on_lockout=lambda *_: None,
        on_limit=lambda _: None,
    )
    return JobReader(
        endpoint_named("contacts"),
        base_url=base_url,
        accept="json",
        gate=gate,
        auth=auth or Tokens(),
        transport=transport,
        request_log=Log(),
        clock=clock,
    )


def faked(
    handler: Handler, work: Callable[[JobReader], Awaitable[Any]], auth: Any = None
) -> tuple[Any, list[Request]]:
    """Does something with a reader whose requests a function answers."""
    clock = VirtualClock()
    transport = FakeTransport(handler, clock=clock)

    async def main() -> Any:
        return await work(reader(transport, clock, auth))

    return run_virtual(main()), transport.requests


def simulated(service: Service, work: Callable[[JobReader], Awaitable[Any]], now: float = NOON) -> Any:
    clock = VirtualClock(now)
    transport = SimulatedTransport(service, clock=clock)

    async def main() -> Any:
        return await work(reader(transport, clock))

    return run_virtual(main())


def asked(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(request.url).query).items()}


def page(*names: str, status: str = "finished") -> Evidence:
    rows = [{"jobId": name, "jobStatus": status, "creditsConsumed": 3} for name in names]
    return answered(200, json.dumps({"bulkJobs": rows}).encode())


def names(first: int, last: int) -> list[str]:
    return [f"j{number}" for number in range(first, last)]


async def list_all(one: JobReader) -> JobList | Unreadable:
    return await one.jobs(NOON, NOON)


def pages(*contents: Sequence[str]) -> Handler:
    """Answers each page with its jobs, and those behind with nothing."""
    return lambda request: page(*dict(enumerate(contents, 1)).get(int(asked(request)["page"]), ()))


# Pages


@pytest.mark.parametrize("jobs", [0, 1, 49, 50, 51, 100, 230])
@pytest.mark.parametrize("newest_first", [False, True])
def test_every_job_of_every_page_is_on_the_list(jobs: int, newest_first: bool) -> None:
    with Service(steady(list_newest_first=newest_first)) as service:
        made = [submit_id(service, NOON) for _ in range(jobs)]
        listed = simulated(service, list_all)
    assert isinstance(listed, JobList)
    assert sorted(listed.jobs) == sorted(made)


def test_a_row_comes_with_its_state_and_its_credits() -> None:
    listed, _ = faked(pages(["a"]), list_all)
    assert (listed.jobs["a"].word, listed.jobs["a"].credits) == ("finished", 3)


def test_a_server_that_knows_no_pages_gives_one() -> None:
    listed, requests = faked(lambda _: page("a", "b"), list_all)
    assert list(listed.jobs) == ["a", "b"]
    assert len(requests) == 2


def test_the_same_page_again_is_known_by_its_jobs_whatever_has_become_of_them() -> None:
    states = iter(["processing", "finished"])
    listed, _ = faked(lambda _: page("a", "b", status=next(states)), list_all)
    assert list(listed.jobs) == ["a", "b"]


def test_a_full_page_that_comes_again_and_again_is_not_a_whole_list() -> None:
    """There may be more jobs, which this server never shows."""
    listed, requests = faked(lambda _: page(*names(0, 50)), list_all)
    assert isinstance(listed, Unreadable)
    assert "shift" in listed.reason
    assert len(requests) == 6


def test_a_list_without_end_is_left() -> None:
    count = iter(range(10**9))
    listed, requests = faked(lambda _: page(f"j{next(count)}"), list_all)
    assert isinstance(listed, Unreadable)
    assert "no end" in listed.reason
    assert len(requests) == 10_000


def test_a_job_that_comes_in_at_the_top_shifts_the_pages_and_they_are_read_again() -> None:
    with Service(steady(list_newest_first=True)) as service:
        made = [submit_id(service, NOON) for _ in range(60)]
        clock = VirtualClock(NOON)
        came = False

        async def on_leaving(request: Request) -> None:
            nonlocal came
            if asked(request)["page"] == "2" and not came:
                came = True
                made.append(service.add_foreign([1], clock.utc()))

        transport = SimulatedTransport(service, clock=clock, on_leaving=on_leaving)

        async def main() -> JobList | Unreadable:
            return await list_all(reader(transport, clock))

        listed = run_virtual(main())
    assert isinstance(listed, JobList)
    assert sorted(listed.jobs) == sorted(made)


def test_a_job_that_drops_out_at_the_top_shifts_the_pages_and_they_are_read_again() -> None:
    """No job stands on two pages then, but one stands on none."""
    readings = iter(
        [names(0, 50), names(51, 60), [], names(1, 51), names(1, 51), names(51, 60), [], names(1, 51)]
    )
    listed, requests = faked(lambda _: page(*next(readings)), list_all)
    assert isinstance(listed, JobList)
    assert sorted(listed.jobs) == sorted(names(1, 60))
    assert [asked(request)["page"] for request in requests] == ["1", "2", "3", "1"] * 2


@pytest.mark.parametrize("options", [{"list_newest_first": True}, {"list_keeps": 60}])
def test_pages_that_shift_all_the_time_are_no_list(options: dict[str, Any]) -> None:
    with Service(steady(foreign_per_page=1.0, **options)) as service:
        for _ in range(80):
            submit_id(service, NOON)
        listed = simulated(service, list_all)
    assert listed == Unreadable(reason="its pages shift faster than they can be read")


def test_jobs_that_come_in_at_the_end_do_no_harm() -> None:
    with Service(steady(foreign_per_page=0.5)) as service:
        made = [submit_id(service, NOON) for _ in range(80)]
        listed = simulated(service, list_all)
    assert isinstance(listed, JobList)
    assert set(made) <= set(listed.jobs)


def test_the_time_of_a_list_spans_its_reading() -> None:
    with Service(steady()) as service:
        clock = VirtualClock(NOON)

        async def on_leaving(_: Request) -> None:
            clock.epoch_utc += 10

        transport = SimulatedTransport(service, clock=clock, on_leaving=on_leaving)

        async def main() -> JobList | Unreadable:
            return await list_all(reader(transport, clock))

        listed = run_virtual(main())
    assert isinstance(listed, JobList)
    assert listed.began_utc == pytest.approx(NOON, abs=0.1)
    assert listed.ended_utc == pytest.approx(NOON + 10, abs=0.1)


# Days


def test_a_day_more_on_both_sides_is_asked_for() -> None:
    since = datetime(2026, 2, 27, 23, 59, tzinfo=UTC).timestamp()
    until = datetime(2026, 2, 28, 0, 1, tzinfo=UTC).timestamp()
    _, requests = faked(pages(), lambda one: one.jobs(since, until))
    assert (asked(requests[0])["start"], asked(requests[0])["end"]) == ("2026-02-26", "2026-03-01")


@pytest.mark.parametrize("zone_h", [-14, -7, 0, 5.5, 13, 14])
@pytest.mark.parametrize("hour", [0, 12, 23])
def test_a_job_is_found_whatever_zone_the_servers_days_have(zone_h: float, hour: int) -> None:
    now = NOON - 12 * 3_600 + hour * 3_600
    with Service(steady(list_zone_h=zone_h)) as service:
        job_id = submit_id(service, now)
        listed = simulated(service, lambda one: one.jobs(now, now), now)
    assert isinstance(listed, JobList)
    assert list(listed.jobs) == [job_id]


# Answers that are none


@pytest.mark.parametrize(
    ("evidence", "says"),
    [
        (answered(500), "HTTP 500"),
        (answered(404, b'{"message": "x"}'), "HTTP 404"),
        (answered(204), "HTTP 204"),
        (answered(200, b"<html><body>Sign in</body></html>"), "cannot be read"),
        (answered(200, b'{"errorNumber": "400-1", "message": "no"}'), "400-1 no"),
        (lost("TimeoutError"), "TimeoutError"),
    ],
)
@pytest.mark.parametrize("on_page", [1, 2, 3])
def test_a_page_that_is_none_makes_the_list_unreadable(evidence: Evidence, says: str, on_page: int) -> None:
    def handler(request: Request) -> Evidence:
        number = int(asked(request)["page"])
        return evidence if number == on_page else pages(names(0, 50), names(50, 60))(request)

    listed, _ = faked(handler, list_all)
    assert isinstance(listed, Unreadable)
    assert says in listed.reason


@pytest.mark.parametrize(
    "fault", ["html_after", "cut_after", "http503_after", "reset_after", "error200_after"]
)
def test_a_spoilt_answer_makes_the_list_unreadable(fault: str) -> None:
    with Service(steady(faults=FaultPlan.of(f"list:{fault}@1"))) as service:
        submit_id(service, NOON)
        assert isinstance(simulated(service, list_all), Unreadable)


def test_a_server_that_is_not_there_is_told_apart() -> None:
    listed, _ = faked(lambda _: lost("ConnectionRefusedError", phase=Phase.STARTED), list_all)
    assert listed.unsent
    assert not faked(lambda _: lost(), list_all)[0].unsent


def test_a_throttle_is_waited_out_by_the_next_request() -> None:
    """The list that met it is not read; asking again waits as long as the account is locked out."""
    answers = iter([answered(429), page("a"), page()])

    async def twice(one: JobReader) -> tuple[Any, Any]:
        return await list_all(one), await list_all(one)

    (first, second), _ = faked(lambda _: next(answers), twice)
    assert first == Unreadable(reason="HTTP 429")
    assert list(second.jobs) == ["a"]
    assert second.began_utc - VirtualClock().epoch_utc < second.ended_utc - VirtualClock().epoch_utc


def test_a_token_that_has_expired_is_renewed_once() -> None:
    def handler(request: Request) -> Evidence:
        return pages(["a"])(request) if dict(request.headers)["accessToken"] == "new" else answered(401)

    listed, requests = faked(handler, list_all, Tokens("new"))
    assert list(listed.jobs) == ["a"]
    assert [dict(request.headers)["accessToken"] for request in requests] == [TOKEN, "new", "new"]
    assert faked(handler, list_all, Tokens("other", "new"))[0] == Unreadable(reason="HTTP 401")


def test_without_another_token_the_run_stops() -> None:
    with pytest.raises(AuthError):
        faked(lambda _: answered(401), list_all)


# Is the service there?


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (page(), True),
        (page("a"), True),
        (answered(403), True),
        (answered(404), True),
        (answered(400, b"{}"), True),
        (answered(407), False),
        (answered(408), False),
        (answered(429), False),
        (answered(500), False),
        (answered(503), False),
        (answered(302), False),
        (answered(200, b"<html><body>Sign in</body></html>"), False),
        (lost(), False),
    ],
)
def test_a_service_is_alive_when_it_lists_or_refuses_to(evidence: Evidence, expected: bool) -> None:
    trouble, requests = faked(lambda _: evidence, lambda one: one.trouble())
    assert (trouble is None) is expected
    assert len(requests) == 1


# One job


def said(**fields: Any) -> Evidence:
    return answered(200, json.dumps(fields).encode())


def test_the_status_of_a_job_is_that_of_this_job() -> None:
    ask = faked(
        lambda _: said(jobId="a", status="finished", totalProcessed=3), lambda one: one.status(JobId("a"))
    )
    assert ask[0].processed == 3
    other, _ = faked(lambda _: said(jobId="b", status="finished"), lambda one: one.status(JobId("a")))
    assert other == Unreadable(reason="the answer is about job b")


@pytest.mark.parametrize(
    "evidence",
    [
        answered(404),
        answered(200, b"{"),
        said(jobId="a"),
        said(errorNumber="404-1", message="no such job"),
        lost(),
    ],
)
def test_a_status_that_is_none_says_why(evidence: Evidence) -> None:
    status, _ = faked(lambda _: evidence, lambda one: one.status(JobId("a")))
    assert isinstance(status, Unreadable)
    assert status.reason


async def results(one: JobReader) -> frozenset[bytes] | Unreadable:
    return await one.results(JobId("a"))


LINK = "https://files.example.com/a.csv?Expires=1&Signature=s3cret"


def linked(url: str, answer: Evidence) -> Handler:
    return lambda request: answer if request.url == url else said(jobId="a", resultsUrl=url)


def test_results_behind_a_link_are_fetched_without_the_token() -> None:
    read, requests = faked(linked(LINK, answered(200, b"contactId\n11\n")), results)
    assert read == frozenset([b"11"])
    assert requests[1].url == LINK
    assert not [name for name, _ in requests[1].headers if name.lower() == "accesstoken"]
    assert TOKEN not in repr(requests[1])


@pytest.mark.parametrize(
    "url", ["http://files.example.com/a", "http://127.0.0.1:10/a", "file:///etc/passwd", "https://[::1", "x"]
)
def test_a_link_to_anywhere_else_is_not_followed(url: str) -> None:
    read, requests = faked(linked(url, answered(200, b"contactId\n11\n")), results)
    assert isinstance(read, Unreadable)
    assert len(requests) == 1


@pytest.mark.parametrize(
    "evidence",
    [answered(403), answered(401), answered(302), said(resultsUrl=LINK), answered(200, b"name\nx\n"), lost()],
)
def test_a_link_that_leads_to_nothing_makes_the_results_unreadable(evidence: Evidence) -> None:
    read, requests = faked(linked(LINK, evidence), results)
    assert isinstance(read, Unreadable)
    assert len(requests) == 2  # and a 401 there says nothing of our token


@pytest.mark.parametrize("shape", ["file", "link"])
def test_results_of_the_simulated_service_are_read_when_the_job_has_ended(shape: Any) -> None:
    with Service(steady(results_shape=shape)) as service:
        job_id = JobId(submit_id(service, NOON, b"11\n22"))
        early = simulated(service, lambda one: one.results(job_id))
        late = simulated(service, lambda one: one.results(job_id), NOON + 99)
    assert early == Unreadable(reason="HTTP 400")
    assert late == frozenset([b"11", b"22"])


# Usage


def credits_left(allocated: int, consumed: int) -> Evidence:
    row = {"allocatedCredits": allocated, "consumedCredits": consumed}
    return answered(200, json.dumps({"creditsForAccount": [row]}).encode())


async def usage(one: JobReader) -> Usage | Unreadable:
    return await one.usage()


def months_asked(now: float, left: dict[str, int]) -> tuple[Any, list[str]]:
    """Reads usage at a moment of an account that has so much left in each month."""
    clock = VirtualClock(now)
    transport = FakeTransport(lambda request: credits_left(left[asked(request)["start"]], 0), clock=clock)

    async def main() -> Any:
        return await reader(transport, clock).usage()

    return run_virtual(main()), [asked(request)["end"] for request in transport.requests]


def test_usage_is_that_of_the_month() -> None:
    assert months_asked(NOON, {"2026-03": 7}) == (Usage(allocated=7, consumed=0), ["2026-03"])


@pytest.mark.parametrize(
    ("now", "months"),
    [
        ("2026-03-31T09:59:59", ["2026-03"]),
        ("2026-03-31T10:00:00", ["2026-03", "2026-04"]),
        ("2026-03-31T23:59:59", ["2026-03", "2026-04"]),
        ("2026-04-01T00:00:00", ["2026-03", "2026-04"]),
        ("2026-04-01T11:59:59", ["2026-03", "2026-04"]),
        ("2026-04-01T12:00:00", ["2026-04"]),
    ],
)
def test_while_the_month_turns_somewhere_the_one_counts_that_leaves_less(now: str, months: list[str]) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    read, read_months = months_asked(at, {"2026-03": 7, "2026-04": 9})
    assert read_months == months
    assert read.left == (7 if "2026-03" in months else 9)


def test_usage_of_a_month_that_cannot_be_read_leaves_the_other() -> None:
    clock = VirtualClock(datetime(2026, 4, 1, tzinfo=UTC).timestamp())

    def answer(request: Request) -> Evidence:
        return credits_left(9, 0) if asked(request)["start"] == "2026-03" else answered(400)

    async def main() -> Any:
        return await reader(FakeTransport(answer, clock=clock), clock).usage()

    assert run_virtual(main()) == Usage(allocated=9, consumed=0)


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (answered(404), "HTTP 404"),
        (answered(405), "HTTP 405"),
        (answered(200, b"<html/>"), "its root has no child elements"),
        (
            answered(200, b'{"errorType": "Forbidden", "message": "Not yours."}'),
            "the server says: Not yours.",
        ),
        (lost(phase=Phase.BODY_SENT), "TimeoutError"),
    ],
)
def test_usage_that_cannot_be_read_says_why(evidence: Evidence, reason: str) -> None:
    read, _ = faked(lambda _: evidence, usage)
    assert isinstance(read, Unreadable)
    assert reason in read.reason


def test_nobody_waits_long_for_usage() -> None:
    class Silent:
        async def request(
            self, _: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
        ) -> Evidence:
            assert before_first_byte is not None
            await before_first_byte()
            await asyncio.sleep(3600)
            return answered(200)

    async def main() -> tuple[Any, float]:
        read = await reader(Silent(), VirtualClock()).usage()
        return read, asyncio.get_running_loop().time()

    read, after_s = run_virtual(main())
    assert read == Unreadable(reason="there was no answer within 10 s")
    assert after_s == pytest.approx(10, abs=0.1)


def test_usage_is_read_from_the_simulated_service() -> None:
    with Service(steady(quota_ids=1000)) as service:
        submit_id(service, NOON)
        assert simulated(service, usage, NOON + 300) == Usage(allocated=1000, consumed=3)
