"""The command against the simulated service: real processes, real sockets, real signals.

Every run here carries a token that must stand nowhere: not in a file of the run directory, not on stdout or stderr.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.simulated import Account, json_lines

from bulkjobs.ledger import read_run

CANARY = "cAnArY0t0ken0f0n0use"
CLIENT_SECRET = "cAnArY0secret0f0n0use"
PATIENCE_S = 30.0
ROOT = Path(__file__).parent.parent
FIRST_ID = 41_000_001


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"It took more than {PATIENCE_S} s until {what}.")
        time.sleep(0.003)


class Town:
    """A simulated service in its own process, and what is needed to run the command against it."""

    def __init__(self, folder: Path, *options: str, chunks: int = 40) -> None:
        self.folder = folder
        self.books = folder / "books"
        self.run_dir = folder / "ids.txt.run"
        self.ids = range(FIRST_ID, FIRST_ID + 10 * chunks)
        self.text = "\n".join(map(str, self.ids)) + "\n"
        (folder / "ids.txt").write_text(self.text)
        self._started: list[subprocess.Popen[bytes]] = []
        command = ["simulate", "--token", CANARY, "--client-secret", CLIENT_SECRET, "--for", "60s"]
        command += ["--rate", "none", "--max-active-jobs", "none", "--books", str(self.books), *options]
        self.simulator = self.start(command, name="simulator", stdout=subprocess.PIPE)
        assert self.simulator.stdout is not None
        self.ready: dict[str, str] = json.loads(self.simulator.stdout.readline())

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def start(self, arguments: list[str], *, name: str, **options: Any) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.err").open("ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "bulkjobs", *arguments],
                cwd=self.folder,
                env={
                    "XDG_STATE_HOME": str(self.folder / "state"),
                    **options.pop("environ", {}),
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(ROOT),
                },
                stderr=stderr,
                **options,
            )
        self._started.append(process)
        return process

    def submit(self, *options: str, source: str = "ids.txt", **more: Any) -> subprocess.Popen[bytes]:
        command = ["submit", source, "--chunk-size", "10", "--workers", "4", "--json"]
        command += ["--rate", "none", "--max-active-jobs", "none", "--on-unknown", "hold"]
        command += ["--base-url", self.ready["base_url"], "--login-url", self.ready["login_url"], *options]
        more.setdefault("environ", {"BULKJOBS_ACCESS_TOKEN": CANARY})
        return self.start(command, name="submit", stdout=subprocess.PIPE, **more)

    def finish(self, process: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any]]:
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert CANARY.encode() not in out
        return process.returncode, json.loads(out) if out else {}

    def run(self, *options: str, **more: Any) -> tuple[int, dict[str, Any]]:
        return self.finish(self.submit(*options, **more))

    @property
    def stderr(self) -> str:
        return (self.folder / "submit.err").read_text()

    @property
    def jobs(self) -> int:
        index = self.books.with_name("books.jsonl")
        return index.read_bytes().count(b"\n") if index.exists() else 0

    def totals(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.ready["books_url"], timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def wait_for_jobs(self, count: int) -> None:
        worker = self._started[-1]
        until(lambda: self.jobs >= count or worker.poll() is not None, f"there are {count} jobs")
        assert self.jobs >= count, self.stderr

    def check(self) -> dict[str, Any]:
        for path in (*self.run_dir.rglob("*"), self.folder / "submit.err"):
            if path.is_file():
                text = path.read_bytes()
                assert CANARY.encode() not in text, path
                assert CLIENT_SECRET.encode() not in text, path
        return Account.from_file(self.run_dir, self.books).check(self.ids)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    towns: list[Town] = []

    def make(*options: str, **more: Any) -> Town:
        towns.append(Town(tmp_path, *options, **more))
        return towns[-1]

    yield make
    for each in towns:
        each.close()


# --- what goes in ---


@pytest.mark.parametrize("accept", ["json", "xml"])
def test_a_file_is_submitted_once_however_often_the_command_is_given(
    town: Callable[..., Town], accept: str
) -> None:
    here = town()
    code, summary = here.run("--accept", accept)
    assert code == summary["exit_code"] == 0
    assert summary == here.check()
    requests = here.totals()["requests"]
    assert here.run("--accept", accept) == (0, summary)
    assert here.totals()["requests"] == requests
    assert "was finished before; nothing is sent" in here.stderr


def test_gzip_and_plain_files_are_one_stream_of_ids(town: Callable[..., Town]) -> None:
    here = town()
    half = len(here.text) // 2
    half = here.text.index("\n", half) + 1
    (here.folder / "b.txt").write_text(here.text[half:])
    (here.folder / "a.txt").write_bytes(gzip.compress(here.text[:half].encode()))
    code, summary = here.run("b.txt", "--run", str(here.run_dir), source="a.txt")
    assert code == 0
    assert summary["chunks"]["total"] == 40
    here.check()


def test_a_stopped_run_of_standard_input_goes_on_with_what_was_kept_and_ends_with_the_same_input(
    town: Callable[..., Town],
) -> None:
    here = town("--latency", "50ms..100ms")
    options = ("--run", str(here.run_dir))
    source = here.folder / "ids.txt"
    process = here.submit(*options, source="-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(source.read_bytes()[:1_000])
    process.stdin.flush()
    here.wait_for_jobs(5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_S) == 143
    command = [
        "resume",
        *options[1:],
        "--json",
        "--chunk-size",
        "10",
        "--rate",
        "none",
        "--on-unknown",
        "hold",
    ]
    command += ["--max-active-jobs", "none", "--base-url", here.ready["base_url"]]
    environ = {"BULKJOBS_ACCESS_TOKEN": CANARY}
    resumed = here.start(command, name="submit", stdout=subprocess.PIPE, environ=environ)
    code, summary = here.finish(resumed)
    assert code == 2  # the end of the input was not seen
    assert summary["ids"]["accepted"] >= 50
    assert "Give the same command and the same input again" in here.stderr
    with source.open("rb") as stdin:
        assert here.run(*options, source="-", stdin=stdin)[0] == 0
    assert here.check()["ids"]["accepted"] == 400


def test_an_interrupt_does_not_wait_for_input_that_never_comes(town: Callable[..., Town]) -> None:
    here = town()
    process = here.submit("--run", str(here.run_dir), source="-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(here.text.encode())
    process.stdin.flush()
    here.wait_for_jobs(40)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE_S) == 130
    here.check()


def test_a_login_is_made_with_client_id_and_secret_which_stand_nowhere(town: Callable[..., Town]) -> None:
    here = town()
    environ = {"BULKJOBS_CLIENT_ID": "simulator-client", "BULKJOBS_CLIENT_SECRET": CLIENT_SECRET}
    code, summary = here.run(environ=environ)
    assert code == 0
    assert summary["requests"]["login"] == 1
    here.check()


def test_limits_of_the_service_are_kept(town: Callable[..., Town]) -> None:
    """30 simulated seconds in one: windows of 30 s pass in one second of the client's."""
    here = town(
        "--speed", "30", "--rate", "20/30s", "--max-active-jobs", "4", "--job-time", "3s..9s", chunks=15
    )
    options = ("--rate", "20/1s", "--max-active-jobs", "4", "--poll", "300ms", "--pace", "none")
    code, summary = here.run(*options)
    totals = here.totals()
    assert code == 0
    assert totals["lockouts"] == summary["lockouts"] == 0
    assert totals["submits_refused"] == 0
    here.check()


