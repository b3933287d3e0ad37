"""Logs and progress: what people and machines read of events, and that it never becomes a flood."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from functools import partial
from typing import get_args

import pytest
from rich.console import Console
from support import telling
from support.telling import NOON, HandClock

from bulkjobs.events import (
    AttemptNotApplied,
    BaselineMissing,
    ChunkHeld,
    ChunkPlanned,
    ChunkRefused,
    ChunkSettled,
    ChunkSplit,
    ChunkStaysHeld,
    Controlled,
    ControlMissing,
    Event,
    JobChanged,
    LimitLearned,
    LockedOut,
    LockoutEnded,
    OneSubmitTries,
    PollFailed,
    QuotaRead,
    QuotaUnknown,
    ReconcileWaits,
    RequestEnded,
    RunFinished,
    RunFinishedBefore,
    RunStarted,
    SessionOpened,
    SlotsFull,
    SourceProgress,
    StateNotShared,
    Stopping,
    SubmitsPaused,
    SubmitsResumed,
    TokenRefreshed,
)
from bulkjobs.model import Cause, JobState, RequestKind, RunSummary
from bulkjobs.observers import LogObserver, ProgressObserver
from bulkjobs.observers.progress import state_line
from bulkjobs.observers.totals import Totals, eta_text, one_line
from bulkjobs.observers.wording import Level, say
from bulkjobs.planning import Eta


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    """Clocks on the wall show UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


accepted = partial(telling.accepted, ids=10_000)


def not_sent(attempt=1):
    return AttemptNotApplied(
        chunk=1, attempt=attempt, cause=Cause.NOT_SENT, reason="Connection refused.", wait_s=2.0
    )


def job_ended():
    return JobChanged(job_id="job1", state=JobState.FINISHED, word="finished")


def command(word):
    return Controlled(command=word, value=None, origin="control")


def read(count=20_000, *, finished=False):
    return SourceProgress(
        source="ids.txt",
        position_bytes=50,
        size_bytes=200,
        read=count,
        invalid=3,
        duplicate=7,
        finished=finished,
    )


SUMMARY = RunSummary(
    run_id="r1",
    endpoint="contacts",
    ids={"read": 10, "invalid": 1, "duplicate": 0, "accepted": 9, "refused": 0, "held": 0, "pending": 0},
    chunks={"total": 1, "accepted": 1, "refused": 0, "held": 0, "pending": 0},
    jobs={"finished": 1},
    requests={"submit": 1, "throttled": 0},
    lockouts=0,
    elapsed_s=1.5,
    exit_code=3,
)

SHORT = QuotaRead(
    allocated=90_000,
    consumed=10_000,
    undebited=10_000,
    allowance=20_000,
    left=50_000,
    needed=80_000,
    exact=False,
    fits=False,
)


def opened(**bounds):
    figures = {"requests": None, "window_s": None, "slots": None, "planned_ids": None}
    return SessionOpened(**figures | bounds, workers=1, resumed=False, settled_ids=0)


