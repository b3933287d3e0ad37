"""The command line: what reaches the engine, what reaches the person, and the exit code."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

import bulkjobs.client
from bulkjobs.__main__ import main
from bulkjobs.cli import demo
from bulkjobs.cli.session import Interrupts
from bulkjobs.errors import (
    AuthError,
    ConfigError,
    InternalError,
    LedgerError,
    LedgerLocked,
    SinkError,
    SourceChanged,
    SourceError,
)
from bulkjobs.events import RunStarted
from bulkjobs.model import RunSummary
from bulkjobs.settings import OPTIONS, Rate

CANARY = "canary-5b1e"
RealClient = bulkjobs.client.Client


def summary(exit_code=0, **ids):
    counts = {"invalid": 0, "duplicate": 0, "accepted": 0, "refused": 0, "held": 0, "pending": 0} | ids
    return RunSummary(
        run_id="r1",
        endpoint="contacts",
        ids={"read": sum(counts.values()), **counts},
        chunks={"total": 1, "accepted": 1, "refused": 0, "held": 0, "pending": 0},
        jobs={"accepted": 1},
        requests={"submit": 1, "throttled": 0},
        lockouts=0,
        elapsed_s=3725.0,
        exit_code=exit_code,
    )


class FakeClient:
    """Stands in for the engine: does what `story` says and remembers what it was asked."""

    made: ClassVar[list[FakeClient]] = []

    def __init__(self, settings, *, run, observers):
        self.settings, self.run_dir, self.observers = settings, run, observers
        self.sources = None
        self.drained, self.cancelled = [], 0
        self.asked_to_end = asyncio.Event()
        FakeClient.made.append(self)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error):
        return None

    async def run(self, *sources):
        self.sources = sources
        return await self.story()

    def drain(self, reason, *, exit_code):
        self.drained.append((reason, int(exit_code)))
        self.asked_to_end.set()

    def cancel(self):
        self.cancelled += 1
        self.asked_to_end.set()

    async def story(self):
        self.begin()
        return summary(accepted=10)

    def begin(self):
        started = RunStarted(run_id="r1", run_dir=str(self.run_dir), resumed=False, held_at_start=0)
        for observer in self.observers:
            observer(started)


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    """Each test runs in an empty directory, with no options in the environment and a fake engine."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BULKJOBS_"):
            monkeypatch.delenv(name)
    FakeClient.made = []
    monkeypatch.setattr(bulkjobs.client, "Client", FakeClient)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def tells(monkeypatch):
    """Sets what the engine does, as a coroutine function of the client or an exception."""

    def set_story(story):
        async def raising(_client):
            raise story

        monkeypatch.setattr(FakeClient, "story", raising if isinstance(story, BaseException) else story)

    return set_story


def ends_with(ended, *, began=True):
    async def story(client):
        if began:
            client.begin()
        return ended

    return story


# The door


def test_the_version_is_told_without_loading_what_a_run_needs():
    """A shell script that asks for it does not wait for aiohttp."""
    code = (
        "import sys; from bulkjobs.__main__ import main; code = main(['--version']);"
        "print(code, [name for name in ('rich', 'aiohttp', 'numpy', 'lxml') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=checkout()
    )
    version, loaded = done.stdout.splitlines()
    assert version.startswith("bulkjobs ")
    assert loaded == "0 []"


def test_without_a_command_there_is_help_and_exit_code_2(capsys):
    """Nothing happens by accident."""
    assert main([]) == 2
    out = "".join(capsys.readouterr())
    for command in ("submit", "resume", "status", "simulate", "demo"):
        assert command in out


@pytest.mark.parametrize("command", ["submit", "resume"])
def test_help_names_every_option_of_the_table_once(command, capsys):
    """Where the option stands, its help and its default stand too."""
    assert main([command, "--help"]) == 0
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    for option in OPTIONS:
        expected = 0 if (command, option.name) == ("resume", "--run") else 1
        assert words.count(option.name) == expected, option.name