# --- signals ---


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_records_what_is_in_flight_and_leaves_the_rest(
    town: Callable[..., Town], number: signal.Signals, code: int
) -> None:
    here = town("--latency", "50ms..100ms")
    process = here.submit()
    here.wait_for_jobs(5)
    process.send_signal(number)
    ended, summary = here.finish(process)
    assert ended == summary["exit_code"] == code
    assert summary["ids"]["held"] == 0
    assert summary["chunks"]["accepted"] == here.jobs < 40
    here.check()
    assert here.run()[0] == 0
    here.check()


def test_a_json_log_is_json_to_its_last_line(town: Callable[..., Town]) -> None:
    """Signals and errors are told in the same form as events."""
    here = town("--latency", "0.05s..0.1s")
    process = here.submit("--log-format", "json")
    here.wait_for_jobs(3)
    process.send_signal(signal.SIGINT)
    code, summary = here.finish(process)
    assert code == summary["exit_code"] == 130
    assert here.run("--log-format", "json", source="missing.txt")[0] == 2
    lines = [json.loads(line) for line in here.stderr.splitlines()]
    assert {"run_started", "message", "run_finished"} <= {line["event"] for line in lines}
    assert all(line["ts"].endswith("Z") for line in lines)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_gives_up_what_is_in_flight_as_held(
    town: Callable[..., Town], number: signal.Signals, code: int
) -> None:
    here = town("--latency", "40s", chunks=8)
    process = here.submit("--no-forecast")
    here.wait_for_jobs(4)
    process.send_signal(number)
    until(lambda: "answers in flight are waited for" in here.stderr, "the first signal is taken")
    process.send_signal(number)
    ended, summary = here.finish(process)
    assert ended == code
    assert summary["chunks"]["held"] == 4
    here.check()