EXAMPLES = [
    RunStarted(run_id="r1", run_dir="ids.run", resumed=False, held_at_start=0),
    opened(requests=900, window_s=300.0, slots=2),
    SHORT,
    QuotaUnknown(reason="HTTP 404"),
    read(),
    ChunkPlanned(chunk=1, ids=10_000),
    accepted(),
    ChunkRefused(chunk=2, ids=10_000, reason="Bad input.", path="ids.run/refused/2.txt"),
    ChunkHeld(chunk=3, ids=10_000, reason="Status 502."),
    ChunkSplit(chunk=5, ids=10_000, parts=2, reason="HTTP 413."),
    BaselineMissing(reason="HTTP 404"),
    ReconcileWaits(chunks=2, until_utc=1_767_225_600.0, wait_s=600.0, reason="a job may still appear"),
    ChunkSettled(chunk=3, ids=10_000, job_id="j3", reason="its results hold these ids"),
    ChunkStaysHeld(chunk=4, ids=10_000, reason="two jobs fit"),
    not_sent(),
    LockedOut(until_utc=NOON + 309, wait_s=309.0, reason="Status 429."),
    LockoutEnded(),
    SubmitsPaused(until_utc=NOON + 10, wait_s=10.0, reason="3 outcomes in a row are unknown"),
    OneSubmitTries(reason="the server answers again"),
    SubmitsResumed(),
    RunFinishedBefore(run_id="r1", run_dir="ids.run"),
    LimitLearned(requests=810, window_s=300.0),
    StateNotShared(reason="the folder cannot be made: Permission denied."),
    SlotsFull(reason="2 of 2 are busy."),
    job_ended(),
    PollFailed(job_id="job1", reason="Timed out.", wait_s=10.0),
    RequestEnded(kind=RequestKind.STATUS, outcome="answered"),
    TokenRefreshed(reason="The old one was not taken."),
    Controlled(command="pause", value=None, origin="control, uid 1000, pid 42"),
    ControlMissing(reason="there can be no socket in the.run: Operation not permitted"),
    Stopping(reason="SIGINT was received."),
    RunFinished(summary=SUMMARY),
]


class Log:
    """A log in memory with a clock set by hand."""

    def __init__(self, **options):
        self.clock, self.stream = HandClock(), io.StringIO()
        self.observer = LogObserver(self.stream, clock=self.clock, **options)

    def __call__(self, *events, after_s=0.0):
        """Plays events, each so many seconds after the one before; gives the new lines."""
        begin = self.stream.tell()
        for event in events:
            self.clock.now += after_s
            self.observer(event)
        return self.stream.getvalue()[begin:].splitlines()


# Wording


def test_each_kind_of_event_has_an_example_here():
    """A new event is not forgotten."""
    assert {type(event) for event in EXAMPLES} == set(get_args(Event))


@pytest.mark.parametrize(
    ("command", "value", "says"),
    [
        ("pause", None, "Paused: nothing is submitted until `resume`. What is in flight is recorded (me)."),
        ("resume", None, "Submitting goes on (me)."),
        ("drain", None, "Told to drain (me)."),
        ("rate", "20/1m", "The limit of the account is 20/1m now (me)."),
        ("workers", "3", "The number of workers is 3 now (me)."),
    ],
)
def test_a_command_is_told_with_its_origin(command, value, says):
    assert say(Controlled(command=command, value=value, origin="me")).text == says


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_is_one_line_or_none(event):
    """And one JSON object or none, with the event's name."""
    assert len(Log(least=Level.DEBUG)(event)) == (say(event) is not None)
    for line in Log(format="json")(event):
        fields = json.loads(line)
        assert list(fields)[:3] == ["ts", "level", "event"]
        assert fields["event"].replace("_", "") == type(event).__name__.lower()


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (not_sent(), Level.WARN),
        (LockedOut(until_utc=NOON, wait_s=1, reason="x"), Level.WARN),
        (ChunkHeld(chunk=1, ids=1, reason="x"), Level.ERROR),
        (ChunkRefused(chunk=1, ids=1, reason="x", path="p"), Level.ERROR),
        (AttemptNotApplied(chunk=1, attempt=1, cause=Cause.NO_QUOTA, reason="x", wait_s=0), Level.ERROR),
        (JobChanged(job_id="j", state=JobState.FAILED, word="failed"), Level.ERROR),
        (JobChanged(job_id="j", state=JobState.UNKNOWN, word="odd"), Level.WARN),
        (RunStarted(run_id="r", run_dir="d", resumed=True, held_at_start=2), Level.ERROR),
        (accepted(remark="It says finished."), Level.WARN),
    ],
)
def test_error_means_that_a_person_is_needed(event, level):
    """And warn that the run goes on by itself."""
    saying = say(event)
    assert saying is not None
    assert saying.level is level


