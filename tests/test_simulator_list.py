"""The job list, honest and otherwise, and the jobs of others in it."""

from __future__ import annotations

from itertools import chain

import lxml.etree
import pytest
from support.asking import (
    DAY,
    JOB,
    NOON,
    TOKEN,
    ask,
    content,
    entries,
    listed,
    rows,
    status,
    steady,
    submit,
    submit_id,
)  # fmt: skip

from bulkjobs.errors import ConfigError
from bulkjobs.simulator import FaultPlan, Service, ServiceConfig, Wire


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


# --- lists that are hard to read --------------------------------------------------------------------------


def test_the_list_can_hide_contact_jobs_altogether():
    with Service(steady(list_hides_type=True)) as service:
        job_id = submit_id(service, NOON)
        other = service.add_foreign([1, 2], NOON, job_type="enrich")
        assert listed(service) == [other]
        assert status(service, job_id, NOON)["jobId"] == job_id


def test_type_and_status_can_be_written_otherwise():
    with Service(steady(queue_s=10, list_type="CONTACT", list_status="number")) as service:
        submit_id(service, NOON)
        (early,), (late,), (over,) = (rows(service, NOON + at) for at in (0, 10, 70))
    assert {row["jobType"] for row in (early, late, over)} == {"CONTACT"}
    assert [row["jobStatus"] for row in (early, late, over)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("form", "zone", "expected"),
    [
        ("day", 0, "2026-03-10"),
        ("day", 12, "2026-03-11"),
        ("time", 0, "2026-03-10T12:00:00"),
        ("time", -7, "2026-03-10T05:00:00"),
        ("zoned", -7, "2026-03-10T05:00:00.000-07:00"),
        ("zoned", 5.5, "2026-03-10T17:30:00.000+05:30"),
    ],
)
def test_dates_can_have_a_time_and_another_zone(form, zone, expected):
    with Service(steady(list_dates=form, list_zone_h=zone)) as service:
        submit_id(service, NOON)
        assert rows(service)[0]["createdDate"] == expected


def test_a_zone_holds_for_the_days_that_are_asked_for_too():
    with Service(steady(list_zone_h=-13)) as service:
        job_id = submit_id(service, NOON)
        assert rows(service)[0]["createdDate"] == "2026-03-09"
        assert listed(service, start="2026-03-09", end="2026-03-09") == [job_id]
        assert listed(service, start="2026-03-10", end="2026-03-10") == []
        assert listed(service, period="day") == [job_id]
        assert listed(service, NOON + DAY, period="day") == []


def test_a_job_that_comes_in_between_two_pages_of_the_newest_first_shows_a_row_twice():
    with Service(steady(list_newest_first=True, foreign_per_page=1)) as service:
        jobs = [submit_id(service, NOON) for _ in range(4)][::-1]
        first, second = (listed(service, resultsPerPage="2", page=page) for page in "12")
    assert first == jobs[:2]
    assert second == jobs[1:3]


def test_a_job_that_drops_out_between_two_pages_of_the_oldest_first_loses_a_row():
    with Service(steady(list_keeps=4, foreign_per_page=1)) as service:
        jobs = [submit_id(service, NOON) for _ in range(4)]
        first, second = (listed(service, resultsPerPage="2", page=page) for page in "12")
    assert first == jobs[:2]
    assert second[0] == jobs[3]
    assert jobs[2] not in [*first, *second]


def test_the_list_can_forget_everything():
    with Service(steady(list_keeps=0)) as service:
        submit_id(service, NOON)
        assert listed(service) == []


# --- jobs of others ---------------------------------------------------------------------------------------


def others(service, now=NOON):
    return [line for line in entries(service, now) if line["foreign"]]


def test_jobs_of_others_come_with_each_submission_and_are_as_large():
    with Service(steady(foreign_per_submit=2)) as service:
        ours = [submit_id(service, NOON, body) for body in (b"1", b"1,2,3")]
        found = others(service)
        totals = service.totals()
        assert {*ours, *(line["jobId"] for line in found)} == {*listed(service)}
    assert [line["ids"] for line in found] == [1, 1, 3, 3]
    assert (totals["jobs"], totals["ids"], totals["foreign_jobs"], totals["foreign_ids"]) == (2, 4, 4, 8)
    assert totals["repeated_bodies"] == 0