@pytest.mark.parametrize(
    "arguments",
    [["submit"], ["submit", "a", "--nosuch"], ["nosuch"], ["resume"], ["resume", "a", "--run", "b"]],
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    """And says what is wrong."""
    assert main(arguments) == 2
    assert "Error" in capsys.readouterr().err
    assert FakeClient.made == []


def test_an_interrupt_before_anything_began_is_130(monkeypatch):
    """As shells expect."""
    monkeypatch.setattr("bulkjobs.__main__.run", raise_interrupt)
    assert main(["demo"]) == 130


def raise_interrupt(_arguments):
    raise KeyboardInterrupt


# What reaches the engine


def test_options_sources_and_run_directory_reach_the_client(monkeypatch):
    """From the command line, the environment and the file."""
    Path("bulkjobs.toml").write_text("workers = 3\nrate = '5/1s'\n")
    monkeypatch.setenv("BULKJOBS_RATE", "7/1s")
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", CANARY)
    code = main(
        [
            "submit",
            "a.txt",
            "b.txt",
            "--poll",
            "2s",
            "--no-dedupe",
            "--sink",
            "x.jsonl",
            "--sink",
            "y.jsonl",
        ]
    )
    (client,) = FakeClient.made
    settings = client.settings
    assert code == 0
    assert client.sources == ("a.txt", "b.txt")
    assert str(client.run_dir) == "a.txt.run"
    assert (settings.workers, settings.rate, settings.poll_s) == (3, Rate(count=7, period_s=1), 2.0)
    assert (settings.dedupe, settings.sinks) == (False, ("x.jsonl", "y.jsonl"))
    assert settings.access_token.reveal() == CANARY


@pytest.mark.parametrize(
    ("arguments", "run_dir"),
    [
        (["ids.txt.gz"], "ids.txt.gz.run"),
        (["data/ids.txt", "other.txt"], "data/ids.txt.run"),
        (["-"], "stdin.run"),
        (["ids-*.txt"], "ids-_.txt.run"),
        (["data/**/ids.txt"], "data/_ids.txt.run"),
        (["ids.txt", "--run", "here"], "here"),
    ],
)
def test_the_run_directory_follows_from_the_command_alone(arguments, run_dir):
    """The same command finds the same run, whatever files a pattern matches by then."""
    assert main(["submit", *arguments]) == 0
    assert str(FakeClient.made[0].run_dir) == run_dir


def test_resume_names_no_source(tmp_path):
    """The run directory knows them."""
    (tmp_path / "x.run").mkdir()
    assert main(["resume", "x.run"]) == 0
    assert FakeClient.made[0].sources == ()


@pytest.mark.parametrize("command", ["resume", "status"])
def test_a_run_directory_that_is_not_there_is_exit_code_2(command, capsys):
    """It is not made by asking for it."""
    assert main([command, "nosuch.run"]) == 2
    assert "no run directory nosuch.run" in capsys.readouterr().err
    assert not Path("nosuch.run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate", "0/5m"], "--rate is '0/5m'"),
        (["--workers", "1000000"], "1 to 1,024"),
        (["--base-url", "http://host.example"], "https"),
        (["--webhook", "https://localhost/"], "webhook"),
        (["--config", "absent.toml"], "absent.toml does not exist"),
        (["--json", "--sink", "-"], "both want stdout"),
        (["--log-format", "yaml"], "text or json"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_message_and_exit_code_2(arguments, words, capsys):
    """And nothing was begun."""
    assert main(["submit", "ids.txt", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert FakeClient.made == []


# What reaches the person


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 130, 143])
def test_the_exit_code_is_that_of_the_summary(code, tells):
    """The engine decides it."""
    tells(ends_with(summary(code)))
    assert main(["submit", "ids.txt"]) == code


def test_the_account_adds_up_and_goes_to_stdout(capsys, tells):
    """What was read is the sum of what became of it."""
    tells(ends_with(summary(3, accepted=9_000, invalid=20, duplicate=1_000)))
    main(["submit", "ids.txt"])
    out, err = capsys.readouterr()
    assert "10,020 read = 20 invalid + 1,000 duplicate + 9,000 accepted" in out
    assert "1 h 02 min 05 s" in out
    assert "ids.txt.run/invalid.jsonl" in out
    assert "begins in ids.txt.run" in err


def test_json_is_one_object_on_stdout(capsys, tells):
    """With the keys of summary.json."""
    ended = summary(4, held=5)
    tells(ends_with(ended))
    assert main(["submit", "ids.txt", "--json"]) == 4
    assert json.loads(capsys.readouterr().out) == ended.as_dict()


def test_stdout_is_left_to_job_records_when_they_go_there(capsys):
    """The account goes to stderr then."""
    main(["submit", "ids.txt", "--sink", "-"])
    out, err = capsys.readouterr()
    assert out == ""
    assert "10 read = 10 accepted" in err


def test_each_next_step_is_a_line(capsys, tells):
    """Where to look, and the command that goes on, with the same options."""
    tells(ends_with(summary(4, held=1, refused=2, pending=3)))
    main(["submit", "my ids.txt", "--rate", "5/1s", "--no-dedupe", "--sink", "a.jsonl", "--sink", "b.jsonl"])
    out = capsys.readouterr().out
    assert "1 held ids" in out
    assert "my ids.txt.run/held.jsonl" in out
    assert "my ids.txt.run/refused" in out
    assert (
        "3 ids pending; go on with: "
        "bulkjobs resume 'my ids.txt.run' --rate 5/1s --no-dedupe --sink a.jsonl --sink b.jsonl" in out
    )


def test_a_webhook_is_in_no_output(capsys, tells):
    """Its query may hold a password."""
    tells(ends_with(summary(4, pending=3)))
    main(["submit", "ids.txt", "--webhook", f"https://host.example/?key={CANARY}"])
    assert CANARY not in "".join(capsys.readouterr())


def test_a_finished_run_says_that_nothing_was_sent(capsys, tells):
    """And exits as before."""
    tells(ends_with(summary(3, accepted=9, invalid=1), began=False))
    assert main(["submit", "ids.txt"]) == 3
    assert "This run was finished before; nothing was sent." in capsys.readouterr().out


def test_quiet_is_silent_on_stderr(capsys):
    """When nothing needs a person."""
    main(["submit", "ids.txt", "--quiet"])
    assert capsys.readouterr().err == ""


def test_the_log_can_be_json(capsys):
    """One object a line."""
    main(["submit", "ids.txt", "--log-format", "json"])
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["run_started"]


def test_a_reader_that_went_away_changes_no_exit_code(tells):
    """`bulkjobs submit … | head -0` still says how the run ended."""
    tells(ends_with(summary(3, accepted=9, invalid=1)))
    reading, writing = os.pipe()
    os.close(reading)
    stdout, sys.stdout = sys.stdout, os.fdopen(writing, "w")
    try:
        assert main(["submit", "ids.txt"]) == 3
        sys.stdout.close()
    finally:
        sys.stdout = stdout


class Full(io.StringIO):
    """Is a stream on a full disk."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("arguments", [["submit", "ids.txt"], ["submit", "ids.txt", "--json"], ["--version"]])
def test_a_full_stdout_is_one_clear_line_and_exit_code_6(arguments, monkeypatch, capsys):
    """The run is done, and no bug: only its account could not be shown."""
    monkeypatch.setattr(sys, "stdout", Full())
    assert main(arguments) == 6
    err = capsys.readouterr().err
    assert "bulkjobs: Standard output cannot be written: No space left on device." in err
    assert "bug" not in err


@pytest.mark.parametrize("stream", [Full(), None], ids=["full", "closed"])
@pytest.mark.parametrize("options", [[], ["--sink", "-"], ["--quiet"], ["--log-format", "json"]], ids=repr)
def test_a_stderr_that_takes_nothing_changes_no_exit_code(stream, options, monkeypatch, tells):
    """A log that nobody reads ends no run."""
    tells(ends_with(summary(3, accepted=9, invalid=1)))
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["submit", "ids.txt", *options]) == 3


def test_a_closed_stdout_changes_no_exit_code(monkeypatch, tells):
    """Nobody wants to read the account."""
    tells(ends_with(summary(3, accepted=9, invalid=1)))
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["submit", "ids.txt"]) == 3


def test_a_file_name_need_not_be_utf_8(monkeypatch, tells):
    """The default run directory has it in its name, which is escaped on the screen."""
    tells(ends_with(summary(3, accepted=9, invalid=1)))
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["submit", os.fsdecode(b"caf\xe9.txt")]) == 3
    assert os.fsencode(FakeClient.made[0].run_dir) == b"caf\xe9.txt.run"
    assert rb"caf\udce9.txt.run/invalid.jsonl" in out.buffer.getvalue()


# Failures


def test_a_limit_on_open_files_that_is_too_low_is_told_before_anything_is_sent(monkeypatch, capsys):
    """The event loop would abort."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (39, 4096))
    assert main(["submit", "ids.txt"]) == 2
    assert "40 files and connections open, but only 39 are allowed" in capsys.readouterr().err
    assert FakeClient.made == []
    assert main(["submit", "ids.txt", "--workers", "7"]) == 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_no_more_open_files_is_no_bug(number, capsys, tells):
    """It says what to do."""
    tells(OSError(number, os.strerror(number)))
    assert main(["submit", "ids.txt"]) == 6
    assert "bulkjobs: No more files or connections can be opened. Allow more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("No such thing."), 2),
        (SourceError("Cannot read it."), 2),
        (SourceChanged("Chunk 7 is another."), 2),
        (AuthError("No token."), 5),
        (LedgerError("Disk full."), 6),
        (LedgerLocked("Process 7 has it."), 6),
        (SinkError("Pipe broke."), 6),
        (ExceptionGroup("both", [SourceError("Cannot read it."), LedgerError("Disk full.")]), 6),
    ],
    ids=repr,
)
def test_an_error_of_ours_is_its_message_and_its_exit_code(error, code, capsys, tells):
    """Never a traceback."""
    tells(error)
    assert main(["submit", "ids.txt"]) == code
    err = capsys.readouterr().err
    for one in getattr(error, "exceptions", [error]):
        assert f"bulkjobs: {one}" in err
    assert "Traceback" not in err


