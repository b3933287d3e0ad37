"""The judge, on books and ledgers that were doctored: each way of breaking the promise is noticed, and none is made up.

The run here is made by hand: five chunks of three ids, of which one was refused, one is held, one was split in two
and one is held with a job behind it.
"""

import gzip
import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support.evidence import ids_of, read_books, read_image, read_sources, text_of
from support.judge import judge_killed, judge_run, main

SCHEMA = """
CREATE TABLE run (identity TEXT, source_finished INTEGER, tail_invalid INTEGER, tail_duplicate INTEGER);
CREATE TABLE chunk (ordinal INTEGER PRIMARY KEY, state TEXT, digest TEXT, ids INTEGER, invalid INTEGER,
    duplicate INTEGER, parent INTEGER, first INTEGER NOT NULL DEFAULT 0, duplicate_risk INTEGER NOT NULL DEFAULT 0);
CREATE TABLE attempt (chunk INTEGER, attempt INTEGER, verdict TEXT);
CREATE TABLE job (chunk INTEGER PRIMARY KEY, job_id TEXT);
CREATE TABLE settlement (number INTEGER PRIMARY KEY, chunk INTEGER, attempt INTEGER, how TEXT);
CREATE TABLE sink (name TEXT, position INTEGER);
"""
PART = 1_000_000_001
SOURCE = b"101\n102\r\n 103\t\n104,105,x1\n\n106\n101\n107\n108\n109\n110\n111\n112\n113\n114\n115\n0\n"


def body(first, count=3):
    return b"\n".join(b"%d" % number for number in range(first, first + count))


def digest(text):
    return hashlib.sha256(text).hexdigest()


