"""The command with places at which it dies: `python crashing.py submit …` with `CRASH=intent_durable@5`.

The product knows nothing of this. Around the functions and objects whose calls mark a place, a wrapper counts how
often the place was reached and, at the one that `CRASH` names, ends the process with SIGKILL: nothing is flushed,
closed or told, as when the kernel or a person does it. `CRASH` holds NAME@N, or several with commas between them; with
`=term` behind it the process gets SIGTERM instead and goes on.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import pathlib
import re
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Final

__all__ = ["main"]

_RULE: Final = re.compile(r"(?P<name>[a-z_]+)@(?P<number>[0-9]+)(?:=(?P<action>kill|term))?")
_PIECE_BYTES: Final = 7
"""Less than an id and its newline: every piece ends in the middle of a chunk."""

_armed: dict[tuple[str, int], str] = {}
_reached: Counter[str] = Counter()
_counting = threading.Lock()
_submitting: ContextVar[bool] = ContextVar("_submitting", default=False)
"""Whether the request of this task is a submission; what only asks for jobs does not count."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the places that the environment arms."""
    from bulkjobs.__main__ import main as command

    for rule in filter(None, os.environ.pop("CRASH", "").split(",")):
        match = _RULE.fullmatch(rule)
        assert match, f"{rule!r} names no place to die at"
        _armed[match["name"], int(match["number"])] = match["action"] or "kill"
    if _armed:
        _mark_places()
    return command(argv)


def _is_armed(name: str) -> bool:
    return any(name == armed for armed, _ in _armed)


def _due(name: str) -> str | None:
    """Counts that a place was reached and gives what is to happen there."""
    with _counting:  # places are reached on several threads
        _reached[name] += 1
        return _armed.get((name, _reached[name]))


def _reach(name: str) -> None:
    match _due(name):
        case "kill":
            _die()
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal takes effect before this thread goes on


# --- how a place is marked ---


def _wrap(owner: Any, name: str, *, before: str | None = None, after: str | None = None) -> None:
    """Marks the places before and behind each call of a function."""
    original = inspect.getattr_static(owner, name)
    function: Callable[..., Any] = getattr(owner, name) if isinstance(original, staticmethod) else original

    def enter() -> None:
        if before is not None:
            _reach(before)

    def leave() -> None:
        if after is not None:
            _reach(after)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        enter()
        result = function(*arguments, **named)
        if isinstance(result, asyncio.Future):
            result.add_done_callback(lambda _: leave())
        else:
            leave()
        return result

    @functools.wraps(function)
    async def call_async(*arguments: Any, **named: Any) -> Any:
        enter()
        result = await function(*arguments, **named)
        leave()
        return result

    setattr(owner, name, call_async if inspect.iscoroutinefunction(function) else call)


def _mark_places() -> None:
    from bulkjobs import delivery
    from bulkjobs.ledger import writer

    # Nothing gathers, so that there is a moment to die between any two changes.
    writer._TURNS_TO_GATHER = 0  # type: ignore[misc]
    delivery._GATHER_S = 0.0  # type: ignore[misc]
    _mark_opening()
    _mark_source()
    _mark_submission()
    _mark_delivery()
    sqlite3.connect = functools.partial(sqlite3.connect, factory=_Connection)  # type: ignore[assignment]


def _mark_opening() -> None:
    from bulkjobs.ledger import keeper
    from bulkjobs.ledger.lock import RunLock

    _wrap(RunLock, "__init__", before="lock_wanted", after="lock_taken")
    _wrap(keeper, "open_for_writing", after="ledger_opened")


def _mark_source() -> None:
    from bulkjobs.sources.spool import SpooledSource
    from bulkjobs.sources.stdin import StdinSource
    from bulkjobs.sources.stored import FileSource

    _wrap_blocks(FileSource, pieces=_is_armed("piece_read"))
    _wrap_blocks(StdinSource, pieces=_is_armed("spooled"))
    _wrap(SpooledSource, "_append", after="spooled")


def _wrap_blocks(source: Any, *, pieces: bool) -> None:
    original = source.blocks

    async def blocks(self: Any) -> AsyncGenerator[bytes, None]:
        async with aclosing(original(self)) as read:
            first = True
            async for block in read:
                if first:
                    _reach("source_opened")
                    first = False
                step = _PIECE_BYTES if pieces else len(block)
                for begin in range(0, len(block), step):
                    if pieces:
                        _reach("piece_read")
                    yield block[begin : begin + step]

    source.blocks = blocks


