"""The job list, honest and otherwise, and the jobs of others in it."""

from __future__ import annotations

from itertools import chain

import lxml.etree
import pytest
from support.asking import DAY, NOON, TOKEN, ask, content, listed, steady, submit_id

from bulkjobs.simulator import Service


def test_the_list_has_ten_jobs_a_page_oldest_first_and_ends_with_an_empty_page():
    with Service(steady()) as service:
        jobs = [submit_id(service, NOON) for _ in range(25)]
        pages = [listed(service, page=str(page)) for page in (1, 2, 3, 4)]
        assert [len(page) for page in pages] == [10, 10, 5, 0]
        assert [*chain(*pages)] == jobs == listed(service, resultsPerPage="50")


def test_the_list_can_run_from_the_newest_down_and_lag():
    with Service(steady(list_newest_first=True, list_lag_s=60)) as service:
        jobs = [submit_id(service, NOON + at) for at in (0, 10, 20)]
        assert listed(service, NOON + 75) == [jobs[1], jobs[0]]


def test_a_row_tells_what_is_documented_and_has_day_precision():
    with Service(steady(queue_s=10)) as service:
        job_id = submit_id(service, NOON)
        row = {"jobId": job_id, "jobType": "contactDetails", "createdDate": "2026-03-10"}
        before = content(ask(service, "GET", "/api/v1/admin/jobs", NOON))["bulkJobs"]
        after = content(ask(service, "GET", "/api/v1/admin/jobs", NOON + 10))["bulkJobs"]
        as_xml = ask(service, "GET", "/api/v1/admin/jobs", NOON + 10, headers={"accesstoken": TOKEN})
    assert before == [row | {"jobStatus": "accepted", "creditsConsumed": 0}]
    assert after == [row | {"jobStatus": "processing", "creditsConsumed": 3}]
    root = lxml.etree.fromstring(as_xml.body)
    assert (root.tag, [child.tag for child in root]) == ("bulkJobs", ["bulkJob"])
    assert {child.tag: child.text for child in root[0]} == {
        name: str(value) for name, value in after[0].items()
    }


def test_the_list_is_cut_by_period_status_and_type():
    with Service(steady(job_s=60)) as service:
        times = [NOON - 400 * DAY, NOON - 40 * DAY, NOON - DAY, NOON]
        ages = dict(
            zip(("year", "month", "day", "now"), [submit_id(service, at) for at in times], strict=True)
        )
        everything = list(ages.values())
        assert listed(service) == everything
        assert listed(service, period="day") == everything[3:]
        assert listed(service, period="month") == everything[2:]
        assert listed(service, period="year") == everything[1:]
        assert listed(service, period="month", start="2026-01", end="2026-01") == [ages["month"]]
        assert listed(service, period="year", end="2025") == [ages["year"]]
        assert listed(service, start="2026-03-09", end="2026-03-09") == [ages["day"]]
        assert listed(service, jobStatuses="3") == everything[:3]
        assert listed(service, jobStatuses="1,2") == [ages["now"]]
        assert listed(service, jobTypes="1,3") == []
        assert listed(service, jobTypes="2") == everything
        assert listed(service, period="day", end="9999-12-31") == everything


@pytest.mark.parametrize(
    "query",
    [{"page": "0"}, {"page": "x"}, {"resultsPerPage": "51"}, {"resultsPerPage": "0"}, {"resultsPerPage": "-1"},
     {"period": "week"}, {"period": "day", "start": "2026-3-9"}, {"period": "month", "start": "2026-03-09"},
     {"start": "2026-02-30"}, {"jobStatuses": "done"}, {"jobTypes": "1;2"}],
)  # fmt: skip
def test_a_bad_parameter_of_the_list_is_400(query):
    with Service() as service:
        assert ask(service, "GET", "/api/v1/admin/jobs", NOON, **query).status == 400