def test_a_line_shows_the_time_the_level_and_what_happened():
    """In words, with the end of the wait."""
    (line,) = Log()(LockedOut(until_utc=NOON + 309, wait_s=309.2, reason="Status 429."))
    day = time.strftime("%Y-%m-%d", time.gmtime(NOON))
    assert line == f"{day} 12:00:00 warn  Locked out until 12:05:09 (309 s): Status 429. Nothing is sent."


def test_json_carries_the_record_flat():
    """So that a log store can index it."""
    (line,) = Log(format="json")(accepted())
    assert json.loads(line) == {
        "ts": time.strftime("%Y-%m-%dT12:00:00.000Z", time.gmtime(NOON)),
        "level": "debug",
        "event": "chunk_accepted",
        **accepted().record.as_dict(),
        "elapsed_s": 0.5,
        "remark": None,
    }


def test_text_from_the_server_cannot_move_the_cursor_or_start_a_line():
    """A reason is data."""
    (line,) = Log()(ChunkHeld(chunk=1, ids=1, reason="bad\n\x1b[2Jfake line"))
    assert r"bad\n\x1b[2Jfake line" in line
    assert one_line("é→ ok") == "é→ ok"


# Never a flood


def test_accepted_chunks_are_sums_in_a_log_for_people():
    """A thousand a second are one line in thirty seconds."""
    log = Log(every_s=30.0)
    lines = log(*(accepted(chunk) for chunk in range(1, 1001)), after_s=0.1)
    assert len(lines) == 3
    assert "accepted" in lines[-1]


def test_sums_come_only_when_something_changed():
    """Silence is no news."""
    log = Log(every_s=30.0)
    log(read())
    assert len(log(LockoutEnded(), after_s=31.0)) == 2
    assert len(log(LockoutEnded(), after_s=31.0)) == 1


def test_an_outage_is_a_line_at_its_start_some_now_and_then_and_one_at_its_end():
    """A thousand attempts in an hour and more."""
    log = Log(every_s=30.0)
    (first,) = log(not_sent())
    assert "Connection refused." in first
    lines = [line for line in log(*map(not_sent, range(2, 1001)), after_s=4.0) if "not_sent" in line]
    assert 5 < len(lines) < 15
    assert "more like this" in lines[0]
    over = log(accepted(), after_s=130.0)
    assert any("not_sent, 1,000 times in all" in line for line in over)
    assert any("Connection refused." in line for line in log(not_sent()))


def test_the_end_of_the_run_tells_what_was_still_counted():
    """Nothing passed over stays unsaid."""
    log = Log()
    log(*map(not_sent, range(1, 6)))
    assert any("5 times in all" in line for line in log(RunFinished(summary=SUMMARY)))


def test_every_lockout_is_told_but_not_its_extensions():
    """The end of one makes the next one news."""
    log = Log()
    locked = LockedOut(until_utc=NOON + 300, wait_s=300, reason="Status 429.")
    assert len(log(locked, locked, locked)) == 1
    log(LockoutEnded())
    assert len(log(locked)) == 1


def test_quiet_leaves_what_needs_a_person():
    """`--quiet` is a log from ERROR up."""
    lines = Log(least=Level.ERROR)(*EXAMPLES)
    assert [line.split()[2] for line in lines] == ["error"] * 4


def test_quiet_tells_once_what_goes_wrong_for_a_minute():
    """A server that cannot be reached keeps a run waiting for ever, which nobody would know."""
    log = Log(least=Level.ERROR)
    assert log(*map(not_sent, range(1, 31)), after_s=2.0) == []
    lines = log(*map(not_sent, range(31, 1001)), after_s=2.0)
    assert len(lines) == 1
    assert "error Nothing has gone on for 60 s; the run keeps trying. Attempt 31 of chunk 1" in lines[0]
    assert "Connection refused." in lines[0]


def test_quiet_tells_it_again_only_after_something_went_right():
    """Each outage is news; one that ends within the minute is none."""
    log = Log(least=Level.ERROR)
    log(not_sent(), not_sent(), after_s=61.0)
    assert log(accepted(), not_sent(), not_sent(), after_s=50.0) == []
    assert len(log(not_sent(), not_sent(), after_s=50.0)) == 1


