"""Ledgers that were damaged, lost or replaced: either the run comes to its right end, or it says why not and sends nothing.

What may not happen is that a chunk which may have been applied is sent once more.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.storage.session import Books, Ended, Town, violations

from bulkjobs.errors import LedgerError
from bulkjobs.ledger import soundness
from bulkjobs.ledger.soundness import require_sound

PAGE = 4096
SOCKETS = shutil.ignore_patterns("*.sock")
"""What cannot be copied and means nothing in a copy."""


class Crashed:
    """A run of which a session was killed half way: what it left, and what the server knew then."""

    def __init__(self, folder: Path) -> None:
        self.town = Town(folder)
        self.town.root.mkdir()
        self.image = folder / "image"
        self.early = folder / "early"
        self.marks: list[str] = []
        self._marks_at_kill: list[str] | None = None
        ended = self.town.work(Books(note=self._note))
        assert ended.code == 4
        assert self._marks_at_kill is not None

    def _note(self, mark: str) -> None:
        self.marks.append(mark)
        lefts = sum(one.startswith("left") for one in self.marks)
        if lefts == 3 and not self.early.exists():
            shutil.copytree(self.town.root, self.early, ignore=SOCKETS)
        if lefts == 12 and self._marks_at_kill is None:
            self._marks_at_kill = list(self.marks)
            shutil.copytree(self.town.root, self.image, ignore=SOCKETS)

    def restore(self) -> Path:
        """Puts the run directory back as the kill left it, its log folded into the ledger, and gives the ledger."""
        self.restore_with_log()
        path = self.town.run_dir / "ledger.db"
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path

    def restore_with_log(self) -> Path:
        shutil.rmtree(self.town.root)
        shutil.copytree(self.image, self.town.root)
        return self.town.run_dir / "ledger.db"

    def go_on(self) -> tuple[Ended, Books]:
        assert self._marks_at_kill is not None
        books = Books.of(self._marks_at_kill)
        return self.town.work(books), books

    def is_refused(self, *, match: str) -> None:
        ended, books = self.go_on()
        assert (ended.code, books.sent) == (6, 0), ended
        assert match in ended.said, ended.said
        assert "Traceback" not in ended.said

    def is_safe(self, what: str) -> bool:
        """Tells whether the run was gone on with, after it has found that nothing was sent or paid for twice."""
        ended, books = self.go_on()
        assert not books.violations, (what, books.violations, ended.said)
        if ended.code in (2, 6):
            assert books.sent == 0 or "changed since the run began" in ended.said, (what, ended)
            assert "bug" not in ended.said, (what, ended)
            return False
        assert not violations(self.town, books, ended), (what, violations(self.town, books, ended), ended)
        return True


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    return Crashed(tmp_path_factory.mktemp("damage"))


def test_a_sound_ledger_is_gone_on_with(crashed: Crashed) -> None:
    crashed.restore()
    assert crashed.is_safe("nothing")
    crashed.restore_with_log()
    assert crashed.is_safe("nothing")


# --- lost, cut, replaced ---


def test_a_ledger_that_is_gone_is_missed(crashed: Crashed) -> None:
    path = crashed.restore()
    path.unlink()
    crashed.is_refused(match="its ledger.db knows of no run")


def test_an_empty_ledger_is_missed_also_when_no_report_was_written(crashed: Crashed) -> None:
    path = crashed.restore()
    path.write_bytes(b"")
    for report in ("jobs.jsonl", "invalid.jsonl"):
        (path.parent / report).unlink()
    crashed.is_refused(match="has the stamp of a run, but its ledger.db knows of no run")


def test_a_log_that_was_left_behind_is_missed(crashed: Crashed) -> None:
    path = crashed.restore_with_log()
    path.with_name("ledger.db-wal").unlink()
    for sink in (path.with_name("jobs.jsonl"), crashed.town.sink):
        sink.unlink()  # a sink knows as well; here nothing else does
    crashed.is_refused(match="came without the ledger.db-wal beside it")


def test_an_older_copy_is_refused(crashed: Crashed) -> None:
    path = crashed.restore()
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(crashed.early / "run" / name, path.with_name(name))
    crashed.is_refused(match="it is an older copy")


def test_the_ledger_of_another_run_is_refused(crashed: Crashed) -> None:
    path = crashed.restore()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE run SET run_id = 'another'")
    crashed.is_refused(match="is that of run another, but ledger.stamp beside it is that of run")


def test_a_damaged_stamp_is_named_with_what_to_do(crashed: Crashed) -> None:
    stamp = crashed.restore().with_name("ledger.stamp")
    stamp.write_bytes(stamp.read_bytes().replace(b" 0", b" 1", 1))
    crashed.is_refused(match="remove ledger.stamp and give the same command again")
    stamp.unlink()
    assert crashed.is_safe("no stamp")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_ledger_that_was_cut_is_refused(crashed: Crashed, share: float) -> None:
    path = crashed.restore()
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    crashed.is_refused(match="ledger.db")


# --- flipped, zeroed, older ---


def test_a_flipped_bit_never_pays_twice(crashed: Crashed) -> None:
    damaged = [_flip, _flip, _zero_sector, _older_page]
    gone_on = sum(_survives(crashed, seed, damaged[seed % len(damaged)]) for seed in range(60))
    assert 0 < gone_on < 60, "the sample has both harmless and harmful damage"


def _survives(crashed: Crashed, seed: int, damage: Callable[[random.Random, Path, Path], None]) -> bool:
    path = crashed.restore()
    damage(random.Random(seed), path, crashed.early / "run" / "ledger.db")
    return crashed.is_safe(f"seed {seed}, {damage.__name__}")


def _flip(chance: random.Random, path: Path, _early: Path) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _zero_sector(chance: random.Random, path: Path, _early: Path) -> None:
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content) // 512) * 512
    content[at : at + 512] = bytes(512)
    path.write_bytes(content)


def _older_page(chance: random.Random, path: Path, early: Path) -> None:
    """A write that the disk reported and did not make."""
    with closing(sqlite3.connect(early)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    older, content = early.read_bytes(), bytearray(path.read_bytes())
    at = chance.randrange(min(len(older), len(content)) // PAGE) * PAGE
    content[at : at + PAGE] = older[at : at + PAGE]
    path.write_bytes(content)


SENT = "(SELECT min(chunk) FROM attempt WHERE verdict = 'accepted')"


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        (
            f"UPDATE chunk SET state = 'planned' WHERE ordinal = {SENT}",
            "is planned, but an attempt of it may have",
        ),
        (f"UPDATE chunk SET state = 'held' WHERE ordinal = {SENT}", "has a job, but is not accepted"),
        (f"DELETE FROM job WHERE chunk = {SENT}", "is accepted, but has no job"),
        (f"DELETE FROM chunk WHERE ordinal = {SENT}", "but the last one is number"),
        (
            "DELETE FROM chunk WHERE ordinal = (SELECT max(ordinal) FROM chunk WHERE state = 'sending')",
            "chunks, but",
        ),
        ("UPDATE chunk SET state = 'sending' WHERE state = 'planned'", "but no attempt of it is in flight"),
    ],
)
def test_tables_that_contradict_each_other_are_named(crashed: Crashed, sql: str, problem: str) -> None:
    path = crashed.restore()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(sql)
    crashed.is_refused(match=problem)


def test_an_index_that_contradicts_its_table_is_named(crashed: Crashed) -> None:
    path = crashed.restore()
    with closing(sqlite3.connect(path)) as database:
        ((root,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'chunk_state'")
    content = bytearray(path.read_bytes())
    page = content[(root - 1) * PAGE : root * PAGE]
    content[(root - 1) * PAGE : root * PAGE] = page.replace(b"delivered", b"delivereD", 1)
    path.write_bytes(content)
    crashed.is_refused(match="its index of chunks does not agree with them")


@pytest.mark.parametrize(("rows", "table", "index"), soundness._TWICE, ids=str)
def test_what_is_asked_twice_is_read_from_two_places(
    crashed: Crashed, rows: str, table: str, index: str
) -> None:
    """SQLite may answer from an index although a table was asked for; the comparison would then always agree."""
    with closing(sqlite3.connect(crashed.restore())) as database:
        plans = [database.execute(f"EXPLAIN QUERY PLAN {query}").fetchall() for query in (table, index)]
    assert ["INDEX" in str(plan) for plan in plans] == [False, True], (rows, plans)


# --- how long it takes ---


def test_the_look_at_the_structure_of_a_large_ledger_ends(
    crashed: Crashed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundness, "_STEPS", 1)
    with closing(sqlite3.connect(crashed.restore())) as database:
        require_sound(database, Path("ledger.db"), longest_s=-1.0)
        database.execute("PRAGMA quick_check")  # nothing ends this one


def test_what_contradicts_is_found_also_when_that_look_has_ended(
    crashed: Crashed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundness, "_STEPS", 1)
    with closing(sqlite3.connect(crashed.restore())) as database:
        database.execute("DELETE FROM job")
        with pytest.raises(LedgerError, match="is accepted, but has no job"):
            require_sound(database, Path("ledger.db"), longest_s=-1.0)