def _mark_submission() -> None:
    from bulkjobs import api, worker
    from bulkjobs.account.gate import Gate
    from bulkjobs.ledger.ledger import Ledger
    from bulkjobs.model import Phase, RequestKind

    _wrap(Gate, "admit", after="permit_taken")
    _wrap(api, "_on_created", after="connected")
    _wrap(api, "_on_reused", after="connected")
    _wrap(Ledger, "begin_attempt", before="intent_wanted", after="intent_durable")
    _wrap(worker, "judge", before="answer_read")
    _wrap(Ledger, "end_attempt", before="outcome_wanted", after="outcome_committed")
    transport: Any = api.HttpTransport
    request = transport.request

    async def submit(self: Any, what: Any, **named: Any) -> Any:
        _submitting.set(what.kind is RequestKind.SUBMIT)
        return await request(self, what, **named)

    transport.request = submit
    trail: Any = api._Trail
    original = trail.reached

    def reached(self: Any, phase: Any) -> None:
        original(self, phase)
        if phase is Phase.STATUS_READ and _submitting.get():
            _reach("status_read")

    trail.reached = reached


def _mark_delivery() -> None:
    sinks: Any = importlib.import_module("bulkjobs.sinks.jsonl")
    write = sinks.JsonLinesSink.write

    async def write_records(self: Any, records: Any) -> int:
        position: int = await write(self, records)
        for _ in records:  # the n-th record counts, in whatever group it is
            _reach("sink_written")
        return position

    sinks.JsonLinesSink.write = write_records
    write_all: Callable[[int, bytes], None] = sinks.write_all

    def write_half(descriptor: int, content: bytes) -> None:
        due = [_due("sink_half_written") for _ in range(content.count(b"\n"))]  # as above
        if any(due):
            write_all(descriptor, content[: len(content) // 2])
            _die()
        write_all(descriptor, content)

    sinks.write_all = write_half
    path: Any = pathlib.Path
    replace = path.replace

    def replace_report(self: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        if target.name == "summary.json":
            _reach("report_written")
        renamed: pathlib.Path = replace(self, target)
        return renamed

    path.replace = replace_report


class _Connection(sqlite3.Connection):
    """Marks what happens in the database: the statements tell which change of the ledger is under way."""

    _marks: Final = (
        ("INSERT INTO chunk ", "plan"),
        ("INSERT INTO attempt (chunk, attempt, started_utc) ", "intent"),
        ("INSERT INTO job ", "outcome"),
        ("INSERT INTO settlement ", "settlement"),
    )

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._within: Counter[str] = Counter()

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith(("CREATE ", "ALTER ", "DROP ")):
            _reach("schema_changing")
        if sql.startswith("BEGIN"):
            self._begin()
        for beginning, what in self._marks:
            if sql.startswith(beginning):
                self._within[what] += sql.count("(?")
        if sql == "COMMIT":
            return self._commit()
        if sql == "PRAGMA wal_checkpoint(TRUNCATE)":
            return self._checkpoint(sql)
        if sql.startswith("PRAGMA synchronous") and _is_armed("intent_stored"):
            # What is written but not synced survives the end of the process, as does here every commit.
            sql = "PRAGMA synchronous = OFF"
        return super().execute(sql, parameters)

    @staticmethod
    def _begin() -> None:
        # Whoever waits for the ledger has told it by now, and nothing of that is written.
        for wanted, queued in (("intent_wanted", "intent_queued"), ("outcome_wanted", "outcome_queued")):
            if _reached[wanted] > _reached[queued]:
                _reach(queued)

    def _commit(self) -> sqlite3.Cursor:
        within, self._within = self._within, Counter()
        for (
            what
        ) in within.elements():  # as often as there are rows: the n-th chunk counts, in whatever group it is
            _reach(f"{what}_written")
        cursor = super().execute("COMMIT")
        for what in within.elements():
            _reach(f"{what}_stored")
        return cursor

    def _checkpoint(self, sql: str) -> sqlite3.Cursor:
        _reach("checkpoint_wanted")
        cursor = super().execute(sql)
        _reach("checkpoint_done")
        return cursor


if __name__ == "__main__":
    sys.exit(main())
