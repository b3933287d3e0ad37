"""A ledger that an earlier bulkjobs wrote: it is copied, brought up to date in one step, and goes on.

`ledgers/format-N` holds one that the last release of that format wrote against its simulated service, and how.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.simulated import LOGIN_URL, TOKEN, SimulatedTransport, json_lines

from bulkjobs.engine import Engine
from bulkjobs.errors import LedgerError
from bulkjobs.exits import Exit
from bulkjobs.ledger import SCHEMA_VERSION, migrations, schema
from bulkjobs.ledger.migrations import backup_path
from bulkjobs.ledger.schema import open_for_reading, open_for_writing
from bulkjobs.model import RequestKind, RunSummary
from bulkjobs.rundir import RunDir
from bulkjobs.settings import Secret, Settings
from bulkjobs.simulator import Service, ServiceConfig, Span
from bulkjobs.sinks.jsonl import JsonLinesSink
from bulkjobs.testing import VirtualClock, run_virtual

LEDGERS = Path(__file__).parent / "ledgers"
LATER_UTC = 1_800_000_000.0
"""After everything that the old ledger has recorded."""
FORMATS = (1, 2)
TABLES = {1: {"run", "source", "session", "chunk", "attempt", "job", "request", "lockout", "sink"}}
TABLES[2] = TABLES[1] | {"baseline", "settlement", "finding"}
"""What each format began with."""


def no_check(_database, _path):
    """Passes every ledger: what is looked for in one is tested elsewhere."""


@pytest.fixture(params=FORMATS, ids="format-{}".format)
def old(request: pytest.FixtureRequest) -> int:
    """The format of the old ledger."""
    number: int = request.param
    return number


@pytest.fixture
def run_dir(old: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The old run as it was left, in a folder of its own, its source with the time that the ledger knows."""
    shutil.copytree(home(old), tmp_path / "old", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.chdir(tmp_path / "old")
    with reading(tmp_path / "old" / "run" / "ledger.db") as database:
        (fingerprint,) = database.execute("SELECT fingerprint FROM source").fetchone()
    changed_ns = int(fingerprint.split(":")[1])
    os.utime("ids.txt", ns=(changed_ns, changed_ns))
    return tmp_path / "old" / "run"


@pytest.fixture
def ledger(run_dir: Path) -> Path:
    return run_dir / "ledger.db"


def home(old: int) -> Path:
    return LEDGERS / f"format-{old}"


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Looks into a database without changing a byte of it; of a copy, since SQLite would put files beside it."""
    with closing(sqlite3.connect(":memory:")) as memory:
        with closing(sqlite3.connect(path)) as database:
            database.backup(memory)
        yield memory


def dump(path: Path) -> list[str]:
    with reading(path) as database:
        return list(database.iterdump())


def version(path: Path) -> int:
    with reading(path) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def facts(path: Path, old: int) -> dict[str, list[tuple[Any, ...]]]:
    """Gives every row of the tables of an old format, with the columns of that format."""
    with reading(home(old) / "run" / "ledger.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == TABLES[old]
        columns = {
            table: [row[1] for row in database.execute(f"PRAGMA table_info({table})")] for table in tables
        }
    with reading(path) as database:
        return {
            table: database.execute(
                f"SELECT {', '.join(names)} FROM {table} ORDER BY {', '.join(names)}"
            ).fetchall()
            for table, names in columns.items()
        }


def shape(path: Path) -> dict[str, Any]:
    """Gives all that makes up a schema, whatever blanks stand in it."""
    with reading(path) as database:
        statements = {
            name: None if sql is None else "".join(sql.split())
            for name, sql in database.execute("SELECT name, sql FROM sqlite_master")
        }
        columns = {name: database.execute(f"PRAGMA table_info({name})").fetchall() for name in statements}
        indexes = {name: database.execute(f"PRAGMA index_xinfo({name})").fetchall() for name in statements}
        application = database.execute("PRAGMA application_id").fetchone()
    return {"sql": statements, "columns": columns, "indexes": indexes, "application": application}


def migrated(path: Path) -> None:
    open_for_writing(path, no_check).close()


# The old ledger


def test_the_old_ledger_has_all_that_a_run_can_meet(old: int) -> None:
    """Else the other tests here would prove little."""
    with reading(home(old) / "run" / "ledger.db") as database:

        def of(column: str, table: str) -> set[Any]:
            return {value for (value,) in database.execute(f"SELECT DISTINCT {column} FROM {table}")}

        assert of("state", "chunk") >= {"planned", "sending", "accepted", "delivered", "refused", "held"}
        assert of("verdict", "attempt") >= {None, "accepted", "refused", "unknown"}
        assert of("state", "job") >= {"accepted", "finished"}
        assert "status" in of("kind", "request")
        assert of("number", "session") >= {1, 2, 3}
        assert of("number", "lockout")
        assert sum(of("invalid", "chunk")) > 0 < sum(of("duplicate", "chunk"))
        assert database.execute("PRAGMA user_version").fetchone() == (old,)
        if old > 1:
            assert "split" in of("state", "chunk")
            assert "list" in of("kind", "request")
            assert of("how", "settlement") == {"adopted", "absent", "resubmitted"}
            assert of("duplicate_risk", "chunk") == {0, 1}


# What a migration does


def test_no_fact_is_changed(ledger: Path, old: int) -> None:
    before = facts(ledger, old)
    migrated(ledger)
    assert version(ledger) == SCHEMA_VERSION
    assert facts(ledger, old) == before


def test_the_schema_is_that_of_a_new_ledger(ledger: Path, tmp_path: Path) -> None:
    migrated(ledger)
    migrated(tmp_path / "new.db")
    assert shape(ledger) == shape(tmp_path / "new.db")


def test_a_copy_is_kept_as_it_was(ledger: Path, old: int) -> None:
    """Row by row, for the owner only, and the release that wrote it can go on with it."""
    before = dump(ledger)
    migrated(ledger)
    copy = backup_path(ledger, old)
    assert copy.name == f"ledger-format-{old}.db"
    assert dump(copy) == before
    assert version(copy) == old
    assert copy.stat().st_mode & 0o777 == 0o600
    with reading(copy) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_still_stands_in_the_write_ahead_log_is_copied_too(ledger: Path, old: int) -> None:
    with closing(sqlite3.connect(ledger)) as database:
        database.execute("INSERT INTO lockout (began_utc, until_utc, reason) VALUES (1.0, 2.0, 'last words')")
        database.commit()
        assert ledger.with_name("ledger.db-wal").stat().st_size
        migrated(ledger)
    assert "last words" in "".join(dump(backup_path(ledger, old)))
    assert "last words" in "".join(dump(ledger))


def test_a_second_opening_changes_nothing_and_copies_nothing(ledger: Path, old: int) -> None:
    migrated(ledger)
    backup_path(ledger, old).unlink()
    after = dump(ledger)
    migrated(ledger)
    assert not backup_path(ledger, old).exists()
    assert dump(ledger) == after


# What an interrupted one leaves


class Watched:
    """Is a connection that leaves a picture of the disk before each statement and after the last."""

    def __init__(self, database: sqlite3.Connection, run_dir: Path, images: Path) -> None:
        self._database = database
        self._run_dir = run_dir
        self._images = images
        self._count = 0

    def execute(self, sql: str) -> sqlite3.Cursor:
        self.take()
        return self._database.execute(sql)

    def backup(self, target: sqlite3.Connection) -> None:
        self.take()
        self._database.backup(target, pages=3, progress=lambda *_: self.take())

    def take(self) -> None:
        self._count += 1
        image = self._images / f"{self._count:02d}"
        image.mkdir(parents=True)
        for path in self._run_dir.glob("ledger*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, image / path.name)


def test_killed_at_any_moment_it_is_the_old_ledger_or_the_new_and_the_next_opening_goes_on(
    ledger: Path, old: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate, images = migrations.migrate, tmp_path / "images"

    def watched(database: sqlite3.Connection, path: Path, number: int) -> None:
        watch = Watched(database, path.parent, images)
        migrate(watch, path, number)  # type: ignore[arg-type]
        watch.take()

    before, facts_before = dump(ledger), facts(ledger, old)
    monkeypatch.setattr(schema, "migrate", watched)
    database = open_for_writing(ledger, no_check)
    monkeypatch.undo()
    database.close()
    new, seen = dump(ledger), []
    for image in sorted(images.iterdir()):
        left = image / "ledger.db"
        seen.append(version(left))
        assert dump(left) == (before if seen[-1] == old else new), image
        copy = backup_path(left, old)
        assert not copy.exists() or dump(copy) == before, image
        migrated(left)
        assert dump(left) == new, image
        assert facts(left, old) == facts_before, image
        assert dump(copy) == before, image
        assert not copy.with_name(copy.name + ".new").exists(), image
    assert len(seen) > 12
    assert seen == sorted(seen)
    assert set(seen) == {old, SCHEMA_VERSION}


class Failing(Watched):
    """Is a connection to a disk that is full from some statement on."""

    def execute(self, sql: str) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA user_version"):
            raise sqlite3.OperationalError("database or disk is full")
        return self._database.execute(sql)


def test_without_room_for_the_change_the_ledger_is_as_it_was(
    ledger: Path, old: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate, before = migrations.migrate, dump(ledger)
    monkeypatch.setattr(
        schema,
        "migrate",
        lambda database, path, number: migrate(Failing(database, path, tmp_path), path, number),
    )
    with pytest.raises(
        LedgerError, match="could not be brought up to date: database or disk is full"
    ) as told:
        migrated(ledger)
    assert "holds what it held" in str(told.value)
    assert dump(ledger) == before
    assert dump(backup_path(ledger, old)) == before
    monkeypatch.undo()
    migrated(ledger)
    assert version(ledger) == SCHEMA_VERSION


NO_ROOM = """
import resource, sys
from pathlib import Path
from bulkjobs.errors import LedgerError
from bulkjobs.ledger.schema import open_for_writing

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    open_for_writing(Path(sys.argv[1]), lambda *_: None)
except LedgerError as error:
    print(error)
"""
"""A process that may write no file as large as the ledger."""


def test_without_room_for_the_copy_nothing_is_changed_and_the_way_out_is_told(ledger: Path, old: int) -> None:
    before = dump(ledger)
    assert ledger.stat().st_size > 50_000
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(ledger)], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"the copy {backup_path(ledger, old)} that is kept of it cannot be made" in done.stdout
    assert "Make room for it, then give the command again. Nothing was changed." in done.stdout
    assert dump(ledger) == before
    assert version(ledger) == old
    assert not backup_path(ledger, old).exists()
    migrated(ledger)
    assert dump(backup_path(ledger, old)) == before


# What people see of it


def test_a_newer_ledger_is_refused_untouched(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = ledger.read_bytes()
    for look in (partial(open_for_writing, check=no_check), open_for_reading):
        with pytest.raises(LedgerError, match=r"has format 4; .* up to 3\. .* Nothing was changed\."):
            look(ledger)
    assert ledger.read_bytes() == before
    assert not list(ledger.parent.glob("ledger-format-*"))


def bulkjobs(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(LEDGERS.parent.parent)}
    environ["XDG_STATE_HOME"] = str(folder / "state")
    return subprocess.run(
        [sys.executable, "-m", "bulkjobs", *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_status_of_an_old_ledger_tells_what_to_do_and_changes_nothing(run_dir: Path, old: int) -> None:
    before = dump(run_dir / "ledger.db")
    done = bulkjobs("status", "run", folder=run_dir.parent)
    assert done.returncode == Exit.STORAGE
    assert (
        f"has format {old} of an earlier bulkjobs. `bulkjobs resume` brings it up to date and keeps a copy"
        in (" ".join(done.stderr.split()))
    )
    assert dump(run_dir / "ledger.db") == before
    assert not list(run_dir.glob("ledger-format-*"))
    migrated(run_dir / "ledger.db")
    again = bulkjobs("status", "run", folder=run_dir.parent)
    assert again.returncode == Exit.ACCEPTED
    assert "not to the end yet" in again.stdout


def resumed(run_dir: Path) -> tuple[RunSummary, list[bytes]]:
    """Completes the old run at a service that takes everything; gives its summary and the bodies sent."""
    clock = VirtualClock(LATER_UTC)
    settings = Settings(
        base_url="http://127.0.0.1:8899/api/v1",
        login_url=LOGIN_URL,
        access_token=Secret(TOKEN),
        rate=None,
        pace=None,
        max_active_jobs=None,
        chunk_size=10,
        on_unknown="hold",
    )

    async def main() -> RunSummary:
        folder = RunDir(run_dir)
        sink = JsonLinesSink(folder.jobs, name="jobs.jsonl")
        return await Engine(
            settings, folder, sources=[], sinks=[sink], observers=[], clock=clock, transport=transport
        ).run()

    with Service(ServiceConfig(job_time=Span(min_s=0.0, max_s=0.0), seed=99)) as service:
        transport = SimulatedTransport(service, clock=clock)
        return run_virtual(main()), [request.body for request in transport.sent(RequestKind.SUBMIT)]


def test_a_run_that_an_earlier_bulkjobs_began_is_completed(run_dir: Path, old: int) -> None:
    with reading(run_dir / "ledger.db") as database:
        states = dict(database.execute("SELECT state, count(*) FROM chunk GROUP BY state").fetchall())
        accepted = {job for (job,) in database.execute("SELECT job_id FROM job")}
    before = (run_dir / "jobs.jsonl").read_bytes()
    summary, bodies = resumed(run_dir)
    assert summary.exit_code == Exit.HELD
    assert summary.chunks["pending"] == 0
    assert summary.chunks["held"] == states["held"] + states["sending"]
    assert summary.chunks["refused"] == states["refused"]
    assert (run_dir / "jobs.jsonl").read_bytes().startswith(before)
    records = json_lines(run_dir / "jobs.jsonl")
    assert len(records) == len({record["chunk"] for record in records}) == summary.chunks["accepted"]
    assert accepted <= {record["job_id"] for record in records}
    ids = {one for body in bodies for one in body.split()}
    assert len(ids) == sum(len(body.split()) for body in bodies), "an id was sent twice"
    known = sum(states.values()) - states.get("split", 0)
    assert len(bodies) == summary.chunks["total"] - known + states["planned"]
    text = (run_dir.parent / "ids.txt").read_text().splitlines()
    valid = [line for line in text if line.isdigit()]
    assert summary.ids["invalid"] == len(text) - len(valid) == len(json_lines(run_dir / "invalid.jsonl"))
    assert summary.ids["duplicate"] == len(valid) - len(set(valid))
    assert summary.ids["read"] == len(text)
    assert version(backup_path(run_dir / "ledger.db", old)) == old


def test_once_completed_it_sends_nothing_more(run_dir: Path) -> None:
    first, _ = resumed(run_dir)
    again, bodies = resumed(run_dir)
    assert bodies == []
    assert again == first
