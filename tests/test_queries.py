"""Ids from databases: PostgreSQL and SQLite, read by a query, copied, and never written to."""

from __future__ import annotations

import asyncio
import sqlite3
import time
import traceback
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import uvloop
from support.postgres import PASSWORD
from support.rawhttp import unused_port
from support.simulated import json_lines
from test_client import SETTINGS, Office

from bulkjobs import ConfigError, Exit, SourceError
from bulkjobs.clock import SystemClock
from bulkjobs.ledger import read_run
from bulkjobs.rundir import default_run_dir
from bulkjobs.sources import open_sources
from bulkjobs.sources.postgres import PostgresSource
from bulkjobs.sources.sqlite import SqliteSource

COUNT = 30
ORDERED = "SELECT id FROM contacts ORDER BY id"


def on_loop(main):
    """Runs on the loop that the command uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def read(source) -> bytes:
    async def main():
        async with aclosing(source.blocks()) as blocks:
            return b"".join([block async for block in blocks])

    return on_loop(main())


class InPostgres:
    """The server's one database, emptied."""

    def __init__(self, server):
        self.address = server.url()
        self.do("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")

    def do(self, *statements):
        async def main():
            connection = await asyncpg.connect(self.address)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        on_loop(main())


class InSqlite:
    """A new file."""

    def __init__(self, folder):
        self.address = f"sqlite:{folder / 'crm #1?.db'}"
        self._path = folder / "crm #1?.db"
        self.do("VACUUM")

    def do(self, *statements):
        with closing(sqlite3.connect(self._path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(params=["postgres", "sqlite"])
def database(request, tmp_path):
    if request.param == "sqlite":
        return InSqlite(tmp_path)
    return InPostgres(request.getfixturevalue("postgres"))


@pytest.fixture
def contacts(database):
    """Has a table of ids, in no order."""
    rows = ", ".join(f"({700_001 + at * 7 % COUNT})" for at in range(COUNT))
    database.do("CREATE TABLE contacts (id bigint)", f"INSERT INTO contacts VALUES {rows}")
    return database


def source_of(database, query):
    [source] = open_sources([database.address], query=query)
    return source


# --- what is read ---


@pytest.mark.parametrize(
    "query",
    [
        ORDERED,
        f"{ORDERED};\n",
        f"  -- the ids\n/* all\nof them */ {ORDERED} -- in order",
        "WITH wanted AS (SELECT id FROM contacts) SELECT id FROM wanted ORDER BY id",
        "select id from contacts order by 1",
    ],
)
def test_a_query_gives_one_row_a_line_in_its_order(contacts, query):
    source = source_of(contacts, query)
    text = read(source)
    assert text == b"".join(b"%d\n" % id_ for id_ in range(700_001, 700_001 + COUNT))
    assert source.position_bytes == len(text)


def test_no_row_is_no_text(contacts):
    assert read(source_of(contacts, "SELECT id FROM contacts WHERE id < 0")) == b""


def test_every_row_is_one_line_whatever_it_holds(database):
    """A row is never two ids, and never none: NULL and what is no id keep their place, to be reported."""
    values = "('1'), (NULL), ('2,3'), ('4' || {nl} || '5'), (''), ('6\\'), (' 7'), ('8' || {cr} || '9')"
    nl, cr = ("chr(10)", "chr(13)") if isinstance(database, InPostgres) else ("char(10)", "char(13)")
    database.do("CREATE TABLE odd (id text)", f"INSERT INTO odd VALUES {values.format(nl=nl, cr=cr)}")
    lines = read(source_of(database, "SELECT id FROM odd")).split(b"\n")
    assert lines[:5] == [b"1", b"(null)", b"2\\x2c3", b"4\\n5", b"(empty cell)"]
    assert lines[5] in (b"6\\", b"6\\\\")
    assert lines[6:] == [b" 7", b"8\\r9", b""]


def test_a_whole_number_of_a_decimal_type_is_an_id_and_one_with_decimals_is_not(database):
    query = "SELECT CAST(5 AS numeric(9, 0)) UNION ALL SELECT 2.50" if isinstance(database, InPostgres) else (
        "SELECT 5 UNION ALL SELECT 2.5"
    )  # fmt: skip
    assert read(source_of(database, query)).split() in ([b"5", b"2.50"], [b"5", b"2.5"])


@pytest.mark.parametrize("kind", ["real", "double precision", "money", "bytea"])
def test_a_column_that_holds_no_id_for_sure_is_refused_at_once(postgres, kind):
    """A double has lost the last digits of a long id without a word."""
    value = "'1'" if kind in ("money", "bytea") else "1"
    source = PostgresSource(postgres.url(), f"SELECT {value}::{kind} AS contact_id")
    with pytest.raises(SourceError, match="the column contact_id holds .* Nothing was read. Cast it"):
        read(source)


def test_an_answer_of_many_blocks_is_read_whole(database):
    database.do("CREATE TABLE one (id int)")
    numbers = "SELECT 1000000 + n AS id FROM numbers"
    query = (
        "SELECT 1000000 + n FROM generate_series(1, 100000) n"
        if isinstance(database, InPostgres)
        else f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000) {numbers}"
    )
    assert read(source_of(database, query)) == b"".join(b"%d\n" % (1_000_000 + n) for n in range(1, 100_001))


# --- what is refused ---


def test_two_columns_are_refused_by_name(contacts):
    with pytest.raises(SourceError, match=r"gives 2 columns \(id, name\).*Nothing was read"):
        read(source_of(contacts, "SELECT id, 'x' AS name FROM contacts"))


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM contacts",
        "INSERT INTO contacts VALUES (1) RETURNING id",
        "",
        " ",
        "COPY contacts TO '/x'",
    ],
)
def test_only_what_reads_is_a_query(contacts, query):
    with pytest.raises(ConfigError, match="--query"):
        source_of(contacts, query)
    assert len(read(source_of(contacts, ORDERED)).split()) == COUNT


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM contacts; DELETE FROM contacts",
        "WITH gone AS (DELETE FROM contacts RETURNING id) SELECT id FROM gone",
        "SELECT id FROM contacts) TO STDOUT; DELETE FROM contacts; COPY (SELECT 1",
        "SELECT set_config('transaction_read_only', 'off', false) FROM nextval('one')",
    ],
)
def test_a_query_that_would_write_is_stopped_by_the_database(contacts, query):
    if isinstance(contacts, InPostgres):
        contacts.do("CREATE SEQUENCE one")
    with pytest.raises(SourceError, match="cannot be read"):
        read(source_of(contacts, query))
    assert len(read(source_of(contacts, ORDERED)).split()) == COUNT


