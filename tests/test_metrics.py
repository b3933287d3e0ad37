"""The file of metrics: what events make of it, when it is written, and that it never gets in the way."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import stat
import sys
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.simulated import BASE_URL, LOGIN_URL, TOKEN, SimulatedTransport
from support.telling import NOON, HandClock, accepted

from bulkjobs.__main__ import main
from bulkjobs.engine import Engine
from bulkjobs.errors import ConfigError
from bulkjobs.events import (
    AttemptNotApplied,
    ChunkHeld,
    ChunkRefused,
    ChunkSettled,
    ChunkSplit,
    Controlled,
    JobChanged,
    LimitLearned,
    LockedOut,
    LockoutEnded,
    QuotaRead,
    RequestEnded,
    RunFinished,
    RunFinishedBefore,
    RunStarted,
    SessionOpened,
    SlotsFull,
    SourceProgress,
    Stopping,
    SubmitsPaused,
)
from bulkjobs.exits import Exit
from bulkjobs.model import Cause, JobState, RequestKind, RunSummary
from bulkjobs.observers.figures import METRICS
from bulkjobs.observers.metrics import MetricsObserver
from bulkjobs.rundir import RunDir
from bulkjobs.settings import Rate, Secret, Settings
from bulkjobs.simulator import FaultPlan, Limit, Service, ServiceConfig, Span
from bulkjobs.sinks import open_sink
from bulkjobs.sources import FileSource
from bulkjobs.testing import VirtualClock, run_virtual

STARTED = RunStarted(run_id="r1", run_dir="ids.run", resumed=False, held_at_start=0)
LOCKED = LockedOut(until_utc=NOON + 309, wait_s=309.0, reason="Status 429.")


def read(count, *, finished=False):
    return SourceProgress(
        source="ids.txt",
        position_bytes=8 * count,
        size_bytes=8_000,
        read=count,
        invalid=3,
        duplicate=7,
        finished=finished,
        run_position_bytes=8 * count,
        run_size_bytes=8_000,
    )


def account(*, chunks=None, jobs=None, exit_code=0, **ids):
    ids = dict.fromkeys(("invalid", "duplicate", "accepted", "refused", "held", "pending"), 0) | ids
    chunks = {"accepted": 0, "refused": 0, "held": 0, "pending": 0} | (chunks or {})
    return RunSummary(
        run_id="r1",
        endpoint="contacts",
        ids={"read": sum(ids.values()), **ids},
        chunks={"total": sum(chunks.values()), **chunks},
        jobs=jobs or {},
        requests={"submit": 1},
        lockouts=0,
        elapsed_s=1.0,
        exit_code=exit_code,
    )


def opened(found=None, **more):
    figures = {"requests": 900, "window_s": 300.0, "slots": 2, "planned_ids": None} | more
    return SessionOpened(
        **figures, workers=8, resumed=found is not None, settled_ids=0, account=found or account()
    )


def not_applied(cause):
    return AttemptNotApplied(chunk=1, attempt=1, cause=cause, reason="x", wait_s=1.0)


def job(name, state):
    return JobChanged(job_id=name, state=state, word=state.value)


class Metrics:
    """A file of metrics with a clock set by hand."""

    def __init__(self, folder, clock=None):
        self.path = folder / "bulkjobs.prom"
        self.clock, self.warnings = clock or HandClock(), []
        self.observer = MetricsObserver(
            self.path, endpoint="contacts", clock=self.clock, warn=self.warnings.append
        )

    def __call__(self, *events, after_s=10.0):
        """Plays events, so many seconds apart; gives what is in the file then."""
        for event in events:
            self.observer(event)
            self.clock.now += after_s
        return values(self.path)


def values(path):
    """Gives each value by its name and its label, if it has one besides the run."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            assert sample.labels.pop("run_id")
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


def labelled(found, name):
    return {key[1]: value for key, value in found.items() if key[0] == name}


@pytest.fixture
def metrics(tmp_path):
    return Metrics(tmp_path)


# From events to values