def test_quiet_says_nothing_of_the_waits_that_belong_to_a_run():
    """A lock-out of five minutes and a job slot that takes an hour end by themselves."""
    log = Log(least=Level.ERROR)
    locked = LockedOut(until_utc=NOON + 300, wait_s=300, reason="Status 429.")
    assert log(locked, LockoutEnded(), locked, LockoutEnded(), after_s=300.0) == []
    assert log(*[SlotsFull(reason="2 of 2 are busy.")] * 60, after_s=60.0) == []


def test_a_name_that_is_no_utf_8_is_escaped_in_json():
    """File names on disk are bytes."""
    (line,) = Log(format="json")(
        RunStarted(run_id="r1", run_dir="caf\udce9.run", resumed=False, held_at_start=0)
    )
    assert json.loads(line)["run_dir"] == r"caf\udce9.run"


def test_a_stream_that_broke_is_let_go():
    """A closed terminal does not end a run."""

    class Broken(io.StringIO):
        calls = 0

        def write(self, text):
            self.calls += 1
            raise BrokenPipeError

    stream = Broken()
    observer = LogObserver(stream, clock=HandClock())
    observer(LockoutEnded())
    observer(LockoutEnded())
    assert stream.calls == 1


# Totals and the display


def test_totals_add_up_ids():
    """From whatever happened to them."""
    totals = Totals()
    for event in EXAMPLES:
        totals.add(event)
    assert (totals.read, totals.invalid, totals.duplicate) == (20_000, 3, 7)
    # The held one was found to be accepted.
    assert (totals.accepted, totals.refused, totals.held) == (20_000, 10_000, 0)
    assert totals.part_read == 0.25


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([], "starting"),
        ([LockedOut(until_utc=NOON + 12, wait_s=12, reason="x")], "locked out until 12:00:12 (12 s)"),
        ([LockedOut(until_utc=NOON - 5, wait_s=12, reason="x")], "locked out until 11:59:55 (0 s)"),
        ([LockedOut(until_utc=NOON + 12, wait_s=12, reason="x"), LockoutEnded()], "submitting"),
        ([SlotsFull(reason="2 of 2 busy")], "waiting for a job slot: 2 of 2 busy"),
        ([SlotsFull(reason="2 of 2 busy"), accepted()], "waiting for a job slot: 2 of 2 busy"),
        ([SlotsFull(reason="2 of 2 busy"), job_ended()], "submitting"),
        (
            [LockedOut(until_utc=NOON + 12, wait_s=12, reason="x"), accepted()],
            "locked out until 12:00:12 (12 s)",
        ),
        (
            [LockedOut(until_utc=NOON + 12, wait_s=12, reason="x"), job_ended()],
            "locked out until 12:00:12 (12 s)",
        ),
        ([not_sent(), accepted()], "submitting"),
        ([not_sent()], "the server cannot be reached: Connection refused."),
        ([command("pause")], "paused by `bulkjobs control`; starting"),
        (
            [LockedOut(until_utc=NOON + 12, wait_s=12, reason="x"), command("pause"), accepted()],
            "paused by `bulkjobs control`; locked out until 12:00:12 (12 s)",
        ),
        ([command("pause"), accepted(), command("resume")], "submitting"),
        ([command("pause"), command("drain"), Stopping(reason="drain.")], "stopping: drain."),
        ([Stopping(reason="SIGINT."), accepted()], "stopping: SIGINT."),
        ([Stopping(reason="SIGINT."), RunFinished(summary=SUMMARY)], "finished"),
    ],
)
def test_the_state_line_says_what_is_waited_for(events, line):
    """And until when, if that is known."""
    totals = Totals()
    for event in events:
        totals.add(event)
    assert state_line(totals, NOON) == line


def shown(progress, console):
    with console.capture() as capture:
        console.print(progress._draw())
    return capture.get()