# --- kill -9 ---


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_9_at_any_moment_loses_nothing_and_sends_nothing_twice(
    town: Callable[..., Town], seed: int
) -> None:
    draw = random.Random(seed)
    here = town(
        "--latency", "5ms..40ms", "--fault", "submit:http503_after=0.02", "--seed", str(seed), chunks=80
    )
    for _ in range(4):
        process = here.submit()
        least = here.jobs + draw.randint(0, 12)
        until(lambda p=process, n=least: here.jobs >= n or p.poll() is not None, f"there are {least} jobs")
        time.sleep(draw.uniform(0.0, 0.05))
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    code, summary = here.run()
    print(f"seed {seed}: {summary}\n{here.stderr}")
    assert code == summary["exit_code"] == (4 if summary["chunks"]["held"] else 0)
    assert summary["ids"]["pending"] == 0
    assert summary == here.check()
    assert here.run() == (code, summary)


def test_a_killed_run_can_be_looked_at(town: Callable[..., Town]) -> None:
    here = town("--latency", "40s", chunks=8)
    process = here.submit("--no-forecast")
    here.wait_for_jobs(4)
    assert read_run(here.run_dir).owner is not None
    process.kill()
    process.wait()
    snapshot = read_run(here.run_dir)
    assert snapshot.owner is None
    assert snapshot.exit_code is None


# --- two at once ---


def test_a_second_process_on_the_same_run_is_refused_before_any_request(town: Callable[..., Town]) -> None:
    here = town("--latency", "40s", chunks=8)
    first = here.submit("--no-forecast")
    here.wait_for_jobs(4)
    requests = here.totals()["requests"]
    second = here.submit()
    assert second.wait(timeout=PATIENCE_S) == 6
    assert f"pid {first.pid}" in here.stderr
    assert here.totals()["requests"] == requests
    assert first.poll() is None


# --- what people find afterwards ---


def test_what_was_refused_and_held_is_told_with_its_evidence(town: Callable[..., Town]) -> None:
    here = town("--fault", "submit:html_after@3", "--fault", "submit:cut_after@5", chunks=12)
    with (here.folder / "ids.txt").open("a") as source:
        source.write(f"not-an-id\n{FIRST_ID}\n")
    code, summary = here.run()
    assert code == 4
    assert (summary["ids"]["held"], summary["ids"]["invalid"], summary["ids"]["duplicate"]) == (20, 1, 1)
    held = json_lines(here.run_dir / "held.jsonl")
    assert {line["http_status"] for line in held} == {200}
    assert any("Sign in" in line["answer"] for line in held)
    assert {path.stat().st_mode & 0o777 for path in here.run_dir.rglob("*") if path.is_file()} == {0o600}
    assert here.run_dir.stat().st_mode & 0o777 == 0o700
    here.check()


# --- is it true? ---


@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_the_account_agrees_while_a_process_works_after_it_was_killed_and_after_the_next(
    town: Callable[..., Town], stdin: bool
) -> None:
    here = town("--latency", "5ms..40ms", chunks=80)
    options = ("--run", str(here.run_dir), "--on-unknown", "hold")

    def submit() -> subprocess.Popen[bytes]:
        if not stdin:
            return here.submit(*options)
        with (here.folder / "ids.txt").open("rb") as source:
            return here.submit(*options, source="-", stdin=source)

    def audit() -> dict[str, Any]:
        command = ["audit", "--json", str(here.run_dir)]
        code, shown = here.finish(here.start(command, name="audit", stdout=subprocess.PIPE))
        assert (code, shown["differences"]) == (0, [])
        assert shown["ids"]["source"] == shown["ids"]["ledger"]
        return shown

    process = submit()
    here.wait_for_jobs(5)
    audit()  # it may be over by the time the audit has begun: then that is what it sees
    process.kill()
    process.wait()
    assert audit()["owner"] is None
    here.finish(submit())
    assert audit()["ids"]["source"]["pending"] == 0
    here.check()