def test_ids_are_those_of_the_run_and_add_up(metrics):
    """What earlier sessions did is in it; a session that goes on reads from the beginning."""
    found = account(accepted=1_000, held=200, pending=300, invalid=3, duplicate=7)
    settled = ChunkSettled(chunk=1, ids=200, job_id="j", reason="its results hold these ids")
    refused = ChunkRefused(chunk=3, ids=100, reason="Bad.", path="p")
    held = ChunkHeld(chunk=4, ids=50, reason="Status 502.")
    seen = metrics(
        STARTED, opened(found), read(10), accepted(2), refused, held, settled, Stopping(reason="x")
    )
    assert labelled(seen, "bulkjobs_ids") == {
        "read": 1_510,
        "invalid": 3,
        "duplicate": 7,
        "accepted": 1_300,
        "refused": 100,
        "held": 50,
        "pending": 50,
    }
    assert labelled(seen, "bulkjobs_chunks") == {"accepted": 2, "refused": 1, "held": 0}


def test_reading_on_makes_ids_pending(metrics):
    seen = metrics(STARTED, opened(), read(900), Stopping(reason="x"))
    ids = labelled(seen, "bulkjobs_ids")
    assert (ids["read"], ids["pending"]) == (900, 890)


def test_jobs_are_counted_by_the_end_that_was_seen_of_them(metrics):
    """Those of earlier sessions too."""
    found = account(jobs={"processing": 2, "finished": 5, "failed": 1})
    changes = [job("a", JobState.PROCESSING), job("a", JobState.FINISHED), job("job1", JobState.FAILED)]
    seen = metrics(STARTED, opened(found), accepted(), *changes, Stopping(reason="x"))
    assert labelled(seen, "bulkjobs_jobs") == {"open": 1, "finished": 6, "failed": 2, "aborted": 0}


def test_at_the_end_the_account_of_the_ledger_counts(metrics):
    """And nothing is waited for any more."""
    summary = account(
        accepted=90, held=10, exit_code=4, jobs={"finished": 1}, chunks={"accepted": 1, "held": 1}
    )
    seen = metrics(STARTED, opened(), accepted(), LOCKED, LockoutEnded(), RunFinished(summary=summary))
    assert labelled(seen, "bulkjobs_ids") == summary.ids
    assert labelled(seen, "bulkjobs_chunks") == {"accepted": 1, "refused": 0, "held": 1}
    assert labelled(seen, "bulkjobs_jobs") == {"open": 0, "finished": 1, "failed": 0, "aborted": 0}
    assert (seen["bulkjobs_running",], seen["bulkjobs_exit_code",]) == (0, 4)
    assert set(labelled(seen, "bulkjobs_waiting").values()) == {0}


def test_what_had_no_effect_is_counted_by_its_cause(metrics):
    """Each cause has a value from the start, so that a rate can be taken of the first one."""
    seen = metrics(STARTED, not_applied(Cause.THROTTLED), not_applied(Cause.THROTTLED), Stopping(reason="x"))
    causes = labelled(seen, "bulkjobs_attempts_not_applied_total")
    assert causes == dict.fromkeys((cause.value for cause in Cause), 0) | {"throttled": 2}


def test_requests_are_counted_by_kind_and_outcome(metrics):
    """One that never left is none."""
    found = metrics(
        STARTED,
        opened(),
        accepted(),
        ChunkRefused(chunk=2, ids=5, reason="x", path="x"),
        ChunkSplit(chunk=3, ids=5, parts=2, reason="x"),
        ChunkHeld(chunk=4, ids=5, reason="x"),
        *map(not_applied, (Cause.THROTTLED, Cause.SLOTS_FULL, Cause.NOT_SENT)),
        RequestEnded(kind=RequestKind.STATUS, outcome="answered"),
        RequestEnded(kind=RequestKind.STATUS, outcome="answered"),
        RequestEnded(kind=RequestKind.LOGIN, outcome="throttled"),
        RequestEnded(kind=RequestKind.LIST, outcome="unknown"),
    )
    requests = {key[1:]: value for key, value in found.items() if key[0] == "bulkjobs_requests_total"}
    assert requests == dict.fromkeys(product(RequestKind, ("answered", "throttled", "unknown")), 0) | {
        ("submit", "answered"): 4,
        ("submit", "throttled"): 1,
        ("submit", "unknown"): 1,
        ("status", "answered"): 2,
        ("login", "throttled"): 1,
        ("list", "unknown"): 1,
    }


