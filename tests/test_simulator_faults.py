"""Faults: what goes wrong, when, and whether the request took effect."""

from __future__ import annotations

import json

import lxml.etree
import pytest
from support.asking import (
    JOB,
    NOON,
    TOKEN,
    ask,
    entries,
    listed,
    login,
    message,
    status,
    steady,
    submit,
    submit_id,
)  # fmt: skip

from bulkjobs.errors import ConfigError
from bulkjobs.simulator import FaultPlan, Service, ServiceConfig, Span, Wire


def usage_like(service, now):
    return ask(service, "GET", "/api/v1/admin/jobs", now).status


ANSWERED, NOTHING_SENT = Wire.ANSWER, b""


@pytest.mark.parametrize(
    ("name", "wire", "status_seen", "kind_seen", "jobs"),
    [
        ("reset_before", Wire.RESET, None, None, 0),
        ("reset_after", Wire.RESET, None, None, 1),
        ("close_before", Wire.CLOSE, None, None, 0),
        ("close_after", Wire.CLOSE, None, None, 1),
        ("cut_after", Wire.CUT, 200, "application/json", 1),
        ("html_before", ANSWERED, 200, "text/html", 0),
        ("html_after", ANSWERED, 200, "text/html", 1),
        ("mislabel_after", ANSWERED, 200, "text/html", 1),
        ("error200_before", ANSWERED, 200, "application/json", 0),
        ("error200_after", ANSWERED, 200, "application/json", 1),
        ("http500_before", ANSWERED, 500, "text/html", 0),
        ("http502_after", ANSWERED, 502, "text/html", 1),
        ("http503_after", ANSWERED, 503, "text/html", 1),
        ("http429_before", ANSWERED, 429, "application/json", 0),
        ("http401_before", ANSWERED, 401, "application/json", 0),
        ("http303_after", ANSWERED, 303, "application/json", 1),
        ("http504_late", ANSWERED, 504, "text/html", 1),
        ("close_late", Wire.CLOSE, None, None, 1),
        ("slow_after", ANSWERED, 200, "application/json", 1),
        ("reused_before", ANSWERED, 200, "application/json", 0),
        ("reused_after", ANSWERED, 200, "application/json", 1),
        ("input_before", ANSWERED, 400, "application/json", 0),
        ("quota_before", ANSWERED, 400, "application/json", 0),
        ("slots_before", ANSWERED, 400, "application/json", 0),
        ("http400_before", ANSWERED, 400, "application/json", 0),
        ("expire_before", ANSWERED, 401, "application/json", 0),
    ],
)
def test_a_fault_strikes_where_it_is_told_to_and_the_job_is_made_or_not(
    name, wire, status_seen, kind_seen, jobs
):
    with Service(ServiceConfig(faults=FaultPlan.of(f"submit:{name}@2"))) as service:
        assert submit(service, 0).status == 200
        reply = submit(service, 1)
        assert submit(service, 2).status == 200
        totals = service.totals()
    assert reply.wire is wire
    if status_seen is not None:
        assert (reply.status, reply.content_type) == (status_seen, kind_seen)
    assert totals["jobs"] == 2 + jobs
    assert totals["faults"] == {name: 1}


def test_a_fault_after_a_refusal_spoils_the_refusal_and_makes_no_job():
    with Service(ServiceConfig(faults=FaultPlan.of("submit:reset_after@1"))) as service:
        assert submit(service, 0, b"not ids").wire is Wire.RESET
        totals = service.totals()
    assert (totals["jobs"], totals["submits_refused"], totals["faults"]) == (0, 1, {"reset_after": 1})


def test_a_burst_strikes_from_its_first_request_to_its_last():
    plan = FaultPlan.of("submit:http502_before@3-5", "submit:http503_after@5-6", "submit:reset_before@4")
    with Service(ServiceConfig(faults=plan)) as service:
        replies = [submit(service, at) for at in range(8)]
    assert [reply.status for reply in replies] == [200, 200, 502, 200, 502, 503, 200, 200]
    assert (
        replies[3].wire is Wire.RESET
    )  # a rule for one request goes before one for a range, and that by order


@pytest.mark.parametrize("status", range(300, 309))
def test_a_redirect_leads_back_to_where_the_request_went(status):
    with Service(ServiceConfig(faults=FaultPlan.of(f"submit:http{status}_after@1"))) as service:
        reply = submit(service, 0)
    assert reply.status == status
    assert dict(reply.headers) == {"Location": JOB}


def test_a_reused_id_is_that_of_the_clients_job_before_and_needs_one():
    plan = FaultPlan.of(
        "submit:reused_before@1", "submit:reused_before@2", "submit:reused_after@3", "status:reused_after@1"
    )
    with Service(steady(faults=plan)) as service:
        first = submit_id(service, 0, b"1")
        service.add_foreign([7], 0)
        assert [submit_id(service, 0, b"2"), submit_id(service, 0, b"3")] == [first, first]
        assert status(service, first, 1)["jobId"] == first
        last = submit_id(service, 1, b"4")
        own = [line["jobId"] for line in entries(service, 1) if not line["foreign"]]
        assert (len(own), own[0], own[2]) == (3, first, last)
        assert service.totals()["faults"] == {"reused_before": 1, "reused_after": 1}


