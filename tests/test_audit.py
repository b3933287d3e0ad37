"""The audit: silent about a true account, whatever state the run is in, and never silent about one that is not."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.scripted import by_ids, doctor, run_with
from support.simulated import crash_image, json_lines

from bulkjobs.__main__ import main
from bulkjobs.audit import Audit, audit_run
from bulkjobs.audit.reports import reports_are_current
from bulkjobs.cli.streams import on_terminal
from bulkjobs.errors import ConfigError, LedgerError, SourceError
from bulkjobs.exits import Exit
from bulkjobs.ledger.inspection import inspecting
from bulkjobs.model import JobRecord
from bulkjobs.rundir import RunDir

PART = 1_000_000_001


class Mixed:
    """A run with everything in it: three kinds of source, and chunks that ended in every way.

    Chunk 1 (1 to 4), 2 (5 to 8) and 3 (9 to 12) are accepted, 4 (66 to 15) is refused, 5 (77 to 18) is held, 6 (99 to
    21) was split into two parts, the first of them into two again. Three ids are invalid, two duplicate.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain = folder / "a.txt"
        self.packed = folder / "b.txt.gz"
        self.run_dir = folder / "mixed.run"
        self.jobs = self.run_dir / "jobs.jsonl"
        self.invalid = self.run_dir / "invalid.jsonl"

    def make(self) -> Mixed:
        self.plain.write_text("1\n2\nx\n2\n3\n4\n5\n6\n7\n8\n")
        self.packed.write_bytes(gzip.compress(b"9\n10\n-5\n11\n12\n66\n13\n14\n15\n"))
        ids = [77, 16, "07", 17, 18, 99, 19, 20, 21, 5]
        summary = run_with(self.run_dir, self.plain, self.packed, ids, answers=by_ids)
        assert summary.exit_code == Exit.HELD
        return self

    def audit(self, **options: Any) -> Audit:
        return audit_run(self.run_dir, **options)

    def doctor(self, *statements: str) -> None:
        doctor(self.run_dir, *statements)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory) -> Mixed:
    return Mixed(tmp_path_factory.mktemp("pattern")).make()


@pytest.fixture(scope="module")
def kept(pattern, tmp_path_factory) -> Path:
    """What the pattern was when it was made."""
    assert pattern.audit().agrees
    kept = tmp_path_factory.mktemp("kept") / "copy"
    shutil.copytree(pattern.folder, kept, copy_function=shutil.copy2)
    return kept


@pytest.fixture
def mixed(pattern, kept) -> Mixed:
    """The pattern as it was made, in its own place, so that what it says of its sources is true."""
    shutil.rmtree(pattern.folder)
    shutil.copytree(kept, pattern.folder, copy_function=shutil.copy2)
    return pattern


def edit(path: Path, change: Callable[[list[str]], Any]) -> None:
    """Changes the lines of a file in place; the line ends are part of them."""
    lines = path.read_text().splitlines(keepends=True)
    change(lines)
    path.write_text("".join(lines))


def differences(audit: Audit) -> list[str]:
    return [f"{one.where}: {one.text}" for one in audit.differences]


def assert_found(audit: Audit, expected: str) -> None:
    """Passes an audit that has a difference which matches, beginning with where it is."""
    found = differences(audit)
    assert any(re.match(expected, text) for text in found), found


# --- true accounts ---


def test_a_run_with_everything_in_it_agrees(mixed):
    """Every kind of end, every kind of source, split chunks among them."""
    audit = mixed.audit()
    assert differences(audit) == []
    assert (
        audit.source
        == audit.ledger
        == {
            "read": 29,
            "invalid": 3,
            "duplicate": 2,
            "accepted": 16,
            "refused": 4,
            "held": 4,
            "pending": 0,
        }
    )
    assert audit.checked == {"chunks": 6, "parts": 4, "invalid": 3, "records": 6, "refused": 1, "commands": 0}
    assert (audit.owner, audit.unplanned, audit.notes) == (None, 0, [])