def test_a_lock_out_shows_when_it_ends_until_it_has_ended(metrics):
    """It is one, however often it is made longer."""
    until = ("bulkjobs_locked_out_until_timestamp_seconds",)
    assert metrics(STARTED)[until] == 0
    seen = metrics(LOCKED, replace(LOCKED, until_utc=NOON + 400))
    assert (seen[until], seen["bulkjobs_lockouts_total",]) == (NOON + 400, 1)
    assert seen["bulkjobs_waiting", "lockout"] == 1
    seen = metrics(LockoutEnded())
    assert (seen[until], seen["bulkjobs_lockouts_total",]) == (0, 1)
    assert seen["bulkjobs_waiting", "lockout"] == 0


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (SlotsFull(reason="2 of 2 are busy"), "slot"),
        (SubmitsPaused(until_utc=NOON + 9, wait_s=9.0, reason="3 outcomes are unknown"), "outage"),
        (LOCKED, "lockout"),
    ],
)
def test_what_is_waited_for_is_in_the_file_at_once(metrics, event, reason):
    """It is announced before the wait begins, and the wait may last for hours."""
    metrics(STARTED, opened(), after_s=0.0)
    waiting = labelled(metrics(event), "bulkjobs_waiting")
    assert {word for word, value in waiting.items() if value} == {reason}


def test_a_pause_and_a_stop_are_in_the_file_at_once(metrics):
    def command(word):
        return Controlled(command=word, value=None, origin="control")

    assert metrics(STARTED, command("pause"), after_s=0.0)["bulkjobs_paused",] == 1
    assert metrics(command("resume"), after_s=0.0)["bulkjobs_paused",] == 0
    assert metrics(Stopping(reason="SIGINT"), after_s=0.0)["bulkjobs_stopping",] == 1


def test_the_limit_is_the_one_in_force(metrics):
    """That of the settings, then what was learned; none has no value."""
    limit, window = ("bulkjobs_limit_requests",), ("bulkjobs_limit_window_seconds",)
    seen = metrics(STARTED, opened())
    assert (seen[limit], seen[window]) == (900, 300)
    seen = metrics(LimitLearned(requests=810, window_s=300.0))
    assert (seen[limit], seen[window]) == (810, 300)
    seen = metrics(Controlled(command="rate", value="none", origin="control"))
    assert limit not in seen


def test_answers_of_submits_are_a_histogram(metrics):
    times = (0.05, 0.3, 0.4, 900.0)
    seen = metrics(
        STARTED, opened(), *(accepted(n, elapsed_s=elapsed_s) for n, elapsed_s in enumerate(times))
    )
    buckets = labelled(seen, "bulkjobs_submit_answer_seconds_bucket")
    assert (buckets["0.05"], buckets["0.25"], buckets["0.5"]) == (1, 1, 3)
    assert (buckets["300.0"], buckets["+Inf"]) == (3, 4)
    assert seen["bulkjobs_submit_answer_seconds_count",] == 4
    assert seen["bulkjobs_submit_answer_seconds_sum",] == pytest.approx(900.75)


def test_what_may_be_spent_is_told_if_it_is_known(metrics):
    """What is accepted or held counts; what earlier sessions held counted before."""
    left = ("bulkjobs_spend_cap_left_ids",)
    assert left not in metrics(STARTED, opened())
    quota = QuotaRead(
        allocated=900, consumed=100, undebited=0, allowance=0, left=800, needed=500, exact=True, fits=True
    )
    held = [ChunkHeld(chunk=2, ids=50, reason="x"), ChunkSettled(chunk=0, ids=70, job_id="j", reason="x")]
    seen = metrics(opened(spendable_ids=1_000), quota, accepted(), *held, Stopping(reason="x"))
    assert seen[left] == 850
    assert (seen["bulkjobs_quota_left_ids",], seen["bulkjobs_quota_needed_ids",]) == (800, 500)


