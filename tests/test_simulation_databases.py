"""The ledger of a simulation that stays open in memory: each process finds what a file would have had for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from support.simulation.databases import OpenDatabases

from bulkjobs.ledger.schema import Database, open_for_writing

PATH = Path("ledger.db")


@pytest.fixture
def databases() -> Iterator[OpenDatabases]:
    with simulation() as databases:
        yield databases


def simulation() -> closing[OpenDatabases]:
    return closing(OpenDatabases())


def opened(databases: OpenDatabases, folder: Path) -> Database:
    with mock.patch("bulkjobs.ledger.schema._opened", databases.open):
        return open_for_writing(folder / PATH, lambda *_: None)


def commit(database: Database, name: str) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO sink (name) VALUES (?)", (name,))
    database.execute("COMMIT")


def names(database: Database) -> list[str]:
    return [name for (name,) in database.execute("SELECT name FROM sink ORDER BY name")]


def test_a_process_finds_what_the_one_before_it_committed(databases: OpenDatabases, tmp_path: Path) -> None:
    first = opened(databases, tmp_path)
    commit(first, "committed")
    first.execute("BEGIN IMMEDIATE")
    first.execute("INSERT INTO sink (name) VALUES ('not committed')")
    first.close()
    assert names(opened(databases, tmp_path)) == ["committed"]


def test_what_a_dead_process_still_commits_is_not_there(databases: OpenDatabases, tmp_path: Path) -> None:
    dead = opened(databases, tmp_path)
    commit(dead, "before")
    databases.crash(tmp_path / PATH)
    commit(dead, "after")
    assert names(dead) == ["after", "before"]
    databases.bury()
    assert names(opened(databases, tmp_path)) == ["before"]


def test_what_a_dead_process_takes_back_is_only_its_own(databases: OpenDatabases, tmp_path: Path) -> None:
    dead = opened(databases, tmp_path)
    databases.crash(tmp_path / PATH)
    commit(dead, "first")
    dead.execute("BEGIN IMMEDIATE")
    dead.execute("INSERT INTO sink (name) VALUES ('second')")
    dead.execute("ROLLBACK")
    assert names(dead) == ["first"]


def test_a_ledger_that_only_a_dead_process_has_opened_is_empty(
    databases: OpenDatabases, tmp_path: Path
) -> None:
    databases.crash(tmp_path / PATH)
    commit(opened(databases, tmp_path), "after")
    databases.bury()
    assert names(opened(databases, tmp_path)) == []


def test_a_dead_process_reaches_nothing_once_it_is_buried(databases: OpenDatabases, tmp_path: Path) -> None:
    dead = opened(databases, tmp_path)
    databases.crash(tmp_path / PATH)
    databases.bury()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        dead.execute("SELECT 1")


def test_a_simulation_finds_nothing_of_the_one_before_it(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with simulation() as databases:
            database = opened(databases, tmp_path)
            commit(database, name)
            assert names(database) == [name]
            databases.crash(tmp_path / PATH)  # and this is how it ends


def test_a_rule_of_the_schema_holds_as_in_a_file(databases: OpenDatabases, tmp_path: Path) -> None:
    database = opened(databases, tmp_path)
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO attempt (chunk, attempt, started_utc) VALUES (1, 1, 0)")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        database.execute("INSERT INTO attempt (chunk, attempt, started_utc) VALUES (1, 2, 0)")
