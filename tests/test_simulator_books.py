"""The books: what a judge can read of what really happened."""

from __future__ import annotations

import hashlib
import json

import pytest
from support.asking import JOB, JSON, ask, content, entries, steady, submit, submit_id

from bulkjobs.errors import ConfigError
from bulkjobs.simulator import FaultPlan, Limit, Service, ServiceConfig, Wire


def test_the_books_hold_every_job_with_its_body():
    bodies = [b"1,2,3", b"\n".join(b"%d" % n for n in range(1, 5000)), b"1,2,3"]
    with Service(steady()) as service:
        jobs = [
            content(submit(service, n, body, webhook=f"https://x/{n}"))["jobId"]
            for n, body in enumerate(bodies)
        ]
        lines = [json.loads(line) for line in ask(service, "GET", "/_sim/books/jobs", 61).body.splitlines()]
        stored = [ask(service, "GET", f"/_sim/books/jobs/{job_id}/ids", 61).body for job_id in jobs]
        totals = json.loads(ask(service, "GET", "/_sim/books", 61, headers={}).body)
    assert stored == bodies
    assert [line["jobId"] for line in lines] == jobs
    assert [line["sha256"] for line in lines] == [hashlib.sha256(body).hexdigest() for body in bodies]
    assert [line["state"] for line in lines] == ["finished", "finished", "processing"]
    assert [line["webhook"] for line in lines] == ["https://x/0", "https://x/1", "https://x/2"]
    assert [(line["number"], line["ids"], line["acceptedAt"]) for line in lines] == [
        (1, 3, 0),
        (2, 4999, 1),
        (3, 3, 2),
    ]
    assert (totals["jobs"], totals["ids"], totals["repeated_bodies"]) == (3, 5005, 1)
    assert totals["requests"]["submit"] == 3


def test_reading_the_books_is_never_counted_nor_throttled():
    with Service(
        ServiceConfig(rate=Limit(count=1, window_s=300), faults=FaultPlan.of("reset_before=1"))
    ) as service:
        for _ in range(10):
            reply = ask(service, "GET", "/_sim/books", 0, headers={})
            assert (reply.status, reply.wire) == (200, Wire.ANSWER)
        assert set(service.totals()["requests"].values()) == {0}
        assert ask(service, "GET", "/_sim/books/jobs/none/ids", 0).status == 404


def test_books_on_file_can_be_read_while_the_service_lives(tmp_path):
    path = tmp_path / "books"
    bodies = [b"1,2", b"3\n4", b"5"]
    with Service(ServiceConfig(books=path)) as service:
        for body in bodies:
            job_id = submit_id(service, 0, body)
            ask(service, "GET", f"/_sim/books/jobs/{job_id}/ids", 0)  # reading in between does no harm
        index = [json.loads(line) for line in (tmp_path / "books.jsonl").read_text().splitlines()]
        data = path.read_bytes()
    assert [data[line["position"] : line["position"] + line["length"]] for line in index] == bodies
    assert [hashlib.sha256(body).hexdigest() for body in bodies] == [line["sha256"] for line in index]
    assert path.stat().st_mode & 0o077 == 0


def test_books_are_never_overwritten(tmp_path):
    (tmp_path / "books").write_text("old")
    with pytest.raises(ConfigError, match="never overwritten"):
        Service(ServiceConfig(books=tmp_path / "books"))
    with pytest.raises(ConfigError, match="cannot be made"):
        Service(ServiceConfig(books=tmp_path / "none" / "books"))


# --- the journal ------------------------------------------------------------------------------------------


def journal(path) -> list[dict]:
    return [json.loads(line) for line in path.with_name(path.name + ".posts.jsonl").read_text().splitlines()]


def test_the_journal_has_a_line_for_every_submission_whatever_became_of_it(tmp_path):
    plan = FaultPlan.of("submit:reset_before@2", "submit:reset_after@3", "submit:http503_after@4",
                        "submit:http502_before@5", "submit:cut_after@6")  # fmt: skip
    path = tmp_path / "books"
    with Service(ServiceConfig(books=path, faults=plan), client_utc=lambda now: now / 10) as service:
        for number in range(1, 7):
            submit(service, 10 * number, b"%d\n77" % number)
        submit(service, 70, b"not ids")
        submit(service, 80, headers=JSON | {"accesstoken": "nobody's"})
        jobs = [line["jobId"] for line in entries(service, 100)]
    lines = journal(path)
    assert [(line["number"], line["at"]) for line in lines] == [(n, n) for n in range(1, 9)]
    assert [line["status"] for line in lines] == [200, None, 200, 503, 502, 200, 400, 401]
    assert [line["jobId"] for line in lines] == [
        jobs[0], None, jobs[1], jobs[2], None, jobs[3], None, None,
    ]  # fmt: skip
    assert [line["wire"] for line in lines] == [
        "answer", "reset", "reset", "answer", "answer", "cut", "answer", "answer",
    ]  # fmt: skip
    assert [line["fault"] for line in lines] == [
        None, "reset_before", "reset_after", "http503_after", "http502_before", "cut_after", None, None,
    ]  # fmt: skip
    assert [line["ids"] for line in lines] == [2] * 6 + [None, 3]
    assert (lines[2]["bytes"], lines[2]["sha256"]) == (4, hashlib.sha256(b"3\n77").hexdigest())


def test_other_requests_stand_in_no_journal(tmp_path):
    with Service(ServiceConfig(books=tmp_path / "books")) as service:
        ask(service, "GET", f"{JOB}/x", 0)
        ask(service, "GET", "/_sim/books", 0)
    assert journal(tmp_path / "books") == []


def test_an_entry_is_synced_before_the_reply_when_asked_to(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("bulkjobs.simulator.books.os.fdatasync", synced.append)
    with Service(ServiceConfig(books=tmp_path / "plain")) as service:
        submit(service, 0)
    assert synced == []
    with Service(ServiceConfig(books=tmp_path / "safe", books_sync=True)) as service:
        submit(service, 0)
        assert len(set(synced)) == 3
        submit(service, 0, b"not ids")
        assert len(synced) == 4


def test_books_that_cannot_be_written_make_no_job_and_keep_no_half_entry(tmp_path, monkeypatch):
    path = tmp_path / "books"
    with Service(ServiceConfig(books=path)) as service:
        first = submit_id(service, 0, b"1,2")
        with monkeypatch.context() as patch:
            patch.setattr(service._books._index, "_file", FullDisk(service._books._index._file))
            with pytest.raises(OSError, match="No space"):
                submit(service, 1, b"3,4")
        third = submit_id(service, 2, b"5")
        assert [line["jobId"] for line in entries(service, 3)] == [first, third]
    index = [json.loads(line) for line in (tmp_path / "books.jsonl").read_text().splitlines()]
    assert [(line["jobId"], line["position"]) for line in index] == [(first, 0), (third, 4)]
    assert path.read_bytes() == b"1,2\n5\n"


class FullDisk:
    """A file that takes half of an entry and then has no room."""

    def __init__(self, file):
        self._file = file
        self._full = False

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        if self._full:
            raise OSError(28, "No space left on device")
        self._full = True
        return self._file.write(data[: len(data) // 2])