class World:
    """A run that kept the promise, and what it takes to doctor it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "ids.txt"
        self.source.write_bytes(SOURCE)
        self.books = folder / "books"
        self.run_dir = folder / "run"
        (self.run_dir / "refused").mkdir(parents=True)
        self.bodies: dict[str, bytes] = {}
        self.foreign: set[str] = set()
        self.posts: list[bytes] = [body(104)]  # refused
        for job, text in (("j1", body(101)), ("j4a", body(110, 1)), ("j4b", body(111, 2)), ("j5", body(113))):
            self.add_job(job, text)
        with closing(sqlite3.connect(self.run_dir / "ledger.db")) as database:
            database.executescript(SCHEMA)
            database.execute("INSERT INTO run VALUES ('{\"dedupe\": true}', 1, 1, 0)")
            database.execute("INSERT INTO sink VALUES ('jobs.jsonl', 0)")
            states = ["delivered", "refused", "held", "split", "held"]
            for ordinal, state in enumerate(states, 1):
                tally = {2: (1, 0), 3: (0, 1)}.get(ordinal, (0, 0))
                row = (ordinal, state, digest(body(98 + 3 * ordinal)), 3, *tally)
                database.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, NULL, 0, 0)", row)
            parts = ((PART, digest(body(110, 1)), 1, 0), (PART + 1, digest(body(111, 2)), 2, 1))
            for part in parts:
                database.execute("INSERT INTO chunk VALUES (?, 'delivered', ?, ?, 0, 0, 4, ?, 0)", part)
            verdicts = (
                (1, 1, "not_applied"),
                (1, 2, "accepted"),
                (2, 1, "refused"),
                (3, 1, "unknown"),
                (4, 1, "not_applied"),
                (PART, 1, "accepted"),
                (PART + 1, 1, "accepted"),
                (5, 1, "unknown"),
            )
            database.executemany("INSERT INTO attempt VALUES (?, ?, ?)", verdicts)
            jobs = ((1, "j1"), (PART, "j4a"), (PART + 1, "j4b"))
            database.executemany("INSERT INTO job VALUES (?, ?)", jobs)
            database.commit()
        self.records = [record(1, 101, 3, "j1"), record(PART, 110, 1, "j4a"), record(PART + 1, 111, 2, "j4b")]
        self.summary = {
            "ids": {
                "read": 18, "invalid": 2, "duplicate": 1, "accepted": 6, "refused": 3, "held": 6, "pending": 0,
            },
            "chunks": {"total": 6, "accepted": 3, "refused": 1, "held": 2, "pending": 0},
        }  # fmt: skip
        self.held = [digest(body(107)), digest(body(113))]
        self.invalid = [{"source": "in/ids.txt", "line": 4}, {"source": "in/ids.txt", "line": 17}]
        self.refused = body(104) + b"\n"

    def add_job(self, job, text):
        self.bodies[job] = text
        self.posts.append(text)

    def sql(self, *statements):
        with closing(sqlite3.connect(self.run_dir / "ledger.db")) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    def write(self):
        with self.books.open("wb") as books, (self.folder / "books.jsonl").open("w") as index:
            for job, text in self.bodies.items():
                facts = {"jobId": job, "sha256": digest(text), "ids": 3, "foreign": job in self.foreign}
                facts |= {"position": books.tell(), "length": len(text)}
                books.write(text + b"\n")
                index.write(json.dumps(facts) + "\n")
        lines = [json.dumps({"sha256": digest(text)}) for text in self.posts]
        (self.folder / "books.posts.jsonl").write_text("\n".join(lines) + "\n")
        (self.run_dir / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.records))
        (self.run_dir / "held.jsonl").write_text(
            "".join(json.dumps({"digest": one}) + "\n" for one in self.held)
        )
        (self.run_dir / "invalid.jsonl").write_text("".join(json.dumps(one) + "\n" for one in self.invalid))
        (self.run_dir / "summary.json").write_text(json.dumps(self.summary))
        (self.run_dir / "refused" / "chunk-00000002.txt").write_bytes(self.refused)

    def judge(self):
        self.write()
        return judge_run([self.source], self.books, self.run_dir)

    def judge_killed(self, workers=1):
        self.write()
        return judge_killed(
            read_sources([self.source]), read_books(self.books), read_image(self.run_dir), workers=workers
        )


def record(chunk, first, count, job):
    return {
        "chunk": chunk,
        "digest": digest(body(first, count)),
        "job_id": job,
        "ids": count,
        "first_id": str(first),
        "last_id": str(first + count - 1),
    }


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


# --- what an id is ---


def test_the_judge_reads_a_source_by_its_own_rules(tmp_path):
    source = tmp_path / "ids.txt"
    source.write_bytes(
        b"\xef\xbb\xbf12\r\n\t7 ,8,, 12\n007\n+5\n1_2\n\xd9\xa3\n12345678901234567890\n9999999999999999999\n1\r"
    )
    given = read_sources([source])
    assert given.ids.tolist() == [12, 7, 8, 9999999999999999999, 1]
    assert (given.pieces, given.duplicate) == (11, 1)
    assert sorted(line for _, line in given.invalid.elements()) == [3, 4, 5, 6, 7]


def test_packed_and_plain_sources_are_read_one_after_the_other(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"5\n6\n7"))
    (tmp_path / "b").write_bytes(b"8\n5\n")
    given = read_sources([tmp_path / "a", tmp_path / "b"])
    assert given.ids.tolist() == [5, 6, 7, 8]
    assert read_sources([tmp_path / "a", tmp_path / "b"], dedupe=False).ids.tolist() == [5, 6, 7, 8, 5]


def test_a_clean_source_and_the_same_with_one_stain_give_the_same_ids(tmp_path):
    numbers = np.random.default_rng(1).integers(1, 10**19, 200_000, dtype=np.uint64)
    (tmp_path / "clean").write_bytes(text_of(numbers))
    (tmp_path / "stained").write_bytes(text_of(numbers) + b"\nx\n")
    assert (read_sources([tmp_path / "clean"]).ids == read_sources([tmp_path / "stained"]).ids).all()


def test_ids_as_text_and_back():
    numbers = np.array([1, 10, 100, 9999999999999999999, 5000], np.uint64)
    assert text_of(numbers) == b"1\n10\n100\n9999999999999999999\n5000"
    assert ids_of(text_of(numbers)).tolist() == numbers.tolist()
    assert [ids_of(text) for text in (b"", b"1\n", b"01", b"1 2", b"-1")] == [None] * 5


# --- an honest run ---


def test_an_honest_run_has_no_violations_and_its_figures_add_up(world):
    judgement = world.judge()
    assert judgement.violations == []
    figures = judgement.figures
    assert figures["lines"] == 18 == 15 + figures["invalid"] + figures["duplicate"]
    assert figures["given"] == 15 == figures["delivered"] + figures["refused"] + figures["held"]
    assert (figures["lost"], figures["paid_twice"], figures["orphans"], figures["paid"]) == (0, 0, 0, 9)
    assert world.judge_killed().violations == []


def test_jobs_of_others_on_the_account_are_nobodys_business(world):
    world.add_job("theirs", body(101))
    world.posts.pop()
    world.foreign.add("theirs")
    assert world.judge().violations == []


def test_a_held_chunk_may_be_settled_by_adopting_its_job(world):
    world.sql(
        "UPDATE chunk SET state = 'delivered' WHERE ordinal = 5",
        "INSERT INTO job VALUES (5, 'j5')",
        "INSERT INTO settlement VALUES (1, 5, 1, 'adopted')",
    )
    world.records.append(record(5, 113, 3, "j5"))
    world.held.pop()
    world.summary["ids"] |= {"accepted": 9, "held": 3}
    world.summary["chunks"] |= {"accepted": 4, "held": 1}
    assert world.judge().violations == []


def test_a_person_may_have_a_held_chunk_sent_again_and_it_is_counted(world):
    world.sql(
        "UPDATE chunk SET state = 'delivered', duplicate_risk = 1 WHERE ordinal = 5",
        "INSERT INTO attempt VALUES (5, 2, 'accepted')",
        "INSERT INTO job VALUES (5, 'j6')",
        "INSERT INTO settlement VALUES (1, 5, 1, 'resubmitted')",
    )
    world.add_job("j6", body(113))
    world.records.append(record(5, 113, 3, "j6"))
    world.held.pop()
    world.summary["ids"] |= {"accepted": 9, "held": 3}
    world.summary["chunks"] |= {"accepted": 4, "held": 1}
    judgement = world.judge()
    assert judgement.violations == []
    assert judgement.figures["paid_twice_at_own_risk"] == 3


def test_a_killed_process_leaves_a_torn_line_and_chunks_in_flight(world):
    world.sql(
        "UPDATE chunk SET state = 'sending' WHERE ordinal = 5",
        "UPDATE attempt SET verdict = NULL WHERE chunk = 5",
        "UPDATE chunk SET state = 'accepted' WHERE ordinal = 1",
    )
    world.write()
    with (world.run_dir / "jobs.jsonl").open("a") as sink:
        sink.write('{"chunk": 1, "di')
    pieces = (read_sources([world.source]), read_books(world.books), read_image(world.run_dir))
    assert judge_killed(*pieces, workers=1).violations == []
    assert "in flight with 0 workers" in str(judge_killed(*pieces, workers=0))


def test_only_the_jobs_of_a_range_of_ids_are_looked_at(world):
    world.add_job("other-run", body(900))
    world.write()
    assert "silent orphan" in str(judge_run([world.source], world.books, world.run_dir))
    assert judge_run([world.source], world.books, world.run_dir, within=range(100, 200)).violations == []


# --- broken promises ---


def paid_twice(world):
    world.add_job("again", body(101))
    world.sql("INSERT INTO attempt VALUES (1, 3, 'accepted')", "UPDATE attempt SET verdict = 'not_applied' WHERE attempt = 2")  # fmt: skip


def one_id_paid_twice(world):
    world.bodies["j4b"] = b"111\n101"


def orphan_of_a_planned_chunk(world):
    world.sql("UPDATE chunk SET state = 'planned' WHERE ordinal = 5")


def absence_wrongly_proved(world):
    world.sql(
        "UPDATE chunk SET state = 'planned' WHERE ordinal = 5",
        "INSERT INTO settlement VALUES (1, 5, 1, 'absent')",
    )


def sent_without_intent(world):
    world.posts.append(body(107))
    world.posts.append(body(107))


def sent_what_was_not_planned(world):
    world.posts.append(body(101, 2))


def retried_without_proof(world):
    world.sql("INSERT INTO attempt VALUES (3, 2, 'unknown')")


def job_that_is_not_there(world):
    del world.bodies["j1"]


def job_of_another_body(world):
    world.bodies["j1"] = body(201)


def adopted_somebody_elses(world):
    world.foreign.add("j1")


def chunk_left_out(world):
    world.sql("DELETE FROM chunk WHERE ordinal = 5", "DELETE FROM attempt WHERE chunk = 5")


def chunk_of_other_ids(world):
    world.sql(f"UPDATE chunk SET digest = '{digest(b'1')}' WHERE ordinal = 3")


def part_left_out(world):
    world.sql(f"DELETE FROM chunk WHERE ordinal = {PART + 1}", f"DELETE FROM job WHERE chunk = {PART + 1}")


def refused_ids_forgotten(world):
    world.refused = body(104, 2) + b"\n"


def invalid_line_forgotten(world):
    world.invalid.pop()


def invalid_line_swallowed(world):
    world.sql("UPDATE run SET tail_invalid = 0")


def record_lost(world):
    world.records.pop()


def record_twice(world):
    world.records.append(world.records[0])


def record_of_a_held_chunk(world):
    world.records.append(record(5, 113, 3, "j5"))


def record_of_another_job(world):
    world.records[0]["job_id"] = "j5"


def held_report_incomplete(world):
    world.held.pop()


def summary_that_does_not_add_up(world):
    world.summary["ids"]["read"] += 1


def summary_that_hides_held_ids(world):
    world.summary["ids"] |= {"held": 3, "accepted": 9}


def summary_that_counts_other_chunks(world):
    world.summary["chunks"]["held"] = 1


def accepted_without_a_job(world):
    world.sql("DELETE FROM job WHERE chunk = 1")


def held_without_an_attempt(world):
    world.sql("DELETE FROM attempt WHERE chunk = 3")


def sink_behind_its_position(world):
    world.sql("UPDATE sink SET position = 1000000")


@pytest.mark.parametrize(
    ("doctor", "violation"),
    [
        (paid_twice, "3 ids were paid for again"),
        (paid_twice, "was made 2 jobs of"),
        (paid_twice, "silent orphan: job again"),
        (one_id_paid_twice, "1 ids were paid for again, the first of them [101]"),
        (one_id_paid_twice, "1 ids are lost"),
        (orphan_of_a_planned_chunk, "silent orphan: job j5 was made of chunk 5 (planned)"),
        (absence_wrongly_proved, "silent orphan: job j5"),
        (sent_without_intent, "was sent 2 times with 1 attempts"),
        (sent_what_was_not_planned, "1 submissions came of no chunk"),
        (retried_without_proof, "had attempt 2, but 1 is unknown"),
        (job_that_is_not_there, "the server has no job j1"),
        (job_that_is_not_there, "3 ids are lost"),
        (job_of_another_body, "job j1 was made of other ids"),
        (job_of_another_body, "3 ids were sent that no source holds"),
        (adopted_somebody_elses, "somebody else's"),
        (chunk_left_out, "(12, 2, 1) valid, invalid and duplicate ids, the source (15, 2, 1)"),
        (chunk_left_out, "3 ids are lost"),
        (chunk_left_out, "silent orphan: job j5 was made of no chunk"),
        (chunk_of_other_ids, "chunk 3 is not what the source gives there"),
        (part_left_out, "the parts of chunk 4 are not all of it"),
        (refused_ids_forgotten, "does not hold the ids of the refused chunk 2"),
        (invalid_line_forgotten, "invalid.jsonl has 1 lines"),
        (invalid_line_swallowed, "(15, 1, 1) valid, invalid and duplicate ids, the source (15, 2, 1)"),
        (record_lost, "is delivered and has 0 lines in jobs.jsonl"),
        (record_twice, "chunk 1 is delivered and has 2 lines"),
        (record_of_a_held_chunk, "chunk 5 is held and has 1 lines"),
        (record_of_another_job, "the line of chunk 1 in jobs.jsonl has a wrong job_id"),
        (held_report_incomplete, "held.jsonl has 1 chunks, the ledger 2"),
        (summary_that_does_not_add_up, "summary.json does not add up"),
        (summary_that_hides_held_ids, "summary.json counts"),
        (summary_that_counts_other_chunks, "summary.json counts chunks"),
        (accepted_without_a_job, "chunk 1 is delivered and has no job"),
        (held_without_an_attempt, "chunk 3 is held without an attempt"),
        (sink_behind_its_position, "the ledger knows of 1000000"),
    ],
)
def test_a_broken_promise_is_noticed(world, doctor, violation):
    doctor(world)
    assert violation in "\n".join(world.judge().violations)


@pytest.mark.parametrize(
    "doctor", [paid_twice, orphan_of_a_planned_chunk, retried_without_proof, record_lost, chunk_of_other_ids]
)
def test_what_can_be_seen_after_a_kill_is_noticed_then(world, doctor):
    doctor(world)
    assert world.judge_killed().violations


def test_a_damaged_ledger_is_noticed(world):
    world.write()
    ledger = world.run_dir / "ledger.db"
    ledger.write_bytes(ledger.read_bytes()[:4096] + b"\xff" * 20_000)
    assert "the ledger is damaged" in str(judge_run([world.source], world.books, world.run_dir))


def test_books_of_a_run_that_never_began_must_be_empty(world):
    world.write()
    (world.run_dir / "ledger.db").unlink()
    assert "silent orphan: job j1 was made of no chunk" in str(
        judge_run([world.source], world.books, world.run_dir)
    )


def test_the_exit_code_tells_the_judgement(world, capsys):
    world.write()
    command = ["--books", str(world.books), "--run", str(world.run_dir), str(world.source)]
    assert main(command) == 0
    world.records.pop()
    world.write()
    assert main(command) == 1
    assert "has 0 lines in jobs.jsonl" in capsys.readouterr().out
