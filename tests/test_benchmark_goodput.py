"""The pure parts of the goodput comparison: the optimum, what the books tell, the rounds put together."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.goodput.__main__ import Plan, main
from benchmarks.goodput.account import VARIANTS, Account, optimum_s
from benchmarks.goodput.books import Entry, Story, WrongBooks, read_entries, read_submissions, tell
from benchmarks.goodput.roster import ROSTER, Errand
from benchmarks.goodput.summary import spread, summary, table
from bulkjobs.simulator import Limit, Service, ServiceConfig, SimRequest

ACCOUNT = Account(
    count=3,
    window_s=10.0,
    lockout_s=10.0,
    transit_s=(0.0, 0.04),
    latency_s=(0.01, 0.04),
    slots=None,
    job_s=4.0,
)


def test_the_optimum_is_full_windows_one_upon_the_other():
    assert optimum_s(ACCOUNT, 7) == [0, 0, 0, 10, 10, 10, 20]


def test_the_optimum_refills_a_slot_the_moment_its_job_ends():
    assert optimum_s(replace(ACCOUNT, count=100, slots=2), 5) == [0, 0, 4, 4, 8]


def test_the_optimum_keeps_window_and_slots_at_once():
    assert optimum_s(replace(ACCOUNT, slots=2), 7) == [0, 0, 4, 10, 10, 14, 20]


@pytest.mark.parametrize("slots", [None, 2], ids=["window alone", "window and slots"])
def test_the_service_takes_a_submission_at_its_optimal_time_and_not_before(slots):
    account = replace(ACCOUNT, slots=slots)
    times = optimum_s(account, 7)
    config = {"rate": Limit(count=3, window_s=10.0), "lockout_s": 10.0, "max_active_jobs": slots}
    span = ServiceConfig().job_time
    config["job_time"] = replace(span, min_s=account.job_s, max_s=account.job_s)
    assert statuses(config, times) == [200] * 7
    for number in range(1, 7):
        if times[number] > times[number - 1]:
            hasty = [*times[:number], times[number] - 0.01]
            assert statuses(config, hasty)[-1] != 200, f"chunk {number + 1} could have come earlier"


def statuses(config, times):
    with Service(ServiceConfig(**config)) as service:
        return [
            service.handle(submission(b"%d" % (number + 1)), at).status for number, at in enumerate(times)
        ]


def submission(body):
    headers = {"accesstoken": "simulator-token", "content-type": "text/plain", "accept": "application/json"}
    return SimRequest(method="POST", path="/api/v1/contact/job", query={}, headers=headers, body=body)


IDS = frozenset({b"1", b"2", b"3", b"4"})
FIRST, SECOND = Entry(at=100.5, ids=(b"1", b"2")), Entry(at=103.0, ids=(b"3", b"4"))
TOTALS = {
    "requests": {"submit": 3, "list": 1},
    "throttled": 1,
    "lockout_list": [{"began_at": 101.0}],
    "max_in_window": 3,
}


def story(entries=(FIRST, SECOND), submissions=(100.0, 101.0, 103.0)) -> Story:
    return tell(entries, submissions, TOTALS, IDS)


def test_a_story_counts_its_time_from_the_first_submission():
    told = story()
    assert told.curve == ((0.5, 2), (3.0, 4))
    assert (told.lockouts, told.finished_s, told.last_submission_s) == ((1.0,), 3.0, 3.0)


def test_an_id_in_two_jobs_is_paid_twice_and_accepted_once():
    told = story([FIRST, replace(FIRST, at=101.0), SECOND])
    assert (told.accepted, told.paid_twice, told.never_accepted) == (4, 2, 0)
    assert told.curve == ((0.5, 2), (3.0, 4))


def test_whatever_brought_no_new_id_is_wasted():
    assert (story().requests, story().wasted) == (4, 2)
    assert story([FIRST]).wasted == 3


def test_a_story_without_all_ids_never_finishes():
    told = story([FIRST])
    assert (told.never_accepted, told.finished_s) == (2, None)


def test_a_contender_that_sent_nothing_has_a_story_too():
    told = tell([], [], {**TOTALS, "requests": {}, "lockout_list": []}, IDS)
    assert (told.curve, told.accepted, told.finished_s) == ((), 0, None)
    assert told.share_of_optimum(2.0) == 0


def test_an_id_that_nobody_was_given_is_a_wrong_result():
    with pytest.raises(WrongBooks, match="b'9'"):
        story([Entry(at=101.0, ids=(b"1", b"9"))])


def test_the_share_of_the_optimum_is_one_over_how_many_times_as_long_it_took():
    assert story().share_of_optimum(1.5) == 0.5


def test_the_share_of_the_optimum_counts_ids_that_are_missing():
    assert story([FIRST]).share_of_optimum(1.5) == 0.25


def test_giving_up_early_gains_nothing():
    assert story([FIRST], submissions=[100.0]).share_of_optimum(60.0) == 0.5


def test_work_of_one_burst_is_done_at_its_optimum():
    at_once = story([Entry(at=100.0, ids=tuple(IDS))], submissions=[100.0])
    assert at_once.share_of_optimum(0.0) == 1.0


def test_the_books_on_disk_are_read_as_the_service_wrote_them(tmp_path):
    books = tmp_path / "books"
    limits = ServiceConfig(books=books, rate=Limit(count=1, window_s=10.0), lockout_s=10.0)
    with Service(limits) as service:
        replies = [service.handle(submission(body), at) for body, at in ((b"1\n2", 100.0), (b"3,4", 104.0))]
        replies.append(service.handle(submission(b"3,4"), 115.0))
    assert [reply.status for reply in replies] == [200, 429, 200]
    assert read_entries(books) == [Entry(at=100.0, ids=(b"1", b"2")), Entry(at=115.0, ids=(b"3", b"4"))]
    assert read_submissions(books) == [100.0, 104.0, 115.0]


def test_the_middle_round_is_a_round_and_infinite_when_half_never_ended():
    assert spread([3.0, 1.0, 2.0]).median == 2.0
    assert spread([1.0, math.inf]).median == math.inf


def test_a_summary_is_fit_for_json_also_when_something_never_came_about():
    figures = summary([story(), story([FIRST]), story([FIRST])], 1.5)
    assert figures["finished_s"] == {"median": None, "least": 3.0, "most": None}
    assert "Infinity" not in json.dumps(figures)


def test_the_table_has_a_row_for_each_contender_with_the_spread_where_there_is_one():
    drawn = table({"steady": [story(), story()], "not": [story(), story([FIRST]), story([FIRST])]}, 1.5)
    heading, _, steady, other = (line.strip("| ").split(" | ") for line in drawn.splitlines())
    assert len(heading) + 1 == len(steady) == len(other)
    assert steady == ["steady", "0", "0", "1", "4", "1", "2", "3.0", "50%"]
    assert other[-2:] == ["never (3.0 to never)", "25% (25% to 50%)"]


def test_the_variants_change_one_thing_each():
    exact, too_high, lost = VARIANTS.values()
    assert (exact.told_count(ACCOUNT), exact.faults) == (3, ())
    assert too_high.told_count(replace(ACCOUNT, count=20)) == 24
    assert too_high.faults == ()
    assert lost.told_count(ACCOUNT) == 3
    assert all("_after@" in rule for rule in lost.faults if rule != "--fault")


def test_a_contender_that_lacks_something_says_what():
    lacking = replace(ROSTER["curl"], program="no-such-program")
    assert lacking.missing() == "no-such-program"
    assert (
        replace(lacking, program=None, libraries=("aiohttp", "no-such-library")).missing()
        == "no-such-library"
    )
    assert ROSTER["bulkjobs"].missing() is None


def test_a_contender_knows_nothing_of_this_shell_and_of_earlier_rounds(tmp_path, monkeypatch):
    monkeypatch.setenv("BULKJOBS_RATE", "1/1h")
    errand = Errand(
        ids=tmp_path / "ids.txt", chunk_ids=100, base_url="http://127.0.0.1:1/api/v1", token="t", count=24,
        window_s=2.0, lockout_s=2.0, slots=None, folder=tmp_path,
    )  # fmt: skip
    assert "BULKJOBS_RATE" not in errand.environ
    assert Path(errand.environ["XDG_STATE_HOME"]).is_relative_to(tmp_path)
    for contender in ROSTER.values():
        command = " ".join(contender.command(errand))
        assert "24" in command, "each is told the limit that the variant says"
        assert str(errand.ids) in command
        assert errand.token not in contender.command(errand), "a token on a command line is everybody's"


def test_the_last_request_of_the_optimum_holds_what_is_left():
    plan = Plan(
        account=ACCOUNT,
        ids=350,
        chunk_ids=100,
        contenders=(),
        variants=(),
        rounds=1,
        seed=1,
        limit_s=1.0,
        out=None,
    )
    assert plan.optimum == [(0, 100), (0, 200), (0, 300), (10, 350)]


@pytest.mark.parametrize(
    "options",
    [
        ["--contenders", "nobody"], ["--variants", "lucky"], ["--rounds", "0"], ["--rate", "none"], ["--rate", "often"],
        ["--lockout", "long"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_senseless_comparison_is_refused_before_anything_is_started(options, capsys):
    with pytest.raises(SystemExit) as refused:
        main(options)
    assert refused.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
