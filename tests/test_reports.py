"""What a run leaves for people to read, against a real ledger."""

import json

import pytest
from support.telling import HandClock

from bulkjobs.ledger import Ledger, summarise
from bulkjobs.model import Accepted, Chunk, Evidence, JobId, JobState, Phase, Refused, Tally, Unknown
from bulkjobs.reports import write_reports
from bulkjobs.rundir import RunDir

NOW = 1_767_225_600.0  # 2026-01-01


@pytest.fixture
def run_dir(tmp_path):
    return RunDir(tmp_path / "run")


@pytest.fixture
async def ledger(run_dir):
    async with await Ledger.open(run_dir.path, clock=HandClock(NOW)) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
        await ledger.begin_session()
        yield ledger


async def settle(ledger, ordinal, verdict, **evidence):
    """Plans a chunk, sends it and ends its attempt; without a verdict it stays in flight."""
    ledger.plan(
        Chunk(
            ordinal=ordinal,
            body=b"225\n226",
            ids=2,
            digest=f"{ordinal:064}",
            first_id="225",
            last_id="226",
            source="ids.txt",
            line=2 * ordinal - 1,
            tally=Tally(invalid=1),
        )
    )
    await ledger.begin_attempt(ordinal, 1)
    if verdict is not None:
        shown = {
            "phase": Phase.COMPLETE,
            "started_utc": 1_767_225_600.0,
            "ended_utc": 1_767_225_601.5,
        } | evidence
        await ledger.end_attempt(ordinal, 1, Evidence(**shown), verdict)


async def write(run_dir, ledger):
    run = ledger.run
    summary = summarise(run, await ledger.counts(), 4)
    await write_reports(run_dir, ledger, summary)
    return summary


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


ACCEPTED = Accepted(job_id=JobId("job1"), state=JobState.ACCEPTED, job_type="contacts")


async def test_the_summary_is_the_ledgers_and_adds_up(run_dir, ledger):
    await settle(ledger, 1, ACCEPTED, status=200)
    await settle(ledger, 2, Unknown(reason="no answer"))
    await settle(ledger, 3, Refused(reason="bad ids"), status=400)
    summary = await write(run_dir, ledger)
    written = json.loads(run_dir.summary.read_bytes())
    assert written == summary.as_dict()
    assert list(written) == [
        "run_id", "endpoint", "ids", "chunks", "jobs", "requests", "lockouts", "elapsed_s", "exit_code",
    ]  # fmt: skip
    assert written["ids"] == {
        "read": 9, "invalid": 3, "duplicate": 0, "accepted": 2, "refused": 2, "held": 2, "pending": 0,
    }  # fmt: skip


async def test_a_run_without_trouble_leaves_a_summary_only(run_dir, ledger):
    await settle(ledger, 1, ACCEPTED, status=200)
    await write(run_dir, ledger)
    assert run_dir.summary.exists()
    assert not run_dir.held.exists()
    assert not run_dir.refused.exists()


async def test_a_held_chunk_is_listed_with_all_its_evidence(run_dir, ledger):
    verdict = Unknown(reason="500 can follow the making of a job", job_hint=JobId("job77"))
    times = {"sent_utc": 1_767_225_600.25, "answered_utc": 1_767_225_601.0}
    shown = {"answer_bytes": 7, "connection_reused": True, "content_type": "text/html", "error": "X"}
    await settle(ledger, 7, verdict, status=500, body=b"<html>\xff", **times, **shown)
    await ledger.record_findings({7: "No job fits."})
    await write(run_dir, ledger)
    assert lines(run_dir.held) == [
        {
            "chunk": 7,
            "digest": f"{7:064}",
            "ids": 2,
            "first_id": "225",
            "last_id": "226",
            "source": "ids.txt",
            "line": 13,
            "parent": None,
            "first": 0,
            "attempt": 1,
            "reason": "500 can follow the making of a job",
            "started_at": "2026-01-01T00:00:00.000Z",
            "sent_at": "2026-01-01T00:00:00.250Z",
            "answered_at": "2026-01-01T00:00:01.000Z",
            "ended_at": "2026-01-01T00:00:01.500Z",
            "phase": "complete",
            "http_status": 500,
            "error": "X",
            "answer": "<html>\\xff",
            "answer_bytes": 7,
            "connection": "reused",
            "job_hint": "job77",
            "finding": "No job fits.",
            "adopt": f"bulkjobs reconcile {run_dir.path} --adopt 7=JOB",
            "resubmit": f"bulkjobs reconcile {run_dir.path} --resubmit 7",
        }
    ]


async def test_a_chunk_in_flight_at_a_crash_is_listed_without_what_nobody_knows(run_dir, ledger):
    await settle(ledger, 1, None)
    await ledger.end_session(0, None)
    await ledger.begin_session()
    await write(run_dir, ledger)
    (line,) = lines(run_dir.held)
    assert {key: line[key] for key in ("ended_at", "phase", "http_status", "error", "answer")} == {
        "ended_at": None, "phase": None, "http_status": None, "error": None, "answer": "",
    }  # fmt: skip
    assert "the process ended" in line["reason"]


async def test_a_refused_chunk_is_listed_beside_the_file_with_its_ids(run_dir, ledger):
    await settle(ledger, 31, Refused(reason="400-107"), status=400, body=b'{"errors":[]}')
    run_dir.write(run_dir.refused_ids(31), b"225\n226\n")
    await write(run_dir, ledger)
    (line,) = lines(run_dir.refused / "reasons.jsonl")
    assert line == {
        "chunk": 31,
        "ids": 2,
        "file": "chunk-00000031.txt",
        "source": "ids.txt",
        "line": 61,
        "parent": None,
        "first": 0,
        "attempt": 1,
        "reason": "400-107",
        "http_status": 400,
        "answer": '{"errors":[]}',
    }
    assert (run_dir.refused / line["file"]).read_bytes() == b"225\n226\n"


async def test_reports_of_an_earlier_session_that_no_longer_hold_are_gone(run_dir, ledger):
    run_dir.write(run_dir.held, b"stale\n")
    run_dir.write(run_dir.refused / "reasons.jsonl", b"stale\n")
    await write(run_dir, ledger)
    assert not run_dir.held.exists()
    assert not (run_dir.refused / "reasons.jsonl").exists()


async def test_more_held_chunks_than_fit_into_one_page_are_all_listed(run_dir, ledger):
    for ordinal in range(1, 1_103):
        await settle(ledger, ordinal, Unknown(reason="no answer"))
    await write(run_dir, ledger)
    assert [line["chunk"] for line in lines(run_dir.held)] == list(range(1, 1_103))


async def test_reports_are_for_the_owner_only(run_dir, ledger):
    await settle(ledger, 1, Unknown(reason="no answer"))
    await settle(ledger, 2, Refused(reason="bad ids"))
    await write(run_dir, ledger)
    files = (run_dir.held, run_dir.summary, run_dir.refused / "reasons.jsonl")
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


async def test_a_report_that_cannot_be_written_says_which(run_dir, ledger):
    run_dir.summary.mkdir()
    with pytest.raises(OSError, match="Is a directory") as failure:
        await write(run_dir, ledger)
    assert "summary.json" in f"{failure.value.filename} {failure.value.filename2}"