def test_when_all_will_be_sent_is_a_range_once_anybody_can_tell(metrics):
    low, high = ("bulkjobs_eta_low_timestamp_seconds",), ("bulkjobs_eta_high_timestamp_seconds",)
    assert low not in metrics(STARTED, opened(requests=1, window_s=3_600.0, slots=None))
    seen = metrics(read(900), *(accepted(chunk) for chunk in range(1, 5)))
    assert NOON < seen[low] < seen[high]


def test_nothing_but_the_run_and_fixed_words_is_in_labels(metrics):
    """No id, no job, no reason, no path."""
    secret = "canary-5b1e"
    metrics(STARTED, opened(), accepted(), ChunkHeld(chunk=1, ids=5, reason=secret), Stopping(reason=secret))
    text = metrics.path.read_text()
    assert secret not in text
    assert not re.search("8800001|job1|ids.txt|ids.run", text)


def test_names_are_those_of_prometheus():
    """Counters end in `_total`, nothing else does, and each name stands for one metric."""
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch("bulkjobs_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")


# The file


def test_figures_are_written_every_few_seconds_only(metrics):
    """A thousand chunks a second are one file in five seconds."""
    metrics(STARTED, opened(), after_s=0.0)
    written = {metrics.path.stat().st_mtime_ns}
    for chunk in range(200):
        metrics.observer(accepted(chunk))
        metrics.clock.now += 0.1
        written.add(metrics.path.stat().st_mtime_ns)
    assert len(written) == 4


def test_slots_that_are_full_at_every_submit_are_told_once(metrics):
    """Until they were not."""
    full = SlotsFull(reason="2 of 2 are busy")
    metrics(STARTED, opened(), full, after_s=0.0)
    before = metrics.path.read_text()
    metrics.clock.now += 1
    metrics(full, full, after_s=0.0)
    assert metrics.path.read_text() == before
    metrics(job("job1", JobState.FINISHED), full, after_s=0.0)
    assert metrics.path.read_text() != before


def test_the_last_event_before_a_long_silence_is_seen(tmp_path):
    """The file follows within seconds, although nothing more happens."""

    async def silence():
        clock = VirtualClock()
        metrics = Metrics(tmp_path, clock)
        for event in (STARTED, opened(), accepted()):
            metrics.observer(event)
        before = values(metrics.path)
        await asyncio.sleep(6)
        return before, values(metrics.path)

    before, after = run_virtual(silence())
    assert (before["bulkjobs_ids", "accepted"], after["bulkjobs_ids", "accepted"]) == (0, 100)


def test_a_clock_that_was_set_back_stops_nothing(metrics):
    metrics(STARTED, opened())
    metrics.clock.now -= 86_400
    assert metrics(accepted())["bulkjobs_ids", "accepted"] == 100


def test_the_file_is_replaced_as_a_whole(metrics):
    """Whoever has it open reads it to its end as it was; nothing else is left in the folder."""
    metrics(STARTED)
    with metrics.path.open() as reader:
        metrics(opened(), LOCKED)
        assert 'bulkjobs_locked_out_until_timestamp_seconds{run_id="r1"} 0.0' in reader.read()
    assert list(metrics.path.parent.iterdir()) == [metrics.path]


def test_only_its_owner_reads_the_file_unless_it_was_there(metrics):
    """Whoever wants the node exporter of another user to read it makes it before."""
    metrics(STARTED)
    assert stat.S_IMODE(metrics.path.stat().st_mode) == 0o600
    metrics.path.chmod(0o644)
    metrics(opened())
    assert stat.S_IMODE(metrics.path.stat().st_mode) == 0o644


def test_a_file_that_cannot_be_written_is_told_once(tmp_path):
    """And written when it can be."""
    metrics = Metrics(tmp_path / "missing")
    for event in (STARTED, opened(), LOCKED):
        metrics.observer(event)
    (warning,) = metrics.warnings
    assert str(metrics.path) in warning
    assert "No such file or directory" in warning
    metrics.path.parent.mkdir()
    assert metrics(LockoutEnded())["bulkjobs_lockouts_total",] == 1


