"""Room and speed: what the ledger does when its disk fills up, and how soon a large one is ready."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.storage.session import Books, Town, violations

from benchmarks import ledger_open
from bulkjobs.errors import LedgerFull
from bulkjobs.ledger import Ledger, reserve
from bulkjobs.ledger.reserve import LEAST_FREE_BYTES, Reserve
from bulkjobs.model import Chunk, Tally
from bulkjobs.testing import VirtualClock


def chunk(ordinal: int) -> Chunk:
    return Chunk(
        ordinal=ordinal,
        body=b"1",
        ids=1,
        digest="d",
        first_id="1",
        last_id="1",
        source="ids.txt",
        line=1,
        tally=Tally(),
    )


def leave(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    monkeypatch.setattr(
        reserve.os, "statvfs", lambda _folder: SimpleNamespace(f_bavail=free_bytes // 512, f_frsize=512)
    )


def test_a_session_keeps_room_and_gives_it_back(tmp_path: Path) -> None:
    """While it lasts, that is: a finished run leaves no file of 16 MiB. The town's is smaller."""
    town, seen = Town(tmp_path, 4), []

    def look(_mark: str) -> None:
        room = (town.run_dir / "ledger.reserve").stat()
        kept_bytes = reserve.RESERVE_BYTES
        seen.append((room.st_size == kept_bytes, room.st_blocks * 512 >= kept_bytes))

    town.root.mkdir()
    ended = town.work(Books(note=look))
    assert set(seen) == {(True, True)}
    assert not (town.run_dir / "ledger.reserve").exists()
    assert ended.summary is not None


def test_a_reserve_for_which_there_is_no_room_is_not_kept_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, _offset: int, _length: int) -> None:
        os.ftruncate(descriptor, 4096)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reserve.os, "posix_fallocate", refuse, raising=False)
    kept = Reserve(tmp_path)
    kept.make()
    assert list(tmp_path.iterdir()) == []
    assert not kept.release()


def test_with_little_room_nothing_is_sent_and_the_next_session_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town, books = Town(tmp_path, 8), Books()
    town.root.mkdir()
    with monkeypatch.context() as little:
        leave(little, LEAST_FREE_BYTES - 512)
        ended = town.work(books)
    assert (ended.code, books.sent) == (6, 0)
    assert "less than 8 MiB are free" in ended.said
    assert "Make room there, then give the same command again." in ended.said
    assert not violations(town, books, town.work(books))


async def test_an_intent_without_room_fails_alone_and_what_is_in_flight_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve, "_LOOK_EVERY_S", 0.0)
    async with await Ledger.open(tmp_path / "run", clock=VirtualClock()) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
        await ledger.begin_session()
        ledger.plan(chunk(1))
        ledger.plan(chunk(2))
        await ledger.begin_attempt(1, 1)
        leave(monkeypatch, 0)
        with pytest.raises(LedgerFull):
            await ledger.begin_attempt(2, 1)
        rows = await ledger.chunk_rows(0, 10)
        assert [(row.state.value, row.attempts) for row in rows] == [("sending", 1), ("planned", 0)]


def test_a_ledger_of_ten_thousand_chunks_is_ready_within_two_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ledger_open.main([]) == 0, capsys.readouterr().out
