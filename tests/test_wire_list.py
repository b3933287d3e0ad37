"""The list of jobs: what a page says, in whatever spelling; and that a part of a list is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asking import LIST, NOON, TOKEN, ask, steady, submit_id

from bulkjobs.model import JobState
from bulkjobs.simulator import Service
from bulkjobs.wire.answer import ErrorAnswer, ListedJob, MalformedAnswer, parse_job_list

ROW = {
    "jobId": "v9qh2to86kg85s03trag",
    "jobType": "targetContactDetails",
    "jobStatus": "finished",
    "createdDate": "2015-09-08",
    "creditsConsumed": 90,
}
READ = ListedJob(
    job_id="v9qh2to86kg85s03trag",
    state=JobState.FINISHED,
    word="finished",
    job_type="targetContactDetails",
    credits=90,
)


def page(*rows: object, name: str = "bulkJobs") -> bytes:
    return json.dumps({name: rows}).encode()


def in_xml(*rows: dict[str, object], root: str = "bulkJobs", element: str = "bulkJob") -> bytes:
    inside = "".join(
        f"<{element}>{''.join(f'<{key}>{value}</{key}>' for key, value in row.items())}</{element}>"
        for row in rows
    )
    return f"<?xml version='1.0'?><{root}>{inside}</{root}>".encode()


def ids(body: bytes) -> list[str]:
    jobs = parse_job_list(body)
    assert isinstance(jobs, list)
    return [job.job_id for job in jobs]


def test_a_row_is_read_as_the_vendor_shows_it():
    assert parse_job_list(page(ROW)) == [READ]


@pytest.mark.parametrize(
    "body",
    [
        page(ROW, name="BulkJobs"),
        page({name.upper(): value for name, value in ROW.items()}),
        page({**ROW, "creditsConsumed": "90"}),
        json.dumps({"response": {"page": 1, "bulkJobs": [ROW]}}).encode(),
        json.dumps({"page": 1, "bulkJobs": [ROW], "total": None}).encode(),
        json.dumps({"bulkJobs": {"bulkJob": [ROW]}}).encode(),
        json.dumps({"bulkJobs": {"bulkJob": ROW}}).encode(),
        json.dumps({"bulkJobs": ROW}).encode(),
        json.dumps({"jobs": [ROW]}).encode(),
        b"\xef\xbb\xbf \n" + page(ROW),
        in_xml(ROW),
        in_xml(ROW, root="jobs", element="job"),
        in_xml(ROW).replace(b"<bulkJobs>", b"<x:bulkJobs xmlns:x='urn:y'>").replace(b"</bulk", b"</x:bulk", 2)
        .replace(b"</x:bulkJob>", b"</bulkJob>", 1),
        b"<r><bulkJobs>" + in_xml(ROW).partition(b"<bulkJobs>")[2] + b"</r>",
    ],
)  # fmt: skip
def test_the_same_row_in_other_spellings_is_the_same_job(body):
    assert parse_job_list(body) == [READ]


@pytest.mark.parametrize("accept", ["application/json", "application/xml"])
@pytest.mark.parametrize("jobs", [0, 1, 2, 5])
def test_the_list_of_the_simulated_service_is_read_in_either_format(accept, jobs):
    with Service(steady()) as service:
        made = [submit_id(service, NOON + number) for number in range(jobs)]
        body = ask(service, "GET", LIST, NOON + 9, headers={"accesstoken": TOKEN, "accept": accept}).body
    assert ids(body) == made


@pytest.mark.parametrize(
    ("code", "state"),
    [(-1, JobState.UNKNOWN), (0, JobState.FAILED), (1, JobState.ACCEPTED), (2, JobState.PROCESSING),
     (3, JobState.FINISHED), (4, JobState.ABORTED), ("FINISHED", JobState.FINISHED), ("odd", JobState.UNKNOWN)],
)  # fmt: skip
def test_states_may_be_numbers_or_words(code, state):
    for body in (page({**ROW, "jobStatus": code}), in_xml({**ROW, "jobStatus": code})):
        (job,) = parse_job_list(body)
        assert job.state is state


def test_what_a_row_leaves_out_is_not_made_up():
    assert parse_job_list(page({"jobId": "a"})) == [
        ListedJob(job_id="a", state=JobState.UNKNOWN, word="", job_type="", credits=None)
    ]


@pytest.mark.parametrize("number", [-1, 1.5, "many", True, None, [], 10**30])
def test_a_number_of_credits_that_is_none_is_not_known(number):
    (job,) = parse_job_list(page({**ROW, "creditsConsumed": number}))
    assert job.credits is None


@pytest.mark.parametrize(
    "body",
    [page(), b'{"bulkJobs": null}', b'{"bulkJobs": ""}', b"<bulkJobs/>", b"<bulkJobs></bulkJobs>",
     b"<?xml version='1.0' encoding='UTF-8'?>\n<BulkJobs>\n</BulkJobs>\n", b'{"a": {"bulkJobs": []}}'],
)  # fmt: skip
def test_a_page_behind_the_last_one_is_empty(body):
    assert parse_job_list(body) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"jobs": []}',
        b'{"messages": []}',
        b'{"bulkJobs": [], "BULKJOBS": [{"jobId": "a"}]}',
        b'{"bulkJobs": 0}',
        b'{"bulkJobs": "none"}',
        b"<html><body>Sign in</body></html>",
        b"<!DOCTYPE html><html><body><p>Sign in</p></body></html>",
        b"<!DOCTYPE bulkJobs><bulkJobs/>",
        b"<jobs/>",
        b"<bulkJobs><bulkJob/></bulkJobs>",
        page({"jobType": "a"}),
        page(ROW, {"jobType": "a"}),
        page(ROW, None),
        page(ROW, [ROW]),
        page({**ROW, "jobId": 5}),
        page({**ROW, "jobId": ""}),
        page({**ROW, "jobId": "a b"}),
        page({**ROW, "jobId": ["a", "b"]}),
        page({**ROW, "JOBID": "other"}),
        page({**ROW, "parent": {"jobId": "other"}}),
        page(ROW)[:-3],
        in_xml(ROW)[:-8],
    ],
)
def test_what_is_no_whole_list_is_refused(body):
    """A row too few, and a job that exists is taken for one that does not."""
    with pytest.raises(MalformedAnswer):
        parse_job_list(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"status": "failure", "errorNumber": "400-101", "message": "bad page"}',
        b'{"ErrorNumber": "400-101", "Message": "bad page"}',
        b"<error><errorNumber>400-101</errorNumber><message>bad page</message></error>",
    ],
)
def test_an_error_instead_of_a_list_says_what_it_is(body):
    answer = parse_job_list(body)
    assert isinstance(answer, ErrorAnswer)
    assert str(answer) == "400-101 bad page"


@given(st.binary() | st.text().map(str.encode) | st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["bulkJobs", "jobId", "status", "x"]), inner),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_a_list_an_error_or_malformed(body):
    try:
        answer = parse_job_list(body)
    except MalformedAnswer as error:
        said = str(error)
    else:
        said = ""
        assert isinstance(answer, ErrorAnswer) or all(isinstance(one, ListedJob) for one in answer)
    assert said.isprintable()


@given(
    st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), unique=True, max_size=60), st.booleans()
)
def test_every_row_is_read_and_in_order(names, as_xml):
    rows = [{**ROW, "jobId": name} for name in names]
    assert ids(in_xml(*rows) if as_xml else page(*rows)) == names