def test_a_disk_that_is_full_leaves_the_file_as_it_was(metrics, monkeypatch):
    """And nothing half written beside it."""
    before = metrics(STARTED)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    assert metrics(opened()) == before
    assert list(metrics.path.parent.iterdir()) == [metrics.path]
    assert len(metrics.warnings) == 1


@pytest.mark.parametrize("content", ["8800001\n8800002\n", "# HELP node_load1 1m load average.\n"])
def test_a_file_that_holds_something_else_is_not_replaced(tmp_path, content):
    """A slip of the hand must not cost the ids."""
    path = tmp_path / "ids.txt"
    path.write_text(content)
    with pytest.raises(ConfigError, match="something else than metrics"):
        MetricsObserver(path, endpoint="contacts", clock=HandClock(), warn=pytest.fail)
    assert path.read_text() == content


def test_what_is_no_file_is_not_replaced(tmp_path):
    """A device, a folder, a link to wherever."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in (tmp_path / "link", tmp_path):
        with pytest.raises(ConfigError, match="no regular file"):
            MetricsObserver(path, endpoint="contacts", clock=HandClock(), warn=pytest.fail)


def test_a_file_of_an_earlier_session_and_an_empty_one_are_replaced(tmp_path):
    first = Metrics(tmp_path)
    first(STARTED, opened(), accepted(), Stopping(reason="x"))
    assert Metrics(tmp_path)(STARTED)["bulkjobs_running",] == 1
    first.path.write_bytes(b"")
    assert Metrics(tmp_path)(STARTED)["bulkjobs_running",] == 1


def test_a_run_that_was_finished_before_leaves_the_file_as_it_is(metrics):
    """It knows nothing of what the session did that finished it."""
    metrics.observer(RunFinishedBefore(run_id="r1", run_dir="ids.run"))
    assert not metrics.path.exists()


def test_a_session_that_broke_is_not_shown_as_running(metrics):
    """There is no last event."""
    with pytest.raises(RuntimeError), metrics.observer:
        assert metrics(STARTED)["bulkjobs_running",] == 1
        raise RuntimeError
    assert values(metrics.path)["bulkjobs_running",] == 0


def test_two_sessions_in_one_process_know_nothing_of_each_other(tmp_path):
    (tmp_path / "other").mkdir()
    one, other = Metrics(tmp_path), Metrics(tmp_path / "other")
    one(STARTED, LOCKED)
    assert other(STARTED)["bulkjobs_lockouts_total",] == 0


# From the command line


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """An empty folder, and no option in the environment but a token and an address where nobody listens."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BULKJOBS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", "token")
    monkeypatch.setenv("BULKJOBS_BASE_URL", "http://127.0.0.1:9/api/v1")
    (tmp_path / "ids.txt").write_text("1\n2\n")
    return tmp_path


