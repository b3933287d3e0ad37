"""The verdict table: one case for every kind of evidence that the reliability notes name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.model import Accepted, Cause, Evidence, JobState, NotApplied, Phase, Refused, Unknown
from bulkjobs.verdict import judge

JOB = "v9qh2to86kg85s03trag"
SUBMISSION = b'{"jobId":"v9qh2to86kg85s03trag","status":"accepted","type":"contacts"}'
SLOTS_400 = "2 jobs are already running. Please try again once the previous jobs are finished."
SLOTS_429 = "Max 2 jobs are allowed at a time"
RECORDS = "Bulk enrichment API accepts minimum 1 and maximum 3000 records at a time."


def seen(status: int | None = None, body: bytes = b"", **changes) -> Evidence:
    """Gives evidence of a whole answer, or of none at all after the body went out."""
    phase = Phase.BODY_SENT if status is None else Phase.COMPLETE
    return replace(
        Evidence(phase=phase, started_utc=1_000.0, ended_utc=1_001.0, status=status, body=body), **changes
    )


def error(number: str, message: str = "") -> bytes:
    status = number.partition("-")[0]
    return json.dumps({"errorNumber": number, "message": message, "status": status}).encode()


def xml_error(number: str, message: str) -> bytes:
    return f"<error><errorCode>{number}</errorCode><errorMessage>{message}</errorMessage></error>".encode()


NOT_SENT, THROTTLED, UNAUTHORIZED = Cause.NOT_SENT, Cause.THROTTLED, Cause.UNAUTHORIZED
SLOTS_FULL, NO_QUOTA, NOT_PROCESSED = Cause.SLOTS_FULL, Cause.NO_QUOTA, Cause.NOT_PROCESSED
MISCONFIGURED = Cause.MISCONFIGURED

TABLE = {
    # nothing was sent
    "refused connection": (seen(phase=Phase.STARTED, error="ClientConnectorError: x"), NOT_SENT),
    "connect time-out": (seen(phase=Phase.STARTED, error="ConnectionTimeoutError"), NOT_SENT),
    "time-out in the hook": (seen(phase=Phase.CONNECTED, error="TimeoutError"), NOT_SENT),
    # the account
    "429": (seen(429), THROTTLED),
    "429 with an envelope": (seen(429, error("429-1", "Too many requests.")), THROTTLED),
    "429 broken off": (seen(429, b"{", phase=Phase.STATUS_READ, error="ClientPayloadError"), THROTTLED),
    "429 for slots": (seen(429, json.dumps({"errorMessage": SLOTS_429}).encode()), SLOTS_FULL),
    "429 for slots as text": (seen(429, SLOTS_429.encode()), SLOTS_FULL),
    "401": (seen(401), UNAUTHORIZED),
    "401 of the successor": (seen(401, b'{"status":"Authentication Failed - Unauthorized."}'), UNAUTHORIZED),
    # the configuration
    **{
        f"{status}": (seen(status), MISCONFIGURED)
        for status in (403, 404, 405, 407, 410, 411, 414, 415, 426, 431)
    },
    **{f"{status} redirect": (seen(status), MISCONFIGURED) for status in (301, 302, 307, 308)},
    "413": (seen(413), Cause.TOO_LARGE),
    # 400: four different things
    "400 slots": (seen(400, error("400-999", SLOTS_400)), SLOTS_FULL),
    "400 slots as text": (seen(400, SLOTS_400.encode()), SLOTS_FULL),
    "400 slots in an unknown envelope": (seen(400, json.dumps({"errors": [SLOTS_400]}).encode()), SLOTS_FULL),
    "400-184": (seen(400, error("400-184")), SLOTS_FULL),
    "400-184 in XML": (seen(400, xml_error("400-184", "Job limit exceeded")), SLOTS_FULL),
    "400 job limit": (seen(400, error("400-1", "Job limit exceeded: A maximum of 2 jobs …")), SLOTS_FULL),
    "400 too many jobs": (seen(400, error("400-1", "Too many active jobs in the queue")), SLOTS_FULL),
    "400 quota": (seen(400, error("400-1", "Insufficient transaction quota.")), NO_QUOTA),
    "400 transactions": (seen(400, xml_error("400-1", "Not enough transactions remain.")), NO_QUOTA),
    "400 credits": (seen(400, error("400-1", "You have no credits left")), NO_QUOTA),
    "400 quota exceeded": (seen(400, error("400-1", "The transaction quota was exceeded.")), NO_QUOTA),
    "400 quota as text": (seen(400, b"insufficient transaction quota"), Unknown),
    "400 page with a transaction": (seen(400, b"<html><p>Transaction reference 4711</p></html>"), Unknown),
    "400 transaction failed": (seen(400, error("400-1", "Transaction timed out after commit")), Unknown),
    "400 from a proxy": (seen(400, b"upstream: invalid input length from backend"), Unknown),
    "402 quota": (seen(402, error("402-1", "No credits.")), NO_QUOTA),
    **{
        f"400-{number}": (seen(400, error(f"400-{number}")), Refused)
        for number in (102, 103, 105, 106, 107, 108, 187, 188)
    },
    "400-185": (seen(400, error("400-185")), Cause.TOO_LARGE),
    "400-186": (seen(400, error("400-186")), Cause.TOO_LARGE),
    "400 company id": (seen(400, error("400-1", "Company id is not valid.")), Refused),
    "400 contact ids": (seen(400, error("400-1", "Invalid contact ids: x")), Refused),
    "400 illegal value": (seen(400, error("400-1", "Illegal values for the field contactId")), Refused),
    "400 records": (seen(400, error("400-1", RECORDS)), Cause.TOO_LARGE),
    "400 input": (seen(400, error("400-1", "Invalid input (i.e. invalid JSON or XML input).")), Refused),
    "422 input": (seen(422, error("422-1", "Executive id is not valid.")), Refused),
    "a known number outweighs the words": (seen(400, error("400-108", "no quota for id x")), Refused),
    "400 unknown number": (seen(400, error("400-101", "Invalid fields requested.")), Unknown),
    "400 unknown text": (seen(400, b"Bad Request"), Unknown),
    "400 page": (seen(400, b"<html><body><h1>400</h1></body></html>"), Unknown),
    "400 empty": (seen(400), Unknown),
    "402": (seen(402), Unknown),
    # not processed by definition
    "421": (seen(421), NOT_PROCESSED),
    "425": (seen(425), NOT_PROCESSED),
    # nobody can know
    **{f"{status} in doubt": (seen(status), Unknown) for status in (303, 406, 408, 409, 423)},
    **{f"{status} error": (seen(status), Unknown) for status in (500, 501, 502, 503, 504, 520, 524, 599)},
    "500 with a job": (seen(500, SUBMISSION), Unknown),
    "500 that says quota": (seen(500, error("500-1", "no quota")), Unknown),
    "503 with Retry-After": (seen(503, retry_after="5"), Unknown),
    **{
        f"{status} oddity": (seen(status), Unknown)
        for status in (100, 101, 103, 300, 304, 418, 451, 600, 999)
    },
    "time-out after the headers": (seen(phase=Phase.HEADERS_SENT, error="TimeoutError"), Unknown),
    "reset in the body": (seen(phase=Phase.HEADERS_SENT, error="ClientOSError: reset"), Unknown),
    "closed before the answer": (seen(error="ServerDisconnectedError"), Unknown),
    "garbage status line": (seen(error="ClientResponseError: Bad status line"), Unknown),
    # success, or what looks like it
    "200": (seen(200, SUBMISSION), Accepted),
    "200 in XML": (
        seen(200, b"<a><jobId>v9qh2to86kg85s03trag</jobId><status>accepted</status></a>"),
        Accepted,
    ),
    "201": (seen(201, SUBMISSION), Accepted),
    "202": (seen(202, SUBMISSION), Accepted),
    "200 processing": (seen(200, SUBMISSION.replace(b"accepted", b"processing")), Accepted),
    "200 failed": (seen(200, SUBMISSION.replace(b"accepted", b"failed")), Accepted),
    "200 empty": (seen(200), Unknown),
    "204": (seen(204), Unknown),
    "200 without a job id": (seen(200, b'{"status":"accepted","type":"contacts"}'), Unknown),
    "200 with a page": (seen(200, b"<!DOCTYPE html><html><body>Log in</body></html>"), Unknown),
    "200 with an error": (seen(200, error("404-11", "Company not found.")), Unknown),
    "200 not JSON": (seen(200, b'{jobId:"v9qh2to86kg85s03trag"}'), Unknown),
    "200 cut silently": (seen(200, b'{"jobId":'), Unknown),
    "200 broken off": (seen(200, SUBMISSION, phase=Phase.STATUS_READ, error="ClientPayloadError"), Unknown),
    "200 over the cap": (seen(200, SUBMISSION, body_cut=True, phase=Phase.STATUS_READ), Unknown),
    "200 over the cap, said complete": (seen(200, SUBMISSION, body_cut=True), Unknown),
}


@pytest.mark.parametrize(("evidence", "expected"), TABLE.values(), ids=TABLE)
def test_each_kind_of_evidence_has_its_verdict(evidence, expected):
    """A cause stands for `NotApplied` with that cause. Every verdict but a plain acceptance gives a reason."""
    verdict = judge(evidence)
    if isinstance(expected, Cause):
        assert isinstance(verdict, NotApplied), verdict
        assert verdict.cause is expected
    else:
        assert isinstance(verdict, expected), verdict
    assert isinstance(verdict, Accepted) or (verdict.reason and verdict.reason.isprintable())


def test_an_acceptance_carries_what_the_server_said():
    assert judge(seen(200, SUBMISSION)) == Accepted(job_id=JOB, state=JobState.ACCEPTED, job_type="contacts")


@pytest.mark.parametrize(
    ("word", "odd"), [("accepted", False), ("Processing", False), ("aborted", True), ("new", True)]
)
def test_an_odd_state_of_a_new_job_is_remarked(word, odd):
    """The job exists all the same: its id is what counts."""
    verdict = judge(seen(200, json.dumps({"jobId": JOB, "status": word}).encode()))
    assert isinstance(verdict, Accepted)
    assert (verdict.remark is not None) == odd
    if odd:
        assert word in verdict.remark


@pytest.mark.parametrize("name", ["200 not JSON", "200 broken off", "200 over the cap", "500 with a job"])
def test_an_unknown_outcome_points_at_the_job_it_may_have_made(name):
    """The hint is for reconciling; nothing is believed because of it."""
    assert judge(TABLE[name][0]).job_hint == JOB


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("30", 30.0),
        ("Thu, 01 Jan 1970 00:17:41 GMT", 60.0),
        ("-3", None),
        ("99999999", 86_400.0),
    ],
)
def test_a_throttle_passes_on_the_wait_the_server_asked_for(header, wait_s):
    """A date counts from when the answer came (16:41 here), and nonsense counts as nothing."""
    assert judge(seen(429, retry_after=header)).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (302, "never followed"),
        (308, "captive portal"),
        (404, "--base-url"),
        (405, "may not use this API"),
    ],
)
def test_a_misconfiguration_says_what_a_person_can_do(status, advice):
    reason = judge(seen(status)).reason
    assert advice in reason
    assert f"HTTP {status}" in reason


def test_the_servers_words_and_diagnostic_code_are_in_the_reason():
    body = json.dumps(
        {"errorNumber": "400-108", "message": "Executive id is not valid.", "diagnosticCode": "d1"}
    )
    assert judge(seen(400, body.encode())) == Refused(
        reason="HTTP 400. The server says: 400-108 Executive id is not valid. (diagnostic code d1)"
    )


@pytest.mark.parametrize("evidence", [seen(413), seen(400, error("400-186"))])
def test_a_chunk_that_is_too_large_is_told_from_bad_ids(evidence):
    """Its parts may pass, so nothing of it is refused."""
    verdict = judge(evidence)
    assert verdict.cause is Cause.TOO_LARGE
    assert "too " in verdict.reason


def test_a_foreign_body_is_shown_short_and_escaped():
    reason = judge(seen(400, b"\x1b[31m" + b"x" * 50_000)).reason
    assert r"\x1b[31mxxx" in reason
    assert len(reason) < 400


EVIDENCE = st.builds(
    Evidence,
    phase=st.sampled_from(Phase),
    started_utc=st.just(0.0),
    ended_utc=st.floats(0, 4e9),
    status=st.none() | st.integers(100, 999) | st.sampled_from([200, 400, 401, 429]),
    retry_after=st.none() | st.text(max_size=20),
    body=st.binary(max_size=60) | st.sampled_from([evidence.body for evidence, _ in TABLE.values()]),
    body_cut=st.booleans(),
    error=st.none() | st.just("TimeoutError"),
)


@given(EVIDENCE)
def test_no_evidence_is_too_strange_to_be_judged(evidence):
    """Whatever was seen, an acceptance needs a whole 2xx answer and a release of the chunk needs its proof."""
    verdict = judge(evidence)
    sent = evidence.phase >= Phase.HEADERS_SENT
    match verdict:
        case Accepted():
            assert sent
            assert 200 <= evidence.status <= 299
            assert evidence.phase is Phase.COMPLETE
            assert not evidence.body_cut
        case NotApplied(cause=Cause.NOT_SENT):
            assert not sent
        case NotApplied() | Refused():
            assert sent
            assert 300 < evidence.status < 500
        case Unknown():
            assert sent
