"""The answer about usage: what is left of the quota, in whatever spelling; nonsense is refused in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asking import JSON, NOON, TOKEN, ask, steady, submit_id

from bulkjobs.model import RequestKind
from bulkjobs.simulator import Service
from bulkjobs.wire.answer import ErrorAnswer, MalformedAnswer
from bulkjobs.wire.request import usage_request
from bulkjobs.wire.usage import Usage, parse_usage

IN_XML = b"<allocatedCredits> 1000 </allocatedCredits><consumedCredits>300</consumedCredits>"
READ = Usage(allocated=1000, consumed=300)


def answer(*entries: object, **more: object) -> bytes:
    return json.dumps({"accountId": "a", "period": "month", "creditsForAccount": entries, **more}).encode()


def entry(allocated: object = 1000, consumed: object = 300) -> dict[str, object]:
    return {"allocatedCredits": allocated, "consumedCredits": consumed}


def test_usage_is_asked_for_by_month():
    request = usage_request(base_url="https://host/api/v1/", month="2026-03", token="a.token", accept="xml")
    assert (request.kind, request.method) == (RequestKind.USAGE, "GET")
    assert request.url == "https://host/api/v1/admin/usage?period=month&start=2026-03&end=2026-03"
    assert dict(request.headers)["Accept"] == "application/xml"


@pytest.mark.parametrize(
    "body",
    [
        answer(entry()),
        answer(entry("1000", " 300 ")),
        answer(entry(1000.0, "300.0")),
        answer(entry(1000.9, 299.1)),
        answer({"ALLOCATEDCREDITS": 1000, "consumedcredits": 300, "other": None}),
        json.dumps({"usage": {"creditsForAccount": entry()}}).encode(),
        json.dumps(entry()).encode(),
        b"<usage><creditsForAccount><credits>%s</credits></creditsForAccount></usage>" % IN_XML,
        b"<u xmlns='x'><creditsForAccount>%s</creditsForAccount></u>" % IN_XML,
    ],
)
def test_credits_are_read_in_any_spelling_and_rounded_to_the_safe_side(body):
    assert parse_usage(body) == READ


def test_of_several_elements_the_one_counts_that_leaves_least():
    assert parse_usage(answer(entry(5000, 0), entry(), entry(2000, 1000))) == READ


def test_more_may_be_consumed_than_allocated():
    usage = parse_usage(answer(entry(1000, 1200)))
    assert isinstance(usage, Usage)
    assert usage.left == -200


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is empty"),
        (b"not found", "neither JSON nor XML"),
        (b"[]", "an object should stand"),
        (answer(), "names no allocatedCredits"),
        (answer({}), "names no allocatedCredits"),
        (answer({"allocatedCredits": 1000}), "consumedCredits is missing"),
        (answer(entry(consumed=None)), "consumedCredits is missing"),
        (answer(entry(-1)), "allocatedCredits is -1"),
        (answer(entry(consumed="-300")), "consumedCredits is '-300'"),
        (answer(entry("unlimited")), "allocatedCredits is 'unlimited'"),
        (answer(entry(True)), "allocatedCredits is True"),
        (answer(entry([1000])), "allocatedCredits is [1000]"),
        (answer(entry("1e9")), "allocatedCredits is '1e9'"),
        (answer(entry("٣")), "allocatedCredits is"),
        (answer(entry(10**19)), "allocatedCredits is 10000000000000000000"),
        (answer(entry(10**400)), "number is infinity"),
        (answer(entry(1e300)), "allocatedCredits is 1e+300"),
        (answer({"allocatedCredits": 1, "AllocatedCredits": 2, "consumedCredits": 0}), "is [1, 2]"),
        (answer(entry(), entry(consumed="?")), "consumedCredits is '?'"),
    ],
)
def test_nonsense_is_refused_in_words(body, why):
    with pytest.raises(MalformedAnswer) as refused:
        parse_usage(body)
    assert why in str(refused.value)
    assert len(str(refused.value)) < 400


def test_an_error_is_told_from_usage():
    error = parse_usage(b'{"errorType": "Forbidden", "status": 403, "message": "Not for this key."}')
    assert isinstance(error, ErrorAnswer)


@given(
    st.binary(max_size=200)
    | st.builds(answer, st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists))
)
def test_any_bytes_give_usage_an_error_or_malformed_answer(body):
    try:
        read = parse_usage(body)
    except MalformedAnswer:
        return
    assert isinstance(read, Usage | ErrorAnswer)


@pytest.mark.parametrize("accept", ["application/json", "application/xml"])
def test_the_simulated_service_is_understood(accept):
    with Service(steady(quota_ids=1000)) as service:
        submit_id(service, NOON)
        months = {"period": "month", "start": "2026-03", "end": "2026-03"}
        headers = JSON | {"accept": accept, "accesstoken": TOKEN}
        bodies = [
            ask(service, "GET", "/api/v1/admin/usage", at, headers=headers, **months).body
            for at in (NOON + 299, NOON + 300)
        ]
    assert [parse_usage(body) for body in bodies] == [
        Usage(allocated=1000, consumed=0),
        Usage(allocated=1000, consumed=3),
    ]