def test_a_bug_is_exit_code_1_and_its_places_are_in_a_file(tmp_path, capsys, tells):
    """No value and no message of the exception is shown or kept: they could hold a secret."""
    (tmp_path / "ids.txt.run").mkdir()
    cause = KeyError(CANARY)
    error = RuntimeError(CANARY)
    error.__cause__ = cause
    tells(ExceptionGroup(CANARY, [error]))
    assert main(["submit", "ids.txt"]) == 1
    report = tmp_path / "ids.txt.run" / "crash.txt"
    text, err = report.read_text(), capsys.readouterr().err
    assert "RuntimeError" in err
    assert "builtins.KeyError" in text
    assert "in run_session" in text
    assert CANARY not in text + err
    assert "Traceback" not in err
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_a_bug_shows_its_places_when_asked(capsys, tells, monkeypatch):
    """With BULKJOBS_DEBUG=1."""
    tells(InternalError("Chunk 7 went backwards."))
    assert main(["submit", "ids.txt"]) == 1
    assert "BULKJOBS_DEBUG=1" in capsys.readouterr().err
    monkeypatch.setenv("BULKJOBS_DEBUG", "1")
    assert main(["submit", "ids.txt"]) == 1
    err = capsys.readouterr().err
    assert "Chunk 7 went backwards." in err
    assert "in run_session" in err


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_drains(number, code, tells, capsys):
    """Answers in flight are waited for; the exit code names the signal."""

    async def story(client):
        os.kill(os.getpid(), number)
        await client.asked_to_end.wait()
        return summary(client.drained[0][1], pending=5)

    tells(story)
    assert main(["submit", "ids.txt"]) == code
    (client,) = FakeClient.made
    assert client.drained == [(f"{number.name} was received.", code)]
    assert client.cancelled == 0
    assert "Once more cancels" in capsys.readouterr().err