def test_the_display_shows_what_was_read_and_what_became_of_it():
    """With the part read and the rate."""
    console, clock = (
        Console(width=100, file=io.StringIO(), force_terminal=True, color_system=None),
        HandClock(),
    )
    progress = ProgressObserver(console, clock=clock)
    shown(progress, console)
    for event in [read(), accepted(), LockedOut(until_utc=NOON + 60, wait_s=60, reason="x")]:
        progress(event)
    clock.now += 10
    text = shown(progress, console)
    for part in ("25.0%", "ids.txt", "20,000 read", "3 invalid", "7 duplicate", "10,000 accepted", "0 held"):
        assert part in text
    assert "1,000 ids/s" in text
    assert "locked out until 12:01:00 (50 s)" in text


def display(*events):
    console = Console(width=120, file=io.StringIO(), force_terminal=True, color_system=None)
    progress = ProgressObserver(console, clock=HandClock())
    for event in events:
        progress(event)
    return shown(progress, console)


def test_the_display_says_if_the_quota_may_not_last():
    """With both figures."""
    assert "needs about 80,000 ids, about 50,000 left of the quota" in display(SHORT)
    assert "quota" not in display(dataclasses.replace(SHORT, fits=True))


def test_the_display_says_when_all_will_be_sent():
    """A range, or why there is none."""
    assert "all sent at a time not known yet: nothing was answered yet" in display(opened())
    assert "nothing was answered yet" in display(opened(), read())
    bounded = opened(requests=1, window_s=3600.0, planned_ids=40_000)
    assert "all sent in 2 h to 4 h (14:00 to 16:00)" in display(bounded, accepted())


def test_the_display_says_nothing_of_an_end_that_is_near_or_will_not_come():
    """While the run stops the state line says so."""
    assert "all sent" not in display(opened(), accepted(), Stopping(reason="SIGINT."))


@pytest.mark.parametrize(
    ("low_s", "high_s", "text"),
    [
        (0, 0, "in 0 s (12:00)"),
        (10, 119, "in 10 s to 119 s (12:00 to 12:01)"),
        (120, 7199, "in 2 min to 120 min (12:02 to 13:59)"),
        (7200, 100_000, "in 2 h to 28 h (14:00 to 2027-01-16 15:46)"),
        (172_800, 10_000_000, "in 2 d to 116 d (2027-01-17 12:00 to 2027-05-11 05:46)"),
    ],
)
def test_how_long_it_takes_is_said_in_the_unit_that_suits_it(low_s, high_s, text):
    """And with no more digits than anybody can know."""
    assert eta_text(Eta(low_utc=NOON + low_s, high_utc=NOON + high_s), NOON) == text


def test_an_event_draws_nothing():
    """A thousand events are a thousand additions."""
    stream = io.StringIO()
    progress = ProgressObserver(Console(file=stream, force_terminal=True), clock=HandClock())
    for chunk in range(1000):
        progress(accepted(chunk))
    assert stream.getvalue() == ""


def test_lines_stand_above_the_display_and_markup_in_them_is_text():
    """A reason with brackets is not a style."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=60)
    with ProgressObserver(console, clock=HandClock()) as progress:
        LogObserver(progress, clock=HandClock(), least=Level.WARN)(
            ChunkHeld(chunk=1, ids=5, reason="[red]broken[/red] and [not closed")
        )
        progress(RunFinished(summary=SUMMARY))
    assert "[red]broken[/red]" in stream.getvalue()


def test_a_terminal_that_is_gone_ends_no_run():
    """It hung up, and everything that is drawn fails."""

    class Gone(io.StringIO):
        asked = 0

        def write(self, text):
            self.asked += 1
            raise OSError(5, "Input/output error")

    terminal = Gone()
    console = Console(file=terminal, force_terminal=True, width=60)
    with ProgressObserver(console, clock=HandClock()) as progress:
        before = terminal.asked
        LogObserver(progress, clock=HandClock())(Stopping(reason="SIGHUP."))
    assert 0 < before < terminal.asked
