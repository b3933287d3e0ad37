"""The simulated service as a state machine: what it promises to tests, demonstrations and benchmarks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path

import lxml.etree
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asking import (
    CREDENTIALS,
    DAY,
    JOB,
    JSON,
    LOGIN,
    NOON,
    TOKEN,
    ask,
    content,
    message,
    status,
    steady,
    submit,
    submit_id,
)  # fmt: skip

import bulkjobs.simulator as package
from bulkjobs.errors import ConfigError
from bulkjobs.simulator import (
    FaultPlan,
    Kind,
    Limit,
    Service,
    ServiceConfig,
    Span,
)
from bulkjobs.simulator.dates import expiry_text
from bulkjobs.simulator.idlist import count_ids
from bulkjobs.simulator.messages import Refusal
from bulkjobs.simulator.spelling import (
    read_count,
    read_counts,
    read_duration,
    read_rate,
    read_rule,
    read_span,
    read_text,
)  # fmt: skip

# --- independence -----------------------------------------------------------------------------------------


def test_the_simulator_imports_nothing_of_the_client():
    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.module if isinstance(node, ast.ImportFrom) else None
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [name or ""]
            for found in names:
                ours = found.split(".")[0] == "bulkjobs"
                assert not ours or found.startswith("bulkjobs.simulator") or found == "bulkjobs.errors", path
                assert found not in ("orjson", "lxml"), (
                    f"{path} writes answers with what the client reads them with"
                )


def test_the_service_without_a_socket_does_not_load_aiohttp():
    code = "import sys, bulkjobs.simulator as s; s.Service(s.ServiceConfig()).close(); sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_has_what_it_names_and_nothing_else():
    assert all(getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError):
        _ = package.Nonsense


def test_the_same_seed_and_the_same_requests_give_the_same_story():
    def story(seed):
        config = ServiceConfig(
            seed=seed, faults=FaultPlan.of("http503_after=0.5"), latency=Span(min_s=0, max_s=1)
        )
        with Service(config) as service:
            replies = [submit(service, now) for now in range(20)]
            return [(reply.status, reply.body, reply.delay_s) for reply in replies]

    assert story(1) == story(1)
    assert story(1) != story(2)


# --- answers ----------------------------------------------------------------------------------------------


def test_a_submission_is_answered_as_documented_in_json():
    with Service() as service:
        answer = content(submit(service, 0))
    assert answer | {"jobId": ""} == {"jobId": "", "status": "accepted", "type": "contacts"}
    assert re.fullmatch("[a-z0-9]{20}", answer["jobId"])


@pytest.mark.parametrize("accept", [{}, {"accept": "*/*"}, {"accept": "application/xml, application/json"}])
def test_xml_is_the_default_and_is_asked_for_by_accept(accept):
    with Service() as service:
        reply = submit(service, 0, headers={"accesstoken": TOKEN, **accept})
    root = lxml.etree.fromstring(reply.body)
    assert reply.content_type == "application/xml"
    assert root.tag == "BulkLeadEnrichmentStatus"
    assert [child.tag for child in root] == ["jobId", "status", "type"]
    assert root.findtext("type") == "contacts"


def test_the_type_is_contacts_on_submission_and_contact_from_then_on():
    with Service(steady()) as service:
        job_id = submit_id(service, 0)
        assert status(service, job_id, 1)["type"] == "contact"


def test_errors_have_the_envelope_in_both_forms():
    fields = ["errorType", "status", "errorNumber", "message", "diagnosticCode"]
    with Service() as service:
        as_json = content(ask(service, "GET", f"{JOB}/nosuchjob", 0))
        as_xml = lxml.etree.fromstring(
            ask(service, "GET", f"{JOB}/nosuchjob", 0, headers={"accesstoken": TOKEN}).body
        )
    assert list(as_json) == fields
    assert (as_json["status"], as_json["errorType"]) == (404, "Not Found")
    assert as_xml.tag == "error"
    assert [child.tag for child in as_xml] == fields


def test_text_of_the_client_cannot_break_the_xml():
    with Service() as service:
        reply = submit(service, 0, b"<&\x00]]>", headers={"accesstoken": TOKEN})
    assert "<&" in lxml.etree.fromstring(reply.body).findtext("message")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", 404),
        ("GET", JOB, 405),
        ("POST", f"{JOB}/abc", 405),
        ("GET", f"{JOB}/", 404),
        ("GET", f"{JOB}/abc/results", 404),
        ("PUT", "/api/v1/admin/jobs", 405),
        ("GET", "/Auth/login/v1/token.json", 405),
    ],
)
def test_unknown_paths_are_404_and_unknown_methods_405_with_the_known_ones(method, path, expected):
    with Service() as service:
        reply = ask(service, method, path, 0)
    assert reply.status == expected
    assert ("Allow" in dict(reply.headers)) == (expected == 405)


# --- the body of a submission -----------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [None, "", "application/json", "text/plain; charset=utf-8"])
def test_a_content_type_other_than_the_two_documented_ones_is_415(content_type):
    headers = JSON | ({} if content_type is None else {"content-type": content_type})
    with Service() as service:
        assert ask(service, "POST", JOB, 0, headers=headers, body=b"1").status == 415
        assert service.totals()["jobs"] == 0


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "Text/Plain"])
def test_both_documented_content_types_are_taken(content_type):
    with Service() as service:
        assert (
            ask(service, "POST", JOB, 0, headers=JSON | {"content-type": content_type}, body=b"1").status
            == 200
        )


@pytest.mark.parametrize(
    "body",
    [b" 1", b"1 ", b"1\n", b"\n1", b"1\n\n2", b"1,,2", b"1,\n2", b"1\r\n2", b"01", b"1\n02", b"0", b"+1", b"-1",
     b"1.0", b"1_2", b"1e5", b"\xef\xbb\xbf1", b"1\x002", b"\xd9\xa1", b"12345678901234567890", b",", b"1;2"],
)  # fmt: skip
def test_a_body_that_is_not_plainly_ids_is_refused_counted_and_makes_no_job(body):
    with Service() as service:
        reply = submit(service, 0, body)
        totals = service.totals()
    assert (reply.status, content(reply)["errorNumber"]) == (400, "400-107")
    assert (totals["jobs"], totals["malformed_bodies"], totals["submits_refused"]) == (0, 1, 1)


@given(
    st.lists(
        st.sampled_from([b"7", b"0", b"10", b"9" * 19, b"9" * 20, b",", b"\n", b"\r", b" ", b"x"]),
        max_size=12,
    )
)
def test_the_whole_buffer_check_agrees_with_the_grammar(pieces):
    body = b"".join(pieces)
    is_list = re.fullmatch(rb"[1-9][0-9]{0,18}(?:[,\n][1-9][0-9]{0,18})*", body)
    if is_list:
        assert count_ids(body, max_ids=100) == len(re.split(rb"[,\n]", body))
    else:
        with pytest.raises(Refusal):
            count_ids(body, max_ids=100)


@pytest.mark.parametrize(("ids", "expected"), [(0, 400), (1, 200), (10_000, 200), (10_001, 400)])
def test_a_job_takes_one_to_ten_thousand_ids(ids, expected):
    with Service() as service:
        assert submit(service, 0, b"\n".join(b"%d" % n for n in range(1, ids + 1))).status == expected
        assert service.totals()["ids"] == (ids if expected == 200 else 0)


@pytest.mark.parametrize("rule", ["5,*0007", frozenset({5, 10_007, 20_007})])
@pytest.mark.parametrize(
    ("body", "bad"),
    [(b"1,2,3", False), (b"1,5", True), (b"5", True), (b"55\n15,51", False), (b"4\n10007,6", True),
     (b"4,20007", True), (b"100070,7,70007" , None)],
)  # fmt: skip
def test_one_bad_id_refuses_the_whole_job_and_is_not_named(rule, body, bad):
    with Service(ServiceConfig(bad_ids=rule)) as service:
        reply = submit(service, 0, body)
        totals = service.totals()
    if bad is None:  # only the rule speaks of endings
        bad = isinstance(rule, str)
    assert totals["bad_id_refusals"] == totals["submits_refused"] == bad
    assert totals["malformed_bodies"] == 0
    assert totals["jobs"] == (not bad)
    if bad:
        assert (reply.status, content(reply)["errorNumber"]) == (400, "400-108")
        assert not re.search("[0-9]", message(reply))


@pytest.mark.parametrize(
    ("refusal", "words"), [(413, "larger than 10 bytes"), (400, "maximum 3 records at a time")]
)
def test_a_body_above_the_limit_is_refused_in_either_way(refusal, words):
    with Service(ServiceConfig(max_body_bytes=10, body_refusal=refusal)) as service:
        assert submit(service, 0, b"10,20\n30,4").status == 200
        reply = submit(service, 0, b"10,20\n30,40")
        totals = service.totals()
    assert reply.status == refusal
    assert words in message(reply)
    assert (totals["too_large"], totals["submits_refused"], totals["jobs"]) == (1, 1, 1)


# --- tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [{}, {"accesstoken": ""}, {"accesstoken": "other"}, {"authorization": TOKEN}]
)
def test_a_request_without_a_known_token_is_401_and_not_counted(headers):
    with Service(ServiceConfig(rate=Limit(count=1, window_s=300))) as service:
        for _ in range(5):
            assert submit(service, 0, headers=headers).status == 401
        assert submit(service, 0).status == 200
        assert service.totals()["unauthorized"] == 5


def test_a_token_of_the_login_is_good_until_it_expires():
    with Service(ServiceConfig(token_ttl_s=100)) as service:
        details = content(ask(service, "POST", f"{LOGIN}.json", NOON, headers={}, **CREDENTIALS))[
            "accessTokenDetails"
        ]
        headers = JSON | {"accesstoken": details["accessToken"]}
        assert submit(service, NOON + 99.9, headers=headers).status == 200
        assert submit(service, NOON + 100, headers=headers).status == 401
    assert details["tokenType"] == "bearer"
    assert details["expirationTime"] == "Tue, Mar 10, 2026 12:01:40 PM GMT"
    assert re.fullmatch(r"[A-Za-z0-9+/=]+\.[A-Za-z0-9+/=]+", details["accessToken"])


def test_the_login_answers_xml_under_its_other_path_unless_json_is_accepted():
    with Service() as service:
        plain = ask(service, "POST", LOGIN, 0, headers={}, **CREDENTIALS)
        asked = ask(service, "POST", LOGIN, 0, headers={"accept": "application/json"}, **CREDENTIALS)
    root = lxml.etree.fromstring(plain.body)
    assert root.tag == "accessTokenDetails"
    assert {child.tag for child in root} == set(content(asked)["accessTokenDetails"])
    assert root.findtext("accessToken") != content(asked)["accessTokenDetails"]["accessToken"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"clientSecret": "no"}, 401),
        ({"clientId": "no"}, 401),
        ({"grantType": "code"}, 400),
        ({"clientId": ""}, 400),
    ],
)
def test_the_login_refuses_what_is_not_this_accounts(change, expected):
    with Service() as service:
        assert ask(service, "POST", LOGIN, 0, headers={}, **(CREDENTIALS | change)).status == expected


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((2015, 7, 21, 21, 8, 17), "Tue, Jul 21, 2015 09:08:17 PM GMT"),
        ((2016, 2, 29, 0, 0, 0), "Mon, Feb 29, 2016 12:00:00 AM GMT"),
        ((2026, 12, 6, 12, 5, 9), "Sun, Dec 06, 2026 12:05:09 PM GMT"),
    ],
)
def test_the_expiry_is_written_with_english_names_and_twelve_hours(at, expected):
    assert expiry_text(datetime(*at, tzinfo=UTC).timestamp()) == expected


def test_secrets_stay_out_of_the_configurations_repr():
    text = repr(ServiceConfig(tokens=("hush",), client_secret="hush"))
    assert "hush" not in text


# --- throttle ---------------------------------------------------------------------------------------------


def usage_like(service, now, **headers):
    return ask(service, "GET", "/api/v1/admin/jobs", now, headers=JSON | headers).status


@given(
    steps=st.lists(st.integers(0, 8), max_size=80),
    count=st.integers(1, 5),
    window=st.integers(1, 12),
    lockout=st.integers(0, 12),
    extends=st.booleans(),
)
def test_sliding_window_and_lockout_agree_with_counting_everything_again(
    steps, count, window, lockout, extends
):
    config = ServiceConfig(
        rate=Limit(count=count, window_s=window), lockout_s=lockout, lockout_extends=extends
    )
    now, since, locked_until, arrivals, expected, peak = 0, -1e9, -1e9, [], [], 0
    times = []
    for step in steps:
        now += step
        times.append(now)
        if now < locked_until:
            expected.append(429)
            locked_until = now + lockout if extends else locked_until
            continue
        arrivals.append(now)
        peak = max(peak, sum(1 for at in arrivals if at > now - window))
        counted = [(at, n) for n, at in enumerate(arrivals) if at > now - window and n >= since]
        if len(counted) <= count:
            expected.append(200)
        else:
            expected.append(429)
            locked_until, since = now + lockout, len(arrivals)
    with Service(config) as service:
        assert [usage_like(service, at) for at in times] == expected
        totals = service.totals()
    assert totals["max_in_window"] == peak
    assert totals["throttled"] == expected.count(429)
    assert totals["requests_during_lockout"] == totals["throttled"] - totals["lockouts"]


def test_exceeding_the_limit_locks_every_token_out_for_the_period_and_the_count_restarts():
    with Service(ServiceConfig(rate=Limit(count=3, window_s=300), tokens=("a", "b"))) as service:
        assert [usage_like(service, at, accesstoken="a") for at in (0, 1, 2, 3)] == [200, 200, 200, 429]
        assert usage_like(service, 4, accesstoken="b") == 429
        assert usage_like(service, 302.999, accesstoken="b") == 429
        assert [usage_like(service, 303, accesstoken="b") for _ in range(3)] == [200] * 3
        (lockout,) = service.totals()["lockout_list"]
    assert lockout == {"began_at": 3, "until": 303, "requests": 2, "last_request_at": 302.999}


def test_a_request_exactly_one_window_later_is_in_the_next_one():
    with Service(ServiceConfig(rate=Limit(count=1, window_s=10))) as service:
        assert [usage_like(service, at) for at in (0, 10, 20)] == [200] * 3
        assert service.totals()["max_in_window"] == 1


def test_fixed_windows_let_a_double_burst_through_and_the_meter_shows_it():
    config = ServiceConfig(rate=Limit(count=5, window_s=100), fixed_window_phase_s=50)
    with Service(config) as service:
        assert {usage_like(service, at) for at in [149] * 5 + [150] * 5} == {200}
        assert service.totals()["max_in_window"] == 10
        assert usage_like(service, 151) == 429


def test_every_kind_of_request_counts_unless_the_configuration_leaves_it_out():
    with Service(ServiceConfig(rate=Limit(count=5, window_s=300))) as service:
        submit(service, 0, b"")
        ask(service, "GET", f"{JOB}/x", 0)
        ask(service, "DELETE", f"{JOB}/x", 0)
        ask(service, "GET", "/api/v1/admin/usage", 0)
        assert ask(service, "POST", LOGIN, 0, headers={}, **CREDENTIALS).status == 200
        assert ask(service, "GET", "/nowhere", 0).status == 429


def test_kinds_that_do_not_count_are_still_refused_during_a_lockout_but_the_login_is_not():
    config = ServiceConfig(rate=Limit(count=1, window_s=300), counted=frozenset({Kind.SUBMIT}))
    with Service(config) as service:
        assert {usage_like(service, 0) for _ in range(10)} == {200}
        assert [submit(service, 1).status for _ in range(2)] == [200, 429]
        assert usage_like(service, 2) == 429
        assert ask(service, "POST", LOGIN, 2, headers={}, **CREDENTIALS).status == 200


@pytest.mark.parametrize(
    ("form", "expected"), [(None, None), ("seconds", "30"), ("date", "30 s later"), ("soon", "soon")]
)
def test_retry_after_tells_the_clients_time_or_what_it_was_told_to_tell(form, expected):
    config = ServiceConfig(rate=Limit(count=1, window_s=300), retry_after=form)
    with Service(config, client_utc=lambda now: NOON + (now - NOON) / 10) as service:
        usage_like(service, NOON)
        headers = dict(ask(service, "GET", "/api/v1/admin/jobs", NOON).headers)
    if form == "date":
        assert parsedate_to_datetime(headers["Retry-After"]).timestamp() == NOON + 30
    else:
        assert headers.get("Retry-After") == expected


def test_without_a_rate_nothing_is_throttled_and_there_is_no_window():
    with Service() as service:
        assert {usage_like(service, 0) for _ in range(2000)} == {200}
        assert (service.totals()["max_in_window"], service.totals()["window_s"]) == (None, None)


# --- life cycle, slots, quota -----------------------------------------------------------------------------


def test_a_job_goes_from_accepted_through_processing_to_finished():
    with Service(steady(queue_s=10, job_s=60)) as service:
        job_id = submit_id(service, 0, b"\n".join([b"5"] * 100))
        seen = [status(service, job_id, at) for at in (0, 9.9, 10, 40, 69.9, 70, 1e6)]
    words = [answer["status"] for answer in seen]
    assert words == ["accepted", "accepted", "processing", "processing", "processing", "finished", "finished"]
    assert [answer["totalProcessed"] for answer in seen] == [0, 0, 0, 50, 99, 100, 100]


def test_a_share_of_the_jobs_fails():
    with Service(steady(job_failure_rate=0.5)) as service:
        jobs = [submit_id(service, 0) for _ in range(200)]
        failed = [status(service, job_id, 60)["status"] for job_id in jobs].count("failed")
    assert 60 < failed < 140


@given(seed=st.integers(0, 1000))
def test_durations_stay_within_their_ranges(seed):
    config = ServiceConfig(seed=seed, queue_time=Span(min_s=5, max_s=9), job_time=Span(min_s=60, max_s=120))
    with Service(config) as service:
        job_id = submit_id(service, 0)
        words = [status(service, job_id, at)["status"] for at in (4.9, 9.1, 64.9, 129.1)]
    assert words == ["accepted", "processing", "processing", "finished"]


def test_a_job_can_be_cancelled_only_before_it_starts():
    with Service(steady(queue_s=10, max_active_jobs=1)) as service:
        first = submit_id(service, 0)
        cancelled = ask(service, "DELETE", f"{JOB}/{first}", 9.9)
        assert content(cancelled) == {"jobId": first, "status": "aborted", "type": "contact"}
        assert status(service, first, 1000)["status"] == "aborted"
        second = submit_id(service, 9.9)  # the slot is free again
        late = ask(service, "DELETE", f"{JOB}/{second}", 19.9)
        assert (late.status, status(service, second, 19.9)["status"]) == (400, "processing")
        assert ask(service, "DELETE", f"{JOB}/{first}", 20).status == 400
        assert submit(service, 20).status == 400  # the cancelled job does not free a slot twice
        assert submit(service, 80).status == 200


def test_a_job_above_the_slots_is_refused_with_the_vendors_words_until_one_ends():
    with Service(steady(job_s=60, max_active_jobs=2)) as service:
        assert [submit(service, at).status for at in (0, 10)] == [200, 200]
        refused = submit(service, 59.9)
        assert refused.status == 400
        assert message(refused) == (
            "2 jobs are already running. Please try again once the previous jobs are finished."
        )
        assert submit(service, 60).status == 200
        assert submit(service, 60).status == 400


def test_slots_can_be_refused_as_the_successor_does_without_locking_anybody_out():
    with Service(steady(max_active_jobs=3, slots_refusal=429)) as service:
        replies = [submit(service, 0) for _ in range(4)]
        assert (replies[3].status, message(replies[3])) == (429, "Max 3 jobs are allowed at a time")
        assert usage_like(service, 0) == 200
        assert service.totals()["throttled"] == 0


def test_a_job_that_does_not_fit_the_quota_is_refused_and_a_cancelled_one_gives_it_back():
    with Service(steady(queue_s=10, quota_ids=5)) as service:
        job_id = submit_id(service, 0, b"1,2,3")
        refused = submit(service, 0, b"4,5,6")
        assert refused.status == 400
        assert "nsufficient transaction quota" in message(refused)
        assert submit(service, 0, b"4,5").status == 200
        ask(service, "DELETE", f"{JOB}/{job_id}", 1)
        assert submit(service, 1, b"4,5,6").status == 200


def test_usage_shows_debits_five_minutes_after_processing_began():
    def used(service, at):
        reply = ask(
            service, "GET", "/api/v1/admin/usage", at, period="day", start="2026-03-10", end="2026-03-10"
        )
        return content(reply)

    with Service(steady(queue_s=10, quota_ids=1000)) as service:
        submit_id(service, NOON)
        early, late = used(service, NOON + 309.9), used(service, NOON + 310)
    assert early["creditsForAccount"] == [{"allocatedCredits": 1000, "consumedCredits": 0}]
    assert late["creditsForAccount"] == [{"allocatedCredits": 1000, "consumedCredits": 3}]
    assert [(row["transactions"], row["date"]) for row in late["usageForAccount"]] == [(3, "2026-03-10")]
    assert early["usageForAccount"] == []
    assert late["bulkJobReferenceUrl"].endswith("/api/v1/admin/jobs")


def test_usage_in_xml_has_one_element_for_each_row():
    query = {"period": "year", "start": "2026", "end": "2026"}
    with Service(steady()) as service:
        submit_id(service, NOON)
        reply = ask(
            service, "GET", "/api/v1/admin/usage", NOON + 300, headers={"accesstoken": TOKEN}, **query
        )
    root = lxml.etree.fromstring(reply.body)
    assert root.findtext("usageForAccount/usage/transactions") == "3"
    assert root.findtext("creditsForAccount/credits/consumedCredits") == "3"


def test_usage_needs_its_parameters():
    with Service() as service:
        assert ask(service, "GET", "/api/v1/admin/usage", 0, period="day").status == 400


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"max_active_jobs": 0}, {"quota_ids": -1}, {"max_ids": 0}, {"job_failure_rate": 1.5}, {"lockout_s": -1},
     {"lockout_s": float("nan")}, {"token_ttl_s": 0}, {"list_lag_s": -1}, {"max_body_bytes": 0}, {"body_refusal": 414},
     {"bad_ids": "1;2"}, {"bad_ids": "0007*"}, {"results_missing": 2}, {"results_shape": "paper"}, {"results_id_column": ""},
     {"results_link_ttl_s": 0}, {"books_sync": True}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        ServiceConfig(**options)


@pytest.mark.parametrize("values", [(2, 1), (-1, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_range_runs_from_the_smaller_to_the_larger(values):
    with pytest.raises(ConfigError):
        Span(min_s=values[0], max_s=values[1])


def test_durations_ranges_rates_and_counts_are_read():
    assert [read_duration(text) for text in ("90", "1.5m", "200ms", "2h", "1d", "0s")] == [
        90,
        90,
        0.2,
        7200,
        DAY,
        0,
    ]
    assert read_span("60s..2m") == Span(min_s=60, max_s=120)
    assert read_span("5s") == Span(min_s=5, max_s=5)
    assert read_rate("900/5m") == Limit(count=900, window_s=300)
    assert read_rate("none") is read_count("none") is None
    assert read_count("17") == 17
    assert read_counts("100,10000") == (100, 10_000)
    assert read_counts("none") == ()
    assert (read_rule("*07"), read_rule("none")) == ("*07", "")
    assert (read_text("soon"), read_text("none")) == ("soon", None)


@pytest.mark.parametrize(
    ("read", "text"),
    [(read_duration, "5 m"), (read_duration, "-1"), (read_duration, ""), (read_duration, "1w"), (read_span, "2..1"),
     (read_span, ".."), (read_rate, "900"), (read_rate, "0/5m"), (read_rate, "9/0s"), (read_count, "2.5"),
     (read_counts, "1,none"), (read_counts, "1,,2"), (read_counts, "")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(read, text):
    with pytest.raises(ConfigError):
        read(text)


def test_job_ids_are_distinct():
    with Service() as service:
        jobs = [submit_id(service, 0, b"1") for _ in range(500)]
    assert all(a != b for a, b in pairwise(sorted(jobs)))