def test_a_run_without_ids_agrees(tmp_path):
    """Nothing read is nothing lost."""
    (tmp_path / "ids.txt").write_text("\n\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    assert audit_run(tmp_path / "run").agrees


def test_a_run_without_dedupe_agrees(tmp_path):
    """Then nothing is a duplicate."""
    (tmp_path / "ids.txt").write_text("1\n1\n2\n1\n3\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt", dedupe=False)
    audit = audit_run(tmp_path / "run")
    assert differences(audit) == []
    assert audit.source["accepted"] == 5


def test_records_in_files_of_ones_own_are_compared_too(tmp_path):
    """Where other lines stand as well; they are nobody's business."""
    (tmp_path / "ids.txt").write_text("1\n2\n3\n4\n5\n")
    shared = tmp_path / "all.jsonl"
    shared.write_text('{"run_id": "another"}\nnot even JSON\n')
    run_with(tmp_path / "run", tmp_path / "ids.txt", sink=[str(shared)])
    with shared.open("a") as file:
        file.write('{"run_id": "a third"}\nhalf a li')
    audit = audit_run(tmp_path / "run")
    assert differences(audit) == []
    assert audit.checked["records"] == 2
    edit(shared, lambda lines: lines.__setitem__(2, lines[2].replace('"ids":4', '"ids":5')))
    assert_found(
        audit_run(tmp_path / "run"), r"sink: .*all\.jsonl line 3 has 5 as ids of chunk 1, the ledger 4"
    )


def test_records_that_went_to_a_function_are_told_as_not_to_be_read_back(tmp_path):
    """The ledger alone speaks for them."""

    async def take(record: JobRecord) -> None:
        del record

    (tmp_path / "ids.txt").write_text("1\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt", sink=take)
    audit = audit_run(tmp_path / "run")
    assert audit.agrees
    assert any("cannot be read back" in note for note in audit.notes)


def test_a_sink_that_came_later_lacks_what_was_delivered_before(tmp_path):
    """Which is told and no difference, as long as each record is in one of the files."""
    (tmp_path / "ids.txt").write_text("1\n2\n3\n4\n5\n6\n7\n8\n")
    (tmp_path / "one.jsonl").touch()

    def only_first(ids: list[int]) -> Any:
        from bulkjobs.testing import answered

        return None if 1 in ids else answered(400, b'{"message": "Insufficient transaction quota."}')

    run_with(tmp_path / "run", tmp_path / "ids.txt", answers=only_first, sink=[str(tmp_path / "one.jsonl")])
    run_with(tmp_path / "run", tmp_path / "ids.txt", sink=[str(tmp_path / "two.jsonl")])
    audit = audit_run(tmp_path / "run")
    assert differences(audit) == []
    assert sum("does not have 1 of 2 delivered records" in note for note in audit.notes) == 2
    edit(tmp_path / "two.jsonl", list.clear)
    assert_found(audit_run(tmp_path / "run"), r"sink: .*two\.jsonl has 0 bytes, but")
    assert_found(audit_run(tmp_path / "run"), r"sink: .* lacks the record of chunk 2")


def test_relative_names_begin_in_the_folder_that_is_named(tmp_path, monkeypatch):
    """So that a run can be audited from elsewhere."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    Path("ids.txt").write_text("1\n2\nx\n")
    run_with(Path("ids.txt.run").absolute(), "ids.txt")
    assert audit_run("ids.txt.run").agrees
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"there is no|cannot be read.*--folder"):
        audit_run("there/ids.txt.run")
    assert audit_run("there/ids.txt.run", folder=Path("there")).agrees


def test_an_audit_changes_no_file(mixed):
    """Neither the content nor the time of any."""

    def state() -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in mixed.folder.rglob("*")
            if path.is_file() and not path.name.endswith(("-shm", "-wal"))
        }

    before = state()
    mixed.audit()
    assert state() == before


# --- runs that go on, or were killed ---


def live(tmp_path: Path, at: int, look: Callable[[Path], Any], *, stops: bool = False, **options: Any) -> Any:
    """Looks at a run in the middle of its session, while its n-th request is out; `stops`: nothing goes on meanwhile."""
    seen: list[Any] = []
    count = 0

    async def leaving(_ids: list[int]) -> None:
        nonlocal count
        count += 1
        if count == at:
            run_dir = tmp_path / "run"
            seen.append(look(run_dir) if stops else await asyncio.to_thread(look, run_dir))

    source = options.pop("source", None) or tmp_path / "ids.txt"
    if isinstance(source, Path):
        source.write_text("".join(f"{n}\nx{n}\n" for n in range(1, 401)))
    run_with(tmp_path / "run", source, leaving=leaving, **options)
    assert len(seen) == 1
    return seen[0]


@pytest.mark.parametrize("at", [1, 2, 37, 100])
@pytest.mark.parametrize("workers", [1, 8])
def test_a_run_that_goes_on_agrees_at_every_moment(tmp_path, at, workers):
    """What it does meanwhile is no difference; it is told that it works."""
    audit = live(tmp_path, at, audit_run, workers=workers)
    assert differences(audit) == []
    assert audit.owner is not None
    assert audit.source == audit.ledger
    assert audit.source["pending"] > 0
    assert audit.source["read"] + audit.unplanned <= 800
    assert audit_run(tmp_path / "run").source["read"] == 800


@pytest.mark.parametrize("at", [1, 37, 100])
def test_a_run_from_an_iterable_agrees_while_it_is_copied(tmp_path, at):
    """The copy is read as far as the ledger knows it."""
    audit = live(tmp_path, at, audit_run, source=(n if n % 3 else f"x{n}" for n in range(1, 601)))
    assert differences(audit) == []
    assert audit.source == audit.ledger


@pytest.mark.parametrize("at", [1, 2, 50, 99])
@pytest.mark.parametrize("workers", [1, 8])
def test_a_killed_run_agrees_and_tells_what_was_in_flight(tmp_path, at, workers):
    """And so it does when the next session has come and gone."""

    def look(run_dir: Path) -> None:
        crash_image(run_dir, tmp_path / "image")

    live(tmp_path, at, look, stops=True, workers=workers)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "image").rename(tmp_path / "run")
    audit = audit_run(tmp_path / "run")
    assert differences(audit) == []
    assert audit.owner is None
    assert any(re.search(r"did not close the run.* [1-8] chunks", note) for note in audit.notes)
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    after = audit_run(tmp_path / "run")
    assert differences(after) == []
    assert after.source["held"] > 0
    assert after.source["accepted"] + after.source["held"] == 400


def test_half_a_line_behind_what_is_delivered_is_told_and_no_difference(tmp_path):
    """A killed process leaves it; the next session cuts it off."""

    def look(run_dir: Path) -> None:
        crash_image(run_dir, tmp_path / "image")
        line = (run_dir / "jobs.jsonl").read_bytes().splitlines()[0]
        with (tmp_path / "image" / "jobs.jsonl").open("ab") as file:
            file.write(line[:40])
        with (tmp_path / "image" / "invalid.jsonl").open("ab") as file:
            file.write(b'{"source": "')

    live(tmp_path, 50, look, stops=True)
    (tmp_path / "image" / "summary.json").unlink(missing_ok=True)
    doctor(tmp_path / "image", "UPDATE run SET source_finished = 0")
    audit = audit_run(tmp_path / "image")
    assert differences(audit) == []
    assert sum("middle of a line" in note for note in audit.notes) == 2


def test_a_record_of_a_chunk_that_was_not_accepted_is_found_in_a_killed_run(tmp_path):
    """It would mean that the ledger has forgotten a job."""

    def look(run_dir: Path) -> None:
        crash_image(run_dir, tmp_path / "image")
        line = json_lines(run_dir / "jobs.jsonl")[0] | {"chunk": 60, "job_id": "forgotten"}
        with (tmp_path / "image" / "jobs.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    live(tmp_path, 50, look, stops=True)
    assert_found(
        audit_run(tmp_path / "image"), r"sink: .*chunk 60 with job forgotten, of which the ledger knows"
    )


def test_a_source_that_broke_off_is_compared_as_far_as_it_goes(tmp_path):
    """What stands behind the break is in no chunk yet."""
    whole = gzip.compress("".join(f"{n}\n" for n in range(1, 30_001)).encode(), mtime=0)
    (tmp_path / "ids.gz").write_bytes(whole[: len(whole) // 2])
    summary = run_with(tmp_path / "run", tmp_path / "ids.gz", chunk_size=1_000)
    assert summary.exit_code == Exit.USAGE
    audit = audit_run(tmp_path / "run")
    assert differences(audit) == []
    assert any("ends early" in note for note in audit.notes)
    assert audit.source == audit.ledger


def test_reports_are_compared_only_when_a_session_wrote_them_last(mixed):
    """A process that dies between the end of its session and its reports leaves those of the session before."""
    os.utime(mixed.run_dir / "summary.json", (0, 0))
    (mixed.run_dir / "held.jsonl").unlink()
    audit = mixed.audit()
    assert differences(audit) == []
    assert any("were not compared" in note for note in audit.notes)


def test_reports_are_not_compared_when_a_session_began_meanwhile(mixed):
    """They may then be of a later moment than the ledger that was read."""
    with inspecting(mixed.run_dir) as inspection:
        assert reports_are_current(RunDir(mixed.run_dir), inspection)
        mixed.doctor("INSERT INTO session (started_utc, ended_utc, exit_code) VALUES (1, 2, 0)")
        assert not reports_are_current(RunDir(mixed.run_dir), inspection)


# --- what cannot be audited ---


def test_a_folder_without_a_run_cannot_be_audited(tmp_path, capsys):
    """Which is exit code 2, with a sentence."""
    assert main(["audit", str(tmp_path / "nowhere")]) == 2
    assert "no run directory" in capsys.readouterr().err
    assert main(["audit", str(tmp_path)]) == 2
    (tmp_path / "ledger.db").touch()
    assert main(["audit", str(tmp_path)]) == 2
    with pytest.raises(ConfigError):
        audit_run(tmp_path)


def test_a_source_that_is_gone_is_named(mixed, capsys):
    """Without it nobody can tell what was read."""
    mixed.plain.unlink()
    assert main(["audit", str(mixed.run_dir)]) == 2
    err = capsys.readouterr().err
    assert "a.txt" in err
    assert "--folder" in err


def test_a_copy_that_is_shorter_than_the_ledger_knows_is_named(mixed):
    """It is the only place of these ids."""
    spool = mixed.run_dir / "spool-2.txt"
    spool.write_bytes(spool.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"spool-2\.txt has \d+ bytes, but the ledger knows"):
        mixed.audit()


def test_a_ledger_that_is_no_database_is_said_to_be_damaged(mixed):
    """An audit cannot begin."""
    (mixed.run_dir / "ledger.db").write_bytes(b"nothing" * 4096)
    with pytest.raises(LedgerError, match="cannot be read"):
        mixed.audit()


# --- the ledger against itself ---

SHADOW = (
    "ALTER TABLE job RENAME TO old",
    """CREATE TABLE job (chunk INTEGER PRIMARY KEY, job_id TEXT, attempt INTEGER, accepted_utc REAL,
    accepted_state TEXT, type TEXT, state TEXT, word TEXT, processed INTEGER, seen_utc REAL)""",
    "INSERT INTO job SELECT * FROM old",
    "DROP TABLE old",
)


def settled(chunk: int, how: str, job: str = "NULL", attempt: int = 1) -> str:
    return (
        "INSERT INTO settlement (chunk, attempt, at_utc, how, job_id, reason, by)"
        f" VALUES ({chunk}, {attempt}, 0, '{how}', {job}, 'because', 'person')"
    )


def attempt_of(chunk: int, number: int, verdict: str) -> str:
    return (
        f"INSERT INTO attempt (chunk, attempt, started_utc, verdict) VALUES ({chunk}, {number}, 1, {verdict})"
    )


LEDGER = {
    "delivered called planned": (
        ["UPDATE chunk SET state = 'planned' WHERE ordinal = 1"],
        r"ledger: Chunk 1 is planned, but its last attempt is accepted",
    ),
    "planned with a job": (
        ["UPDATE chunk SET state = 'planned' WHERE ordinal = 1"],
        r"ledger: Chunk 1 is planned, but has job job-0-1",
    ),
    "held called refused": (
        ["UPDATE chunk SET state = 'refused' WHERE ordinal = 5"],
        r"ledger: Chunk 5 is refused, but its last attempt is unknown",
    ),
    "refused called held": (
        ["UPDATE chunk SET state = 'held' WHERE ordinal = 4"],
        r"ledger: Chunk 4 is held, but its last attempt is refused",
    ),
    "sending without an attempt in flight": (
        ["UPDATE chunk SET state = 'sending' WHERE ordinal = 5"],
        r"ledger: Chunk 5 is sending, but its last attempt is unknown",
    ),
    "planned with an attempt in flight": (
        [
            "UPDATE chunk SET state = 'planned' WHERE ordinal = 5",
            "UPDATE attempt SET verdict = NULL WHERE chunk = 5",
        ],
        r"ledger: Chunk 5 is planned, but its last attempt is in flight",
    ),
    "accepted without a job": (
        ["DELETE FROM job WHERE chunk = 2"],
        r"ledger: Chunk 2 is delivered, but has no job",
    ),
    "accepted without an accepted attempt": (
        ["UPDATE attempt SET verdict = 'unknown' WHERE chunk = 2"],
        r"ledger: Chunk 2 has a job of attempt 1, which is not accepted",
    ),
    "a job of another attempt": (
        ["UPDATE job SET attempt = 2 WHERE chunk = 2"],
        r"ledger: Chunk 2 has a job of attempt 2, which is not accepted",
    ),
    "a job of another time": (
        ["UPDATE job SET accepted_utc = accepted_utc - 1 WHERE chunk = 2"],
        r"ledger: Chunk 2 has a job of another time than attempt 1",
    ),
    "no attempt": (
        ["DELETE FROM attempt WHERE chunk = 3"],
        r"ledger: Chunk 3 is delivered, but its last attempt is missing",
    ),
    "an attempt left out": (
        ["UPDATE attempt SET attempt = 2 WHERE chunk = 3", "UPDATE job SET attempt = 2 WHERE chunk = 3"],
        r"ledger: Chunk 3 has attempt 2 where attempt 1 should be",
    ),
    "sent again after an acceptance": (
        [attempt_of(1, 2, "'accepted'")],
        r"ledger: Chunk 1 was sent again after attempt 1, which is accepted",
    ),
    "sent again after an unknown outcome": (
        [attempt_of(5, 2, "'unknown'")],
        r"ledger: Chunk 5 was sent again after attempt 1, which is unknown",
    ),
    "two attempts in flight": (
        ["DROP INDEX attempt_in_flight", attempt_of(5, 2, "NULL"), attempt_of(5, 3, "NULL")],
        r"ledger: Chunk 5 has 2 attempts in flight",
    ),
    "not applied without a cause": (
        ["UPDATE attempt SET cause = NULL WHERE chunk = 6"],
        r"ledger: Chunk 6 has attempt 1 called not applied, without a cause",
    ),
    "settled and still held": (
        [settled(5, "absent")],
        r"ledger: Chunk 5 is held, but its last attempt is settled as absent",
    ),
    "settled without having been unknown": (
        [settled(1, "absent")],
        r"ledger: Chunk 1 has settlement 1 of attempt 1, whose outcome was not unknown",
    ),
    "settled twice": (
        [settled(5, "absent"), settled(5, "absent")],
        r"ledger: Chunk 5 has attempt 1 settled twice",
    ),
    "adopted without a job": (
        [settled(5, "adopted")],
        r"ledger: Chunk 5 has settlement 1 \(adopted\), which does not go with job None",
    ),
    "another job than the one adopted": (
        [
            settled(5, "adopted", "'job-x'"),
            "UPDATE chunk SET state = 'accepted' WHERE ordinal = 5",
            "INSERT INTO job VALUES (5, 'job-y', 1, 1, 'accepted', '', 'accepted', NULL, NULL, NULL)",
        ],
        r"ledger: Chunk 5 has job job-y, but job job-x was adopted",
    ),
    "a risk that nobody took": (
        ["UPDATE chunk SET duplicate_risk = 1 WHERE ordinal = 1"],
        r"ledger: Chunk 1 is marked as sent at a person's risk",
    ),
    "a chunk that is missing": (
        ["DELETE FROM chunk WHERE ordinal = 2"],
        r"ledger: Chunk 2 is missing: chunk 3 follows",
    ),
    "entries of a chunk that is missing": (
        ["DELETE FROM chunk WHERE ordinal = 2"],
        r"ledger: There is an entry under job for 1 chunks that are not there: 2",
    ),
    "a part that is missing": (
        [f"DELETE FROM chunk WHERE ordinal = {PART}"],
        rf"ledger: Chunk {PART} is missing: chunk {PART + 1} follows",
    ),
    "a chunk split into nothing": (
        [f"DELETE FROM chunk WHERE ordinal >= {PART}"],
        r"ledger: Chunk 6 was split, but has no parts",
    ),
    "a part of a chunk that was not split": (
        [f"UPDATE chunk SET parent = 1 WHERE ordinal = {PART + 1}"],
        rf"ledger: Chunk {PART + 1} is a part of chunk 1, which was not split",
    ),
    "a part of nothing": (
        [f"UPDATE chunk SET parent = NULL WHERE ordinal = {PART + 1}"],
        rf"ledger: Chunk {PART + 1} is a part of no chunk",
    ),
    "a chunk called a part": (
        ["UPDATE chunk SET parent = 6 WHERE ordinal = 1"],
        r"ledger: Chunk 1 is cut from the sources, but is called a part of chunk 6",
    ),
    "a job of two chunks": (
        [*SHADOW, "UPDATE job SET job_id = 'job-0-1' WHERE chunk = 2"],
        r"ledger: Job job-0-1 is recorded as the job of more than one chunk",
    ),
    "a job from before the run": (
        ["INSERT INTO baseline VALUES ('job-0-1')"],
        r"ledger: Job job-0-1 was on the server's list before",
    ),
    "a lock-out that ends before it begins": (
        ["INSERT INTO lockout (began_utc, until_utc, reason) VALUES (2, 1, '429')"],
        r"ledger: Lock-out 1 ends before it begins",
    ),
    "a lock-out without a reason": (
        ["INSERT INTO lockout (began_utc, until_utc, reason) VALUES (1, 2, '')"],
        r"ledger: Lock-out 1 has no reason",
    ),
    "a finding about a chunk that is not held": (
        ["INSERT INTO finding (chunk, at_utc, reason) VALUES (1, 0, 'why')"],
        r"ledger: Chunk 1 is said not to have been settled, but is not held",
    ),
    "a session that never ended": (
        ["UPDATE session SET ended_utc = NULL", "INSERT INTO session (started_utc, ended_utc) VALUES (1, 2)"],
        r"ledger: Session 1 was never ended",
    ),
    "an exit code without an end": (
        ["UPDATE session SET ended_utc = NULL"],
        r"ledger: Session 1 has exit code 4 and no end",
    ),
    "figures that do not add up": (
        ["UPDATE chunk SET ids = 5 WHERE ordinal = 1"],
        r"ledger: 16 ids are accepted as counted from the sources, 17 as counted from the ledger",
    ),
}


@pytest.mark.parametrize("change", LEDGER)
def test_the_ledger_is_compared_with_itself(mixed, change):
    """Every rule by which a chunk may have got where it is."""
    statements, expected = LEDGER[change]
    mixed.doctor(*statements)
    assert_found(mixed.audit(), expected)


def test_a_state_that_is_none_makes_the_ledger_unreadable(mixed):
    """As for every other command."""
    mixed.doctor("UPDATE chunk SET state = 'lost' WHERE ordinal = 4")
    with pytest.raises(LedgerError, match="cannot be read: 'lost'"):
        mixed.audit()


GIVEN = (
    "INSERT INTO control (session, at_utc, command, value, origin) VALUES (1, 1.8e9, {}, 'control, uid 0')"
)
CONTROLS = [("pause", None), ("rate", "600/5m"), ("rate", "auto/5m"), ("rate", "7/65160s"), ("rate", "none"), ("workers", "2"),
            ("resume", None), ("drain", None)]  # fmt: skip


def given(command: str, value: str | None = None) -> str:
    return GIVEN.format(f"'{command}', NULL" if value is None else f"'{command}', '{value}'")


def test_what_was_told_to_the_run_is_shown_with_its_time_and_origin(mixed, capsys):
    mixed.doctor(*(given(*each) for each in CONTROLS))
    audit = mixed.audit()
    assert differences(audit) == []
    assert audit.checked["commands"] == len(CONTROLS)
    told = audit.as_dict()["control"]
    assert [(each["command"], each["value"]) for each in told] == CONTROLS
    assert told[1] == {
        "session": 1,
        "at": "2027-01-15T08:00:00.000Z",
        "command": "rate",
        "value": "600/5m",
        "origin": "control, uid 0",
    }
    main(["audit", str(mixed.run_dir)])
    assert (
        "told       2027-01-15T08:00:00.000Z: rate 600/5m (session 1, control, uid 0)"
        in capsys.readouterr().out
    )


def test_of_very_many_commands_the_latest_are_shown_and_the_others_counted(mixed, capsys):
    mixed.doctor(*(given("workers", str(count)) for count in range(1, 13)))
    assert main(["audit", str(mixed.run_dir)]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("told")]
    assert shown[0] == "told       2 commands before these; --json lists them all"
    assert [line.split(" (")[0].rsplit(": ")[1] for line in shown[1:]] == [
        f"workers {count}" for count in range(3, 13)
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE control SET number = 9 WHERE number = 2", "Command 9 .* stands where command 2 belongs"),
        ("UPDATE control SET session = 7 WHERE number = 1", "Command 1 .* session 7, which is not there"),
        ("UPDATE control SET at_utc = 9e999 WHERE number = 1", "Command 1 .* time that no clock shows: inf"),
        ("UPDATE control SET at_utc = -1e300 WHERE number = 1", "Command 1 .* time that no clock shows"),
        ("UPDATE control SET origin = ' ' WHERE number = 2", "Command 2 .* does not say who gave it"),
        ("UPDATE control SET command = 'explode' WHERE number = 1", "Command 1 .* none that this version"),
        ("UPDATE control SET command = 'state' WHERE number = 1", "Command 1 .* changes nothing"),
        ("UPDATE control SET value = 'now' WHERE number = 1", "Command 1 .* takes no value"),
        ("UPDATE control SET value = NULL WHERE number = 2", "Command 2 .* needs a value"),
        ("UPDATE control SET value = '-1/5m' WHERE number = 2", "Command 2 .* none that this version"),
    ],
)  # fmt: skip
def test_a_command_that_no_session_records_is_found(mixed, change, expected):
    mixed.doctor(given("pause"), given("rate", "600/5m"), change)
    assert_found(mixed.audit(), f"ledger: {expected}")
    assert main(["audit", str(mixed.run_dir), "--json"]) == 6
    assert main(["status", str(mixed.run_dir), "--json"]) == 0, "whatever stands there"


def test_sources_are_numbered_without_a_gap(tmp_path):
    """Their numbers name their copies."""
    (tmp_path / "ids.txt").write_text("1\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    doctor(tmp_path / "run", "UPDATE source SET position = 5")
    assert_found(audit_run(tmp_path / "run"), r"ledger: The sources are numbered \[5\]")


def test_a_damaged_index_is_found_unless_it_is_not_looked_for(mixed):
    """With --quick the rows alone are read."""
    row = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE name = 'job_state'"
    with closing(sqlite3.connect(mixed.run_dir / "ledger.db", isolation_level=None)) as database:
        kept = database.execute(row).fetchone()
        database.execute("PRAGMA writable_schema = ON")
        database.execute("DELETE FROM sqlite_master WHERE name = 'job_state'")
    mixed.doctor("UPDATE job SET state = 'finished' WHERE chunk = 1")
    with closing(sqlite3.connect(mixed.run_dir / "ledger.db", isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", kept)
    assert_found(mixed.audit(), r"ledger: SQLite finds the file damaged: .*job_state")
    assert not any("damaged" in text for text in differences(mixed.audit(quick=True)))


def test_a_settlement_that_fits_is_no_difference(mixed):
    """Adopted, or proved absent and sent again."""
    mixed.doctor(
        settled(5, "adopted", "'job-z'"),
        "UPDATE chunk SET state = 'accepted' WHERE ordinal = 5",
        "INSERT INTO job VALUES (5, 'job-z', 1, 1, 'accepted', '', 'accepted', NULL, NULL, NULL)",
    )
    os.utime(mixed.run_dir / "summary.json", (0, 0))
    assert differences(mixed.audit()) == []
    run_with(mixed.run_dir)  # delivers its record
    audit = mixed.audit()
    assert differences(audit) == []
    assert audit.checked["records"] == 7


@pytest.mark.parametrize("how", ["absent", "resubmitted"])
def test_a_held_chunk_that_goes_out_again_is_no_difference(mixed, how):
    """It is pending until its outcome is known."""
    mixed.doctor(
        settled(5, how),
        f"UPDATE chunk SET state = 'planned', duplicate_risk = {int(how == 'resubmitted')} WHERE ordinal = 5",
    )
    os.utime(mixed.run_dir / "summary.json", (0, 0))
    audit = mixed.audit()
    assert differences(audit) == []
    assert audit.source["pending"] == 4
    run_with(mixed.run_dir)
    assert differences(mixed.audit()) == []


# --- the ledger against the sources ---

CHUNK_FIELDS = {
    "digest": ("'00'", "digest 00 there"),
    "ids": ("3", "ids 3 there, 4 in the source"),
    "first_id": ("'4'", "first id 4 there"),
    "last_id": ("'4'", "last id 4 there"),
    "body_bytes": ("99", "bytes 99 there"),
    "source": ("'c.txt'", "source c.txt there"),
    "line": ("99", "line 99 there"),
    "invalid": ("2", "invalid ids before its end 2 there"),
    "duplicate": ("7", "duplicate ids before its end 7 there"),
}


@pytest.mark.parametrize("column", CHUNK_FIELDS)
def test_each_figure_of_a_chunk_is_compared_with_the_source(mixed, column):
    """Nothing that a chunk is rests on the ledger alone."""
    value, expected = CHUNK_FIELDS[column]
    mixed.doctor(f"UPDATE chunk SET {column} = {value} WHERE ordinal = 2")
    assert_found(mixed.audit(), rf"source: Chunk 2 .*{expected}")


PART_FIELDS = {
    "digest": ("'00'", "has digest 00"),
    "first_id": ("'4'", "has first id 4"),
    "last_id": ("'4'", "has last id 4"),
    "body_bytes": ("99", "has bytes 99"),
    "line": ("99", "has line 99"),
    "invalid": ("2", "has tally"),
    "ids": ("4", "reaches beyond it"),
    "first": ("3", "reaches beyond it"),
}


@pytest.mark.parametrize("column", PART_FIELDS)
def test_each_figure_of_a_part_is_compared_with_its_slice(mixed, column):
    """And so is whether the parts are the whole."""
    value, expected = PART_FIELDS[column]
    mixed.doctor(f"UPDATE chunk SET {column} = {value} WHERE ordinal = {PART + 1}")
    assert_found(mixed.audit(), rf"source: Part {PART + 1} of chunk 6 {expected}")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "first = 1, ids = 3",
            r"source: The parts of chunk 6 are not the whole: more than one part has the ids from 1",
        ),
        ("first = 3, ids = 1", r"source: The parts of chunk 6 are not the whole: no part has the ids 2 to 2"),
        ("first = 2, ids = 1", r"source: The parts of chunk 6 are not the whole: they end at id 3"),
    ],
)
def test_parts_have_each_id_of_their_chunk_once(mixed, change, expected):
    """Neither a gap nor an overlap goes by."""
    mixed.doctor(f"UPDATE chunk SET {change} WHERE ordinal = {PART + 1}")
    assert_found(mixed.audit(), expected)


def test_parts_of_a_part_are_all_of_it(mixed):
    """Splitting again loses nothing."""
    mixed.doctor(f"UPDATE chunk SET state = 'refused' WHERE ordinal = {PART + 1}")
    mixed.doctor(f"UPDATE chunk SET state = 'split' WHERE ordinal = {PART + 1}")
    assert_found(mixed.audit(), rf"source: The parts of part {PART + 1} are not the whole")


def replaced(before: str, after: str) -> Callable[[Mixed], None]:
    return lambda mixed: mixed.plain.write_text(mixed.plain.read_text().replace(before, after, 1))


SOURCES = {
    "another id": (replaced("5\n", "55\n"), r"source: Chunk 2 "),
    "an id less": (replaced("5\n", ""), r"source: Chunk 2 "),
    "an id more": (replaced("5\n", "5\n123\n"), r"source: Chunk 2 "),
    "two ids the other way round": (replaced("5\n6\n", "6\n5\n"), r"source: Chunk 2 .*digest"),
    "another invalid text": (replaced("x", "y"), r"invalid: .*lacks y of .*a\.txt line 3"),
    "a duplicate more": (
        replaced("2\nx", "2\n2\nx"),
        r"source: Chunk 1 .*duplicate ids before its end 1 there, 2",
    ),
    "a packed source": (
        lambda mixed: mixed.packed.write_bytes(gzip.compress(b"9\n10\n-5\n11\n12\n67\n13\n14\n15\n")),
        r"source: Chunk 4 .*first id 66 there, 67 in the source",
    ),
    "a copy": (
        lambda mixed: edit(mixed.run_dir / "spool-2.txt", lambda lines: lines.__setitem__(0, "78\n")),
        r"source: Chunk 5 .*first id 77 there, 78 in the source",
    ),
    "the end of a copy": (
        lambda mixed: edit(mixed.run_dir / "spool-2.txt", lambda lines: lines.__setitem__(9, "z\n")),
        r"source: Behind the last chunk stand 1 invalid and 0 duplicate ids, but the ledger has 0 and 1",
    ),
}


@pytest.mark.parametrize("change", SOURCES)
def test_a_source_that_changed_is_found(mixed, change):
    """The first chunk that is not the same is named."""
    doctored, expected = SOURCES[change]
    doctored(mixed)
    assert_found(mixed.audit(), expected)


def test_a_source_with_another_time_and_the_same_ids_is_only_told(mixed):
    """A copy of a file is as good as the file."""
    os.utime(mixed.plain, (1, 1))
    audit = mixed.audit()
    assert differences(audit) == []
    assert any("another size or time" in note for note in audit.notes)


def test_more_and_fewer_chunks_than_the_ledger_has_are_found(tmp_path):
    """Once everything was read."""
    source = tmp_path / "ids.txt"
    source.write_text("1\n2\n3\n4\n5\n6\n7\n8\n")
    run_with(tmp_path / "run", source)
    source.write_text("1\n2\n3\n4\n5\n6\n7\n8\n9\n")
    assert_found(
        audit_run(tmp_path / "run"),
        r"source: Chunk 3 \(1 ids, .* stands in the sources and not in the ledger",
    )
    source.write_text("1\n2\n3\n4\n")
    assert_found(
        audit_run(tmp_path / "run"), r"source: Chunk 2 \(4 ids, .* stands in the ledger and no longer in the"
    )


def test_of_very_many_differences_the_first_are_told_and_the_others_counted(tmp_path):
    """One line that is missing makes every chunk behind it another one."""
    source = tmp_path / "ids.txt"
    source.write_text("".join(f"{n}\n" for n in range(1, 401)))
    run_with(tmp_path / "run", source)
    source.write_text("".join(f"{n}\n" for n in range(2, 401)))
    audit = audit_run(tmp_path / "run")
    assert sum(one.where == "source" for one in audit.differences) == 10
    assert audit.untold["source"] == 90


# --- the report of invalid ids ---

INVALID = {
    "a line less": (lambda lines: lines.pop(1), r"invalid: .*lacks -5 of .*b\.txt\.gz line 3,"),
    "the last line less": (lambda lines: lines.pop(), r"invalid: .*lacks 07 of iterable 3 line 3,"),
    "no lines": (lambda lines: lines.clear(), r"invalid: .*lacks x of .*a\.txt line 3 and 2 more,"),
    "a line twice": (
        lambda lines: lines.append(lines[0]),
        r"invalid: .*has x of .*a\.txt line 3 1 times more",
    ),
    "a line at the front": (
        lambda lines: lines.insert(0, '{"source": "q", "line": 1, "text": "t"}\n'),
        r"invalid: .*has t of q line 1 1 times more",
    ),
    "another text": (
        lambda lines: lines.__setitem__(0, lines[0].replace('"x"', '"y"')),
        r"invalid: .*lacks x of .*a\.txt line 3,",
    ),
    "another line number": (
        lambda lines: lines.__setitem__(0, lines[0].replace('"line":3', '"line":4')),
        r"invalid: .*has x of .*a\.txt line 4 1 times more",
    ),
    "no JSON": (
        lambda lines: lines.__setitem__(1, "nonsense\n"),
        r"invalid: .*has nonsense of  line 2 1 times more",
    ),
    "half a line": (lambda lines: lines.append('{"source":'), r"invalid: .*ends in the middle of a line"),
}


@pytest.mark.parametrize("change", INVALID)
def test_each_invalid_id_has_its_line_once(mixed, change):
    """And there is no other line."""
    doctored, expected = INVALID[change]
    edit(mixed.invalid, doctored)
    assert_found(mixed.audit(), expected)


def test_a_report_of_invalid_ids_that_is_gone_is_found(mixed):
    """It is the only list of what never went out."""
    mixed.invalid.unlink()
    assert_found(mixed.audit(), r"invalid: .*lacks x of .* and 2 more")


# --- the job records ---

RECORD = {
    "run_id": "other",
    "chunk": 3,
    "digest": "00",
    "job_id": "job-x",
    "status": "finished",
    "type": "companies",
    "endpoint": "companies",
    "ids": 5,
    "first_id": "9",
    "last_id": "9",
    "source": "c.txt",
    "attempt": 2,
    "accepted_at": "2020-01-01T00:00:00.000Z",
}


def test_every_field_of_a_record_has_a_test():
    assert list(RECORD) == list(JobRecord.__dataclass_fields__)


@pytest.mark.parametrize("field", RECORD)
def test_each_field_of_a_record_is_compared(mixed, field):
    """A record that says something else than the ledger misleads whoever fetches the results."""

    def change(lines: list[str]) -> None:
        lines[0] = json.dumps(json.loads(lines[0]) | {field: RECORD[field]}) + "\n"

    edit(mixed.jobs, change)
    mixed.doctor(f"UPDATE sink SET position = {mixed.jobs.stat().st_size}")
    assert_found(mixed.audit(), r"sink: .*jobs\.jsonl line \d ")


SINK = {
    "a record less": (
        lambda lines: lines.pop(1),
        r"sink: .*lacks the record of chunk 2, which was delivered",
    ),
    "a record twice": (lambda lines: lines.append(lines[0]), r"sink: .*line 7 has chunk 1 once more"),
    "a record that nobody knows": (
        lambda lines: lines.append(lines[0].replace('"chunk":1,', '"chunk":50,')),
        r"sink: .*line 7 is a record of chunk 50 with job job-0-1, of which the ledger knows nothing",
    ),
    "a field more": (
        lambda lines: lines.__setitem__(0, lines[0].replace("{", '{"more":1,')),
        r"sink: .*line 1 has 1 as more of chunk 1, the ledger None",
    ),
    "a field less": (
        lambda lines: lines.__setitem__(0, lines[0].replace('"attempt":1,', "")),
        r"sink: .*line 1 has None as attempt of chunk 1, the ledger 1",
    ),
    "a chunk that is no number": (
        lambda lines: lines.__setitem__(0, lines[0].replace('"chunk":1,', '"chunk":"1",')),
        r"sink: .*line 1 has 1 for a chunk",
    ),
    "no JSON": (
        lambda lines: lines.insert(2, "nonsense\n"),
        r"sink: .*line 3 is not a job record of this run",
    ),
    "half a record": (
        lambda lines: lines.__setitem__(-1, lines[-1][:20]),
        r"sink: .*line 6 ends in the middle of a record",
    ),
}


@pytest.mark.parametrize("change", SINK)
def test_each_delivered_chunk_has_its_record_once(mixed, change):
    """And there is no other record of this run."""
    doctored, expected = SINK[change]
    edit(mixed.jobs, doctored)
    mixed.doctor(f"UPDATE sink SET position = {mixed.jobs.stat().st_size}")
    assert_found(mixed.audit(), expected)


def test_a_file_of_records_that_is_shorter_than_it_was_is_found(mixed):
    """Or gone."""
    edit(mixed.jobs, lambda lines: lines.pop())
    assert_found(mixed.audit(), r"sink: .*jobs\.jsonl has [\d,]+ bytes, but [\d,]+ were written to it")
    mixed.jobs.unlink()
    assert_found(mixed.audit(), r"sink: .*jobs\.jsonl is not there, but [\d,]+ were written to it")


def test_a_record_that_is_not_yet_delivered_may_be_missing(mixed):
    """How many there are is told, and how many stand in the file already."""
    last = mixed.jobs.read_text().splitlines(keepends=True)[-1]
    chunk = json.loads(last)["chunk"]
    mixed.doctor(
        f"UPDATE chunk SET state = 'accepted' WHERE ordinal = {chunk}",
        f"UPDATE sink SET position = {mixed.jobs.stat().st_size - len(last)}",
    )
    audit = mixed.audit()
    assert differences(audit) == []
    assert any("1 records of accepted chunks are not delivered yet; 1 stand" in note for note in audit.notes)
    edit(mixed.jobs, lambda lines: lines.pop())
    audit = mixed.audit()
    assert differences(audit) == []
    assert any("1 records of accepted chunks are not delivered yet." in note for note in audit.notes)


def test_a_record_before_the_position_is_delivered_and_one_behind_it_is_not(mixed):
    """The position is what a crash is mended by."""
    mixed.doctor("UPDATE chunk SET state = 'accepted' WHERE ordinal = 1")
    assert_found(mixed.audit(), r"sink: .*line 1 stands before byte [\d,]+, .* but chunk 1 is accepted")
    mixed.doctor("UPDATE chunk SET state = 'delivered' WHERE ordinal = 1", "UPDATE sink SET position = 0")
    assert_found(mixed.audit(), r"sink: .*line 1 stands behind byte 0, .* but chunk 1 is delivered")


# --- the reports of refused and held chunks, and the summary ---


def test_the_ids_of_a_refused_chunk_are_compared_with_its_digest(mixed):
    """They are meant to be fed again."""
    path = mixed.run_dir / "refused" / "chunk-00000004.txt"
    path.write_text("66\n13\n14\n16\n")
    assert_found(mixed.audit(), r"refused: .*chunk-00000004\.txt does not hold the ids of chunk 4")
    path.unlink()
    assert_found(mixed.audit(), r"refused: .*chunk-00000004\.txt is missing")


def test_ids_of_a_chunk_that_is_not_refused_must_not_lie_there(mixed):
    """Whoever fed them again would pay twice."""
    (mixed.run_dir / "refused" / "chunk-00000005.txt").write_text("77\n16\n17\n18\n")
    assert_found(mixed.audit(), r"refused: .*chunk-00000005\.txt holds ids of a chunk that is not refused")


def test_ids_that_a_killed_process_left_there_are_told(mixed):
    """The next session takes them away."""
    (mixed.run_dir / "refused" / "chunk-00000005.txt").write_text("77\n16\n17\n18\n")
    os.utime(mixed.run_dir / "summary.json", (0, 0))
    audit = mixed.audit()
    assert differences(audit) == []
    assert any("chunk-00000005.txt" in note for note in audit.notes)


def test_ids_sent_again_at_a_risk_are_compared(mixed):
    """The list of what may be paid twice must be true."""
    folder = mixed.run_dir / "duplicate-risk"
    folder.mkdir()
    (folder / "chunk-00000005.txt").write_text("77\n16\n17\n18\n")
    assert_found(
        mixed.audit(), r"refused: .*chunk-00000005\.txt speaks of a chunk that nobody had sent again"
    )
    mixed.doctor(
        settled(5, "resubmitted"), "UPDATE chunk SET state = 'planned', duplicate_risk = 1 WHERE ordinal = 5"
    )
    os.utime(mixed.run_dir / "summary.json", (0, 0))
    assert differences(mixed.audit()) == []
    (folder / "chunk-00000005.txt").write_text("77\n")
    assert_found(mixed.audit(), r"refused: .*chunk-00000005\.txt does not hold the ids of chunk 5")


def changed(name: str, value: Any) -> Callable[[list[str]], None]:
    return lambda lines: lines.__setitem__(0, json.dumps(json.loads(lines[0]) | {name: value}) + "\n")


LINES = {
    "chunk": (changed("chunk", 1), r"{0}: .*lacks chunk {1}"),
    "ids": (changed("ids", 1), r"{0}: .*says 1 as ids of chunk {1}, the ledger 4"),
    "source": (changed("source", "c"), r"{0}: .*says c as source of chunk {1}"),
    "line": (changed("line", 1000), r"{0}: .*says 1000 as line of chunk {1}"),
    "attempt": (changed("attempt", 9), r"{0}: .*says 9 as attempt of chunk {1}"),
    "reason": (changed("reason", "why"), r"{0}: .*says why as reason of chunk {1}"),
    "parent": (changed("parent", 1), r"{0}: .*says 1 as parent of chunk {1}"),
    "first": (changed("first", 1), r"{0}: .*says 1 as first of chunk {1}"),
    "status": (changed("http_status", 1), r"{0}: .*says 1 as http_status of chunk {1}"),
    "twice": (lambda lines: lines.append(lines[0]), r"{0}: .*has chunk {1} twice"),
    "missing": (lambda lines: lines.clear(), r"{0}: .*lacks chunk {1}"),
    "more": (
        lambda lines: lines.append('{"chunk": 2}\n'),
        r"{0}: .*speaks of chunk 2, which is not {0}",
    ),
    "no JSON": (lambda lines: lines.append("nonsense"), r"{0}: .*line 2 is no JSON object"),
}


@pytest.mark.parametrize("change", LINES)
@pytest.mark.parametrize(
    ("where", "name", "chunk"), [("held", "held.jsonl", 5), ("refused", "refused/reasons.jsonl", 4)]
)
def test_the_lists_of_held_and_refused_chunks_say_what_the_ledger_says(mixed, where, name, chunk, change):
    """A person acts on them."""
    doctored, expected = LINES[change]
    edit(mixed.run_dir / name, doctored)
    assert_found(mixed.audit(), expected.format(where, chunk))


@pytest.mark.parametrize(
    "name", ["run_id", "endpoint", "ids", "chunks", "jobs", "requests", "lockouts", "elapsed_s"]
)
def test_each_figure_of_the_summary_is_compared(mixed, name):
    """It is what most people read, and all."""
    path = mixed.run_dir / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "something else"}))
    assert_found(mixed.audit(), rf"summary: .*says something else as {name}")


def test_a_summary_that_is_no_json_is_found(mixed):
    """Whoever reads it by machine would fail."""
    (mixed.run_dir / "summary.json").write_text("{")
    assert_found(mixed.audit(), r"summary: .*is no JSON object")


# --- the command ---


def test_the_command_shows_both_columns_and_ends_with_0(mixed, capsys):
    """Whatever the run itself came to: this one has held chunks."""
    assert main(["audit", str(mixed.run_dir)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  read +29 +29$", out, re.MULTILINE)
    assert re.search(r"^= invalid +3 +3$", out, re.MULTILINE)
    assert re.search(r"^\+ held +4 +4$", out, re.MULTILINE)
    assert out.endswith("No difference.\n")


def test_the_command_tells_each_difference_and_ends_with_6(mixed, capsys):
    """With what differs, which one, and what to do."""
    mixed.doctor("DELETE FROM job WHERE chunk = 1")
    edit(mixed.invalid, lambda lines: lines.pop())
    assert main(["audit", str(mixed.run_dir)]) == 6
    out = capsys.readouterr().out
    assert "DIFFERENCE ledger: Chunk 1 is delivered, but has no job." in out
    assert "DIFFERENCE invalid: " in out
    assert "cannot be trusted" in out


def test_the_command_gives_one_json_object(mixed, capsys):
    """For whoever checks every night."""
    assert main(["audit", "--json", "--quick", str(mixed.run_dir)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["agrees"] is True
    assert shown["ids"]["source"] == shown["ids"]["ledger"]
    edit(mixed.jobs, lambda lines: lines.pop())
    assert main(["audit", "--json", str(mixed.run_dir)]) == 6
    shown = json.loads(capsys.readouterr().out)
    assert shown["agrees"] is False
    assert {one["where"] for one in shown["differences"]} == {"sink"}


def test_nothing_in_a_file_can_move_the_cursor(mixed, capsys):
    """What stands in a doctored file is shown escaped."""
    edit(mixed.jobs, changed("status", "\x1b[2Jgone\nDIFFERENCE none"))
    mixed.doctor(f"UPDATE sink SET position = {mixed.jobs.stat().st_size}")
    assert main(["audit", str(mixed.run_dir)]) == 6
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2Jgone\\nDIFFERENCE none" in out


def test_progress_is_shown_on_a_terminal_alone(monkeypatch):
    """In one line, which goes away, and harmless whatever a source is called."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, file = Terminal(), io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    with on_terminal() as progress:
        assert progress is not None
        progress("a\x1b[2Jb: 64 MiB read")
    assert terminal.getvalue() == "\r\x1b[Ka\\x1b[2Jb: 64 MiB read\r\x1b[K"
    monkeypatch.setattr("sys.stderr", file)
    with on_terminal() as progress:
        assert progress is None
    assert file.getvalue() == ""


def test_an_audit_reads_one_moment_of_a_ledger_that_is_written(tmp_path):
    """What is written meanwhile is not mixed in."""
    (tmp_path / "ids.txt").write_text("1\n2\n3\n4\n5\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    with inspecting(tmp_path / "run") as inspection:
        doctor(tmp_path / "run", "UPDATE chunk SET state = 'held'")
        assert {chunk.state for chunk in inspection.chunks()} == {"delivered"}
    with inspecting(tmp_path / "run") as inspection:
        assert {chunk.state for chunk in inspection.chunks()} == {"held"}