def test_without_the_library_nothing_begins_and_what_to_install_is_said(shell, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert main(["submit", "ids.txt", "--metrics", "m.prom"]) == Exit.USAGE
    assert "pip install prometheus_client" in capsys.readouterr().err
    assert list(shell.iterdir()) == [shell / "ids.txt"]


def test_a_file_of_ids_given_for_metrics_is_wrong_usage(shell, capsys):
    assert main(["submit", "ids.txt", "--metrics", "ids.txt"]) == Exit.USAGE
    assert "something else than metrics" in capsys.readouterr().err
    assert (shell / "ids.txt").read_text() == "1\n2\n"


# With the engine


class World:
    """A service with a limit, a source of ids and a file of metrics, on virtual time."""

    def __init__(self, folder, config, **more):
        self.service, self.clock = Service(config), VirtualClock()
        (folder / "ids.txt").write_text("".join(f"{n}\n" for n in range(5_000_001, 5_000_151)))
        self.source, self.run_dir = FileSource(folder / "ids.txt"), RunDir(folder / "run")
        self.path = folder / "bulkjobs.prom"
        settings = {"rate": None, "pace": None, "max_active_jobs": None, "workers": 1} | more
        self.settings = Settings(
            on_unknown="hold",
            base_url=BASE_URL,
            login_url=LOGIN_URL,
            access_token=Secret(TOKEN),
            chunk_size=10,
            forecast=False,
            **settings,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.service.close()

    def run(self, observe):
        self.metrics = MetricsObserver(self.path, endpoint="contacts", clock=self.clock, warn=pytest.fail)
        engine = Engine(
            self.settings,
            self.run_dir,
            sources=[self.source],
            sinks=[open_sink(self.run_dir.jobs)],
            observers=[self.metrics, observe],
            clock=self.clock,
            transport=SimulatedTransport(self.service, clock=self.clock, request_timeout_s=300.0),
            jitter=random.Random(1),
        )
        began_utc = self.clock.epoch_utc
        try:
            return run_virtual(engine.run())
        finally:
            self.clock.epoch_utc = began_utc + 3_600


AT_ONCE = Span(min_s=0.0, max_s=0.0)


def test_the_end_of_a_lock_out_is_in_the_file_before_the_wait_begins(tmp_path):
    """And gone when it is over; whatever happens in between stands in it within seconds."""
    config = ServiceConfig(job_time=AT_ONCE, rate=Limit(count=10, window_s=300.0), lockout_s=300.0)
    until = ("bulkjobs_locked_out_until_timestamp_seconds",)
    seen = []

    def look(event):
        if isinstance(event, LockedOut | LockoutEnded):
            seen.append((event, world.clock.utc(), values(world.path)[until]))

    with World(tmp_path, config, rate=Rate(count=30, period_s=300.0)) as world:
        summary = world.run(look)
    (locked, began_utc, shown_utc), (_, over_utc, then_utc) = seen
    assert shown_utc == locked.until_utc == pytest.approx(began_utc + 309, abs=0.1)
    assert over_utc >= locked.until_utc
    assert then_utc == 0
    assert (summary.exit_code, values(world.path)["bulkjobs_lockouts_total",]) == (Exit.ACCEPTED, 1)


def test_as_many_requests_are_counted_as_the_ledger_has(tmp_path):
    """Whatever became of them."""
    faults = FaultPlan.of(
        "submit:reset_after@3", "submit:http503_before@5", "status:reset_after@4", "status:lockout_before@9"
    )
    config = ServiceConfig(
        job_time=Span(min_s=1.0, max_s=9.0),
        max_active_jobs=2,
        rate=Limit(count=40, window_s=60.0),
        faults=faults,
    )
    with World(tmp_path, config, max_active_jobs=2) as world:
        summary = world.run(lambda _: None)
        found = values(world.path)
    counted = Counter()
    for (name, *labels), value in found.items():
        if name == "bulkjobs_requests_total":
            counted[labels[0]] += value
            counted["throttled"] += value if labels[1] == "throttled" else 0
    assert +counted == +Counter(summary.requests)
    assert counted["throttled"]


def test_what_events_add_up_to_is_what_the_ledger_says(tmp_path):
    """Also when a session goes on where another one stopped, and settles what that one held."""
    faults = FaultPlan.of("submit:reset_after@3")
    config = ServiceConfig(job_time=Span(min_s=1.0, max_s=9.0), max_active_jobs=2, faults=faults)
    with World(tmp_path, config, max_active_jobs=2) as world:
        for spend_cap, on_unknown in ((70, "hold"), (500, "reconcile")):
            world.settings = replace(world.settings, spend_cap=spend_cap, on_unknown=on_unknown)
            shown = []

            def look(event, shown=shown):
                if not isinstance(event, RunStarted | RunFinished):
                    figures = world.metrics._figures
                    shown[:] = [figures.ids(), figures.chunks(), figures.spend_cap_left()]

            summary = world.run(look)
            assert summary.ids["held"] == (10 if on_unknown == "hold" else 0)
            left = spend_cap - summary.ids["accepted"] - summary.ids["held"]
            chunks = {state: summary.chunks[state] for state in ("accepted", "refused", "held")}
            assert shown[1:] == [chunks, left]
            # What was read ahead when the cap ended the sending may not be in the ledger.
            assert shown[0] | {"read": 0, "pending": 0} == summary.ids | {"read": 0, "pending": 0}
            assert labelled(values(world.path), "bulkjobs_ids") == summary.ids
        assert summary.ids["accepted"] == summary.ids["read"] == 150
