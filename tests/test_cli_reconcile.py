"""`bulkjobs reconcile`: what a person may ask for, and what is told when it cannot be done."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

import bulkjobs.client
from bulkjobs.__main__ import main
from bulkjobs.model import RunSummary
from bulkjobs.simulator import FaultPlan, ServiceConfig, SimulatorServer, Span


class FakeClient:
    """Stands in for the engine and remembers the orders."""

    orders = None

    def __init__(self, *_: object, **__: object) -> None:
        """Takes what a client takes."""

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes nothing."""

    async def reconcile(self, orders: object) -> RunSummary:
        FakeClient.orders = orders
        ids = dict.fromkeys(("read", "invalid", "duplicate", "accepted", "refused", "held", "pending"), 0)
        return RunSummary(
            run_id="r1", endpoint="contacts", ids=ids, chunks={"total": 0}, jobs={}, requests={}, lockouts=0,
            elapsed_s=0.0, exit_code=0,
        )  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(bulkjobs.client, "Client", FakeClient)
    monkeypatch.setattr(FakeClient, "orders", None)
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", "t" * 20)
    folder = tmp_path / "a.run"
    folder.mkdir()
    return folder


def test_without_orders_the_list_of_jobs_decides(run):
    assert main(["reconcile", str(run)]) == 0
    assert not FakeClient.orders.by_person
    assert FakeClient.orders.calls == ()


def test_chunks_are_adopted_and_sent_again_as_named(run, capsys):
    assert main(["reconcile", str(run), "--adopt", "17=a-b", "--adopt", "18=c", "--resubmit", "19"]) == 0
    assert FakeClient.orders.adopt == {17: "a-b", 18: "c"}
    assert FakeClient.orders.resubmit == [19]
    said = capsys.readouterr().err
    assert "paid for twice" in said
    assert "duplicate-risk" in said


def test_a_log_of_webhook_calls_is_read_line_by_line(run, tmp_path):
    log = tmp_path / "calls.log"
    log.write_bytes(b"one\ntwo\xff\r\n")
    assert main(["reconcile", str(run), "--webhook-calls", str(log)]) == 0
    assert FakeClient.orders.calls == [b"one", b"two\xff"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--adopt", "17"], "CHUNK=JOB"),
        (["--adopt", "=a"], "CHUNK=JOB"),
        (["--adopt", "17=a b"], "CHUNK=JOB"),
        (["--adopt", "17=../a"], "CHUNK=JOB"),
        (["--adopt", "x=a"], "CHUNK=JOB"),
        (["--adopt", "-1=a"], "CHUNK=JOB"),
        (["--adopt", "17=a\x1b[2J"], "CHUNK=JOB"),
        (["--adopt", "17=a", "--adopt", "17=b"], "twice"),
        (["--resubmit", "x"], "number of a chunk"),
        (["--resubmit", "1.5"], "number of a chunk"),
        (["--resubmit", "9" * 13], "number of a chunk"),
        (["--adopt", "17=a", "--resubmit", "17"], "give one of them"),
        (["--webhook-calls", "nowhere.log"], "cannot be read"),
        (["--webhook-calls", "/"], "cannot be read"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_before_anything_is_done(run, capsys, words, says):
    assert main(["reconcile", str(run), *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert all(line.isprintable() for line in said.splitlines())
    assert FakeClient.orders is None


@pytest.mark.parametrize("name", ["nowhere.run", "file.run", "x" * 300])
def test_what_is_no_run_directory_is_said_to_be_none(run, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path("file.run").write_text("")
    assert main(["reconcile", name]) == 2
    said = capsys.readouterr().err
    assert "no run directory" in said
    assert "Traceback" not in said


def test_a_whole_way_from_a_lost_answer_to_the_decision_of_a_person(tmp_path, monkeypatch):
    """The command that held.jsonl shows is the one that works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", "simulator-token")
    Path("ids.txt").write_text("".join(f"{one}\n" for one in range(1, 31)))
    service = ServiceConfig(
        faults=FaultPlan.of("submit:reset_after@2"),
        job_time=Span(min_s=0.0, max_s=0.0),
        results_id_column="x",
    )

    async def story() -> None:
        async with SimulatorServer(service) as server:
            options = ["--base-url", server.base_url, "--rate", "none", "--max-active-jobs", "none"]
            options += ["--pace", "none", "--quiet", "--chunk-size", "10", "--workers", "1"]
            assert await call("submit", "ids.txt", "--on-unknown", "hold", *options) == 4
            (line,) = map(json.loads, Path("ids.txt.run/held.jsonl").read_text().splitlines())
            command = line["resubmit"].split()[1:]
            await call(*command, *options)
            assert json.loads(Path("ids.txt.run/summary.json").read_text())["ids"]["pending"] == 10
            assert await call("resume", "ids.txt.run", *options) == 0
            assert len(list(Path("ids.txt.run/duplicate-risk").iterdir())) == 1
            assert await call(*command, *options) == 0  # there is nothing to settle any more

    async def call(*words: str) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bulkjobs", *words, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert b"Traceback" not in said
        assert process.returncode is not None
        return process.returncode

    asyncio.run(story())