def test_a_mistake_in_the_query_is_told_in_the_words_of_the_database(contacts):
    with pytest.raises(SourceError, match="cannot be read: .*nobody"):
        read(source_of(contacts, "SELECT id FROM nobody"))


def test_an_error_in_the_middle_loses_nothing_that_was_read(postgres):
    source = PostgresSource(postgres.url(), "SELECT 300000 / (200000 - n) FROM generate_series(1, 300000) n")
    got = []

    async def main():
        async for block in source.blocks():
            got.append(block)

    with pytest.raises(SourceError, match="beyond byte .*division by zero.*What was read stays valid"):
        on_loop(main())
    assert sum(map(len, got)) > 100_000
    assert got[-1].endswith(b"\n")


def test_a_database_needs_a_query_and_a_query_a_database(contacts, tmp_path):
    with pytest.raises(ConfigError, match="--query"):
        open_sources([contacts.address])
    (tmp_path / "ids.txt").write_text("1\n")
    with pytest.raises(ConfigError, match="none of the sources is one"):
        open_sources([tmp_path / "ids.txt"], query=ORDERED)


def test_a_missing_file_is_told_before_anything_is_read(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        SqliteSource(f"sqlite:{tmp_path / 'none.db'}", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_told_by_the_name_of_the_extra(monkeypatch):
    monkeypatch.setattr("bulkjobs.sources.postgres.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"bulkjobs\[postgres\]"):
        PostgresSource("postgresql://db/crm", "SELECT 1")


def test_leaving_in_the_middle_ends_the_query(postgres):
    source = PostgresSource(postgres.url(), "SELECT generate_series(1, 100000000) -- left alone")

    async def main():
        async with aclosing(source.blocks()) as blocks:
            first = await anext(blocks)
        connection = await asyncpg.connect(postgres.url())
        ask = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%left alone' AND pid <> pg_backend_pid()"
        )
        until = time.monotonic() + 10.0
        while await connection.fetchval(ask):
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        await connection.close()
        return first

    assert on_loop(main()).startswith(b"1\n2\n")


# --- passwords ---


def with_password(postgres):
    async def main():
        connection = await asyncpg.connect(postgres.url())
        await connection.execute("DROP ROLE IF EXISTS reader")
        await connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
        await connection.close()

    on_loop(main())


def test_a_password_comes_from_the_address_or_the_environment(postgres, monkeypatch):
    with_password(postgres)
    assert read(PostgresSource(postgres.url("reader", PASSWORD), "SELECT 1")) == b"1\n"
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert read(PostgresSource(postgres.url("reader"), "SELECT 1")) == b"1\n"


@pytest.mark.parametrize("address", [
    "postgresql://reader:{}@127.0.0.1:{}/postgres",
    "postgresql://127.0.0.1:{1}/postgres?user=reader&password={0}",
    "postgresql://reader:{0}@127.0.0.1:{1}/postgres?password={0}&application_name=x",
])  # fmt: skip
def test_no_name_message_or_traceback_shows_a_password(postgres, address):
    with_password(postgres)
    for port in (postgres.port, unused_port()):
        source = PostgresSource(address.format(PASSWORD + "wrong", port), "SELECT 1")
        with pytest.raises(SourceError, match="cannot be read") as caught:
            read(source)
        shown = [source.name, repr(source), *traceback.format_exception(caught.value)]
        assert not [text for text in shown if PASSWORD in text]
        assert str(default_run_dir(address.format(PASSWORD, port))) == "postgres.run"


def test_an_address_that_is_none_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        PostgresSource(f"postgresql://reader:{PASSWORD}@[db/crm", "SELECT 1")
    assert PASSWORD not in str(caught.value)


# --- whole runs ---


@pytest.fixture
def office(tmp_path):
    office = Office(tmp_path, chunks=COUNT // 10, clock=SystemClock())
    yield office
    office.service.close()


def session(office, *sources, query=ORDERED):
    return on_loop(office.client(replace(SETTINGS, query=query)).run(*sources))


def test_a_query_is_submitted_and_accounted_for(contacts, office):
    summary = session(office, contacts.address)
    assert (summary.exit_code, summary.ids["accepted"]) == (0, COUNT)
    assert office.check()["ids"]["read"] == COUNT


def test_what_is_no_id_is_reported_with_the_number_of_its_row(contacts, office):
    contacts.do("INSERT INTO contacts VALUES (NULL)")
    query = "SELECT id FROM contacts ORDER BY id IS NULL, id"
    assert session(office, contacts.address, query=query).ids["invalid"] == 1
    [line] = json_lines(office.run_dir / "invalid.jsonl")
    assert (line["line"], line["text"]) == (COUNT + 1, "(null)")


def test_a_query_read_to_its_end_needs_no_database_any_more(contacts, office):
    """It is a run of its copy from then on, also with the same command."""
    assert session(office, contacts.address).exit_code == 0
    contacts.do("DROP TABLE contacts")
    assert session(office, contacts.address).exit_code == 0
    assert session(office).exit_code == 0


def test_another_query_is_another_run(contacts, office):
    session(office, contacts.address)
    with pytest.raises(ConfigError, match="was begun with query"):
        session(office, contacts.address, query="SELECT id FROM contacts")


def interrupted(office, keep: int) -> None:
    """Makes of a finished run one that was killed when so many bytes of the copy were synced."""
    with closing(sqlite3.connect(office.run_dir / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE run SET source_finished = 0")
        ledger.execute("UPDATE source SET spooled_bytes = ?, complete = 0", (keep,))


def test_a_run_killed_while_it_read_compares_the_beginning_and_says_what_differs(contacts, office):
    session(office, contacts.address)
    interrupted(office, 80)
    contacts.do("DELETE FROM contacts WHERE id = 700003")
    summary = session(office, contacts.address)
    assert summary.exit_code == Exit.USAGE
    reason = read_run(office.run_dir).stop_reason
    assert "is not the input that this run began with: it differs after byte 0. A query gives" in str(reason)


def test_a_database_that_cannot_be_reached_sends_nothing(tmp_path, office):
    summary = session(office, f"postgresql://reader@127.0.0.1:{unused_port()}/crm")
    assert (summary.exit_code, summary.ids["read"], office.transport.requests) == (Exit.USAGE, 0, [])


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("postgresql://me:pw@db:5432/crm?sslmode=require", "crm.run"),
        ("postgresql://db", "postgresql.run"),
        ("sqlite:data/crm.db", "data/crm.db.run"),
    ],
)
def test_the_run_directory_is_named_after_the_database(source, name):
    assert default_run_dir(source) == Path(name)