@pytest.mark.parametrize(
    ("name", "words"),
    [("input", "Illegal values"), ("quota", "transaction quota"), ("slots", "jobs are already running")],
)
def test_a_refusal_of_the_service_can_be_asked_for_by_name(name, words):
    with Service(ServiceConfig(faults=FaultPlan.of(f"submit:{name}_before@1"))) as service:
        assert words in message(submit(service, 0))
        assert service.totals()["submits_refused"] == 1


def test_all_tokens_of_the_login_can_expire_at_once():
    plan = FaultPlan.of("submit:expire_before@2")
    with Service(ServiceConfig(faults=plan)) as service:
        workers = [login(service, 0) for _ in range(3)]
        assert submit(service, 1, headers=workers[0]).status == 200
        assert [submit(service, 2, headers=headers).status for headers in workers] == [401] * 3
        assert submit(service, 3).status == 200  # with the token that is good for ever
        assert submit(service, 4, headers=login(service, 4)).status == 200


def test_a_lockout_can_begin_without_a_rate():
    config = ServiceConfig(faults=FaultPlan.of("submit:lockout_before@2"), retry_after="seconds")
    with Service(config) as service:
        assert [submit(service, at).status for at in (0, 10, 20, 309.9, 310)] == [200, 429, 429, 429, 200]
        assert service.totals()["requests_during_lockout"] == 2
    with Service(config) as service:
        assert [dict(submit(service, at).headers) for at in (0, 10)] == [{}, {"Retry-After": "300"}]


def test_a_slow_answer_comes_later_and_takes_effect_at_once():
    plan = FaultPlan.of("submit:slow_after@1", slow_s=500)
    with Service(ServiceConfig(faults=plan, latency=Span(min_s=1, max_s=1))) as service:
        assert [submit(service, 0).delay_s for _ in range(2)] == [501, 1]
        assert service.totals()["jobs"] == 2


def test_a_mislabelled_xml_answer_claims_to_be_json():
    with Service(ServiceConfig(faults=FaultPlan.of("mislabel_after=1"))) as service:
        reply = submit(service, 0, headers={"accesstoken": TOKEN})
    assert reply.content_type == "application/json"
    assert lxml.etree.fromstring(reply.body).findtext("status") == "accepted"


def test_a_late_job_cannot_be_seen_until_it_appears():
    with Service(steady(faults=FaultPlan.of("submit:reset_late@1", late_s=240))) as service:
        assert submit(service, NOON).wire is Wire.RESET
        in_order = submit_id(service, NOON + 1)
        assert listed(service, NOON + 239) == [in_order]
        late = json.loads(ask(service, "GET", "/_sim/books/jobs", NOON + 239).body.splitlines()[0])
        assert late["state"] == "late"
        assert ask(service, "GET", f"{JOB}/{late['jobId']}", NOON + 239).status == 404
        assert listed(service, NOON + 240) == [in_order, late["jobId"]]
        assert status(service, late["jobId"], NOON + 240)["status"] == "processing"


def test_rates_hit_about_their_share_and_only_their_kind():
    plan = FaultPlan.of("submit:reset_after=0.2", "submit:close_before=0.1")
    with Service(ServiceConfig(faults=plan)) as service:
        for _ in range(2000):
            submit(service, 0)
            assert usage_like(service, 0) == 200
        faults = service.totals()["faults"]
    assert 320 < faults["reset_after"] < 480
    assert 140 < faults["close_before"] < 260


def test_what_else_is_asked_does_not_move_the_faults_of_a_kind():
    def struck(polls):
        with Service(ServiceConfig(faults=FaultPlan.of("http503_before=0.3"))) as service:
            out = []
            for _ in range(50):
                out.append(submit(service, 0).status)
                for _ in range(polls):
                    usage_like(service, 0)
            return out

    assert struck(0) == struck(3)


def test_latency_is_in_its_range_and_delays_the_answer_only():
    with Service(steady(latency=Span(min_s=1, max_s=2))) as service:
        replies = [submit(service, 0) for _ in range(50)]
        assert all(1 <= reply.delay_s <= 2 for reply in replies)
        assert len({reply.delay_s for reply in replies}) > 40
        assert service.totals()["jobs"] == 50


@pytest.mark.parametrize(
    "text",
    ["reset", "reset_after", "cut_before=1", "boom_after=1", "reset_after=2", "reset_after=x", "submit:reset_after@0",
     "reset_after@3", "nobody:reset_after=1", "http200_after=1", "http600_before=1", "reset_after=-1", "",
     "submit:reset_after@5-3", "reset_after@3-5", "submit:reset_after@3-", "http404_late=1", "quota_after=1"],
)  # fmt: skip
def test_a_fault_rule_that_makes_no_sense_is_refused(text):
    with pytest.raises(ConfigError):
        FaultPlan.of(text)


@pytest.mark.parametrize("times", [{"late_s": -1}, {"slow_s": -1}, {"slow_s": float("inf")}])
def test_times_of_faults_that_make_no_sense_are_refused(times):
    with pytest.raises(ConfigError):
        FaultPlan(**times)


def test_fault_rates_that_add_up_to_more_than_one_are_refused():
    with pytest.raises(ConfigError, match="add up"):
        FaultPlan.of("reset_after=0.6", "submit:close_after=0.6")