def test_the_second_signal_cancels_and_the_third_is_not_caught(tells):
    """Whoever insists is obeyed."""
    handlers = []

    async def story(client):
        for _ in range(2):
            client.asked_to_end.clear()
            os.kill(os.getpid(), signal.SIGTERM)
            await client.asked_to_end.wait()
        handlers.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
        return summary(143, held=5)

    tells(story)
    assert main(["submit", "ids.txt"]) == 143
    (client,) = FakeClient.made
    assert (len(client.drained), client.cancelled) == (1, 1)
    assert handlers == [signal.SIG_DFL, signal.SIG_DFL]


def test_no_handler_stays_behind():
    """A program that calls `main` keeps its own."""
    main(["submit", "ids.txt"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_without_a_client_is_nothing():
    """It came between the last answer and the end."""
    interrupts = Interrupts()
    interrupts.receive(signal.SIGINT)
    assert interrupts.exit_code is None


# The real thing


@pytest.fixture
def service():
    """A simulated service in a process of its own."""
    command = [sys.executable, "-m", "bulkjobs", "simulate", "--rate", "none", "--for", "60s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout()) as process:
        yield json.loads(process.stdout.readline())
        process.terminate()


def checkout():
    return Path(bulkjobs.__file__).parent.parent


def test_a_run_is_submitted_looked_at_and_not_sent_twice(tmp_path, monkeypatch, capsys, service):
    """From the first command to the status of the finished run, over HTTP."""
    monkeypatch.setattr(bulkjobs.client, "Client", RealClient)
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", service["token"])
    monkeypatch.setenv("BULKJOBS_BASE_URL", service["base_url"])
    (tmp_path / "ids.txt").write_text("1\n2\nx\n2\n3\n")
    assert main(["submit", "ids.txt", "--json"]) == 3
    first = json.loads(capsys.readouterr().out)
    assert first["ids"] == {
        "read": 5, "invalid": 1, "duplicate": 1, "accepted": 3, "refused": 0, "held": 0, "pending": 0
    }  # fmt: skip
    assert main(["submit", "ids.txt"]) == 3
    assert "nothing was sent" in capsys.readouterr().out
    assert main(["status", "ids.txt.run", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert {name: seen[name] for name in ("ids", "chunks", "exit_code")} == {
        name: first[name] for name in ("ids", "chunks", "exit_code")
    }
    assert (seen["sources"], seen["source_finished"], seen["owner"]) == (["ids.txt"], True, None)
    assert main(["status", "ids.txt.run"]) == 0
    out = capsys.readouterr().out
    assert "5 read = 1 invalid + 1 duplicate + 3 accepted" in out
    assert "ended with exit code 3." in out


REDIRECTIONS = {">&-": 3, "<&-": 3, "2>&-": 3, "<&- >&- 2>&-": 3, ">/dev/full": 6, "2>/dev/full": 3}


@pytest.mark.parametrize(("redirection", "code"), REDIRECTIONS.items())
def test_standard_streams_may_be_closed_or_full(redirection, code, tmp_path, service):
    """The work is done in any case, in files that have no standard stream's number."""
    (tmp_path / "ids.txt").write_text("1\n2\nx\n")
    environ = {"BULKJOBS_ACCESS_TOKEN": service["token"], "BULKJOBS_BASE_URL": service["base_url"]}
    done = subprocess.run(
        f"exec {sys.executable} -m bulkjobs submit ids.txt {redirection}",
        shell=True,
        env={**os.environ, **environ, "PYTHONPATH": str(checkout())},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "bug" not in done.stderr
    assert ("cannot be written: No space left on device" in done.stderr) == (code == 6)
    assert json.loads((tmp_path / "ids.txt.run" / "summary.json").read_text())["ids"]["accepted"] == 2


def test_a_run_without_credentials_says_so(tmp_path, monkeypatch, capsys):
    """Even though the engine began: the reason is in what the person reads."""
    monkeypatch.setattr(bulkjobs.client, "Client", RealClient)
    (tmp_path / "ids.txt").write_text("1\n")
    assert main(["submit", "ids.txt"]) in (2, 5)
    assert "BULKJOBS_ACCESS_TOKEN" in "".join(capsys.readouterr())


@pytest.mark.slow
def test_the_demo_ends_as_it_should(tmp_path):
    """One lock-out, every valid id accepted once, in well under half a minute and without a terminal."""
    command = [sys.executable, "-m", "bulkjobs", "demo", "--dir", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=checkout())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "As it should be: after 1 lock-out" in done.stdout


def test_the_demo_is_not_content_with_a_wrong_account(tmp_path, monkeypatch):
    """Its check can fail: an id paid twice, an id lost, a figure that is off."""
    monkeypatch.setattr(demo, "_VALID", 50)
    monkeypatch.setattr(demo, "_DUPLICATES", 5)
    given = demo._write_ids(tmp_path / "ids.txt")
    good = summary(3, accepted=50, duplicate=5, invalid=10)
    books = tmp_path / "books.txt"

    def faults(ended, accepted):
        books.write_text("\n".join(accepted))
        return list(demo._faults(ended, given, books))

    ids = sorted(given.ids)
    assert faults(good, ids) == []
    assert faults(good, [*ids, ids[0]])
    assert faults(good, ids[1:])
    assert faults(replace(good, ids=good.ids | {"pending": 1}), ids)