def test_they_stand_before_or_after_the_clients_job():
    with Service(steady(foreign_per_submit=1)) as service:
        for _ in range(40):
            submit_id(service, NOON)
        order = [line["foreign"] for line in entries(service, NOON)]
    before = sum(order[at] for at in range(0, 80, 2))
    assert order.count(True) == 40
    assert 5 < before < 35


def test_a_part_of_one_is_a_chance_that_follows_from_the_seed():
    def made(seed):
        with Service(steady(foreign_per_submit=0.3, seed=seed)) as service:
            for _ in range(200):
                submit_id(service, NOON)
            return [line["number"] for line in others(service)]

    assert 30 < len(made(1)) < 90
    assert made(1) == made(1) != made(2)


def test_a_job_of_others_can_come_where_the_clients_was_not_made():
    config = steady(foreign_per_submit=1, faults=FaultPlan.of("submit:reset_before@1"))
    with Service(config) as service:
        assert submit(service, NOON).wire is Wire.RESET
        (only,) = rows(service)
        totals = service.totals()
    assert only["creditsConsumed"] == 3
    assert (totals["jobs"], totals["foreign_jobs"]) == (0, 1)


def test_sizes_and_shared_ids_can_be_chosen():
    config = steady(foreign_per_submit=1, foreign_sizes=(2, 5), foreign_shared=2)
    with Service(config) as service:
        for _ in range(20):
            submit_id(service, NOON, b"11,12,13")
        bodies = [
            ask(service, "GET", f"/_sim/books/jobs/{line['jobId']}/ids", NOON).body.split()
            for line in others(service)
        ]
    assert {len(body) for body in bodies} == {2, 5}
    assert {tuple(body[:2]) for body in bodies} == {(b"11", b"12")}
    rest = [one for body in bodies for one in body[2:]]
    assert len({*rest}) == len(rest) > 0


def test_ids_of_others_are_distinct_unless_they_are_shared():
    with Service(steady(foreign_per_submit=3)) as service:
        submit_id(service, NOON)
        bodies = [
            ask(service, "GET", f"/_sim/books/jobs/{line['jobId']}/ids", NOON).body
            for line in others(service)
        ]
    everything = b"\n".join([b"1\n2\n3", *bodies]).split()
    assert len({*everything}) == len(everything) == 12


def test_others_take_slots_and_quota_as_far_as_there_are_any():
    with Service(steady(foreign_per_submit=1, max_active_jobs=3)) as service:
        assert [submit(service, NOON).status for _ in range(4)].count(200) < 3
        assert len(entries(service, NOON)) == 3
    with Service(steady(quota_ids=5)) as service:
        service.add_foreign(range(1, 4), NOON)
        assert submit(service, NOON).status == 400


def test_a_test_can_add_a_job_of_others_and_read_its_results():
    with Service(steady()) as service:
        job_id = service.add_foreign([8802619, 8802620], NOON)
        assert listed(service) == [job_id]
        results = ask(service, "GET", f"{JOB}/{job_id}/results", NOON + 60)
    assert [line.split(b",")[0] for line in results.body.splitlines()[1:]] == [b"8802619", b"8802620"]


def test_a_job_of_another_type_is_listed_and_not_found_among_contact_jobs():
    with Service(steady()) as service:
        job_id = service.add_foreign([1], NOON, job_type="enrich")
        assert rows(service)[0]["jobType"] == "enrich"
        assert listed(service, jobTypes="3") == [job_id]
        assert listed(service, jobTypes="2") == []
        assert ask(service, "GET", f"{JOB}/{job_id}", NOON).status == 404


@pytest.mark.parametrize(
    "options",
    [{"foreign_per_submit": -1}, {"foreign_per_page": float("nan")}, {"foreign_sizes": (3, 0)}, {"foreign_shared": -1},
     {"list_keeps": -1}, {"list_zone_h": 15}, {"list_dates": "year"}, {"list_status": "colour"}],
)  # fmt: skip
def test_settings_of_the_list_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        ServiceConfig(**options)
