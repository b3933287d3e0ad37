"""What a session begins with: a run, made or found, and sources that belong to it.

A run is bound to what decides which ids stand in which chunk. Whoever comes back with another endpoint, chunk
size or source is told so before anything is sent, since the alternative is to pay for ids twice or to lose some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bulkjobs.clock import timestamp
from bulkjobs.errors import ConfigError, LedgerError, SourceError
from bulkjobs.events import SessionOpened
from bulkjobs.exits import Exit
from bulkjobs.ledger import Ledger, RunRow, SourceRow, summarise
from bulkjobs.model import ChunkState
from bulkjobs.ports import Source
from bulkjobs.rundir import RunDir
from bulkjobs.settings import Rate, Settings
from bulkjobs.sources import ORDER_ADVICE, QuerySource, SpooledSource, is_address, open_again

__all__ = ["OpenedSources", "is_settled", "open_run", "open_run_sources", "session_opened"]


_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class OpenedSources:
    """Holds the sources of a run, each ready to be read as often as needed."""

    sources: list[Source]
    doubts: list[str]
    """What was recorded of each that may not be what the run began with: its size or time differs, or it has none."""
    copied: bool
    """Whether each of these is compared with its copy, which also speaks for ids that are not planned yet."""


async def open_run(ledger: Ledger, run_dir: RunDir, identity: Mapping[str, object]) -> tuple[RunRow, bool]:
    """Makes the run, or checks that this session may continue the one that is there.

    Args:
        ledger: of the run directory.
        run_dir: for the message.
        identity: what may not change within a run, as JSON values. An account that is not known passes.

    Returns:
        The run, and whether it was there before.

    Raises:
        ConfigError: something of its identity is not as it was.
    """
    if ledger.run is None:
        # The report of invalid ids is made, empty, before a chunk can go: with sinks elsewhere it is all there is.
        if run_dir.invalid.exists() or any(
            path.exists() and path.stat().st_size for path in (run_dir.jobs, run_dir.summary)
        ):
            raise LedgerError(
                f"{run_dir.path} has reports of a run, but its ledger.db knows of no run: it is lost, was "
                f"emptied, or came without the ledger.db-wal beside it. To begin anew would pay for the same ids "
                f"again. Put the ledger back, or choose another run directory with --run."
            )
        return await ledger.create_run(identity), False
    for name, now in identity.items():
        before = ledger.run.identity.get(name)
        if now != before and not (name == "account" and None in (now, before)):
            raise ConfigError(
                f"The run in {run_dir.path} was begun with {name.replace('_', ' ')} {before!r}, not {now!r}. "
                f"Give the same as then, or another run directory with --run."
            )
    return ledger.run, True


async def open_run_sources(
    ledger: Ledger, run_dir: RunDir, given: Sequence[Source], *, held_too: bool
) -> OpenedSources:
    """Records the sources of a new run, or matches those given with those recorded.

    Args:
        ledger: of a run that exists.
        run_dir: where copies of sources that cannot be read twice are.
        given: the sources of this session; none to open again what the run recorded.
        held_too: this session is to settle held chunks, for which it needs their ids.

    Raises:
        ConfigError: these are not the sources of the run.
        SourceError: a recorded source cannot be opened again.
    """
    known = await ledger.sources()
    if not known:
        if not given:
            raise ConfigError(
                f"The run in {run_dir.path} was stopped before it recorded its sources. Name them to begin it."
            )
        await ledger.record_sources([(one.name, one.fingerprint, not one.repeatable) for one in given])
        known = await ledger.sources()
    opened: Sequence[Source | None] = given
    if not given:
        column = None if ledger.run is None else ledger.run.column
        # Once everything is settled a file may be gone: nobody asks for it.
        opened = (
            [] if await is_settled(ledger, held_too=held_too) else [_reopen(row, column) for row in known]
        )
    elif [row.name for row in known] != [source.name for source in given]:
        raise ConfigError(
            f"The run in {run_dir.path} was begun with {_names(known)}, not {_names(given)}"
            f"{_difference(known, given)}. Give the same sources in the same order, or another run directory "
            f"with --run."
        )
    pairs = [
        # Of a query that was read to its end the copy is what counts: the database may have moved on.
        (row, None if row.complete and isinstance(source, QuerySource) else source)
        for row, source in zip(known, opened, strict=bool(opened))
    ]
    for position, (row, mended) in enumerate(pairs):
        if mended is not None and row.fingerprint is None and mended.fingerprint is not None:
            ledger.record_source(position, row.name, mended.fingerprint, spooled=False)
    return OpenedSources(
        [_repeatable(ledger, run_dir, position, *pair) for position, pair in enumerate(pairs)],
        doubts=[_recorded(row) for row, source in pairs if _is_doubtful(row, source)],
        copied=all(row.spooled for row, source in pairs if _is_doubtful(row, source)),
    )


async def is_settled(ledger: Ledger, *, held_too: bool) -> bool:
    """Tells whether nothing is left to do for a run or a sink; `held_too`: held chunks are left to be settled."""
    if ledger.run is None or not ledger.run.source_finished:
        return False
    unsettled = [ChunkState.PLANNED, ChunkState.SENDING, ChunkState.ACCEPTED]
    if held_too:
        unsettled.append(ChunkState.HELD)
    return not any([await ledger.last_ordinal(state) for state in unsettled])


async def session_opened(settings: Settings, rate: Rate | None, ledger: Ledger) -> SessionOpened:
    """Says what bounds a session, and what earlier ones left for it.

    Args:
        settings: of the session.
        rate: the account's limit in force.
        ledger: of the run.
    """
    finished = ledger.run is not None and ledger.run.source_finished
    settled_ids = await ledger.settled_ids()
    account = None if ledger.run is None else summarise(ledger.run, await ledger.counts(), Exit.ACCEPTED)
    cap = settings.spend_cap
    return SessionOpened(
        requests=None if rate is None else rate.count,
        window_s=None if rate is None else rate.period_s,
        slots=settings.max_active_jobs,
        workers=settings.workers,
        resumed=settled_ids > 0,
        settled_ids=settled_ids,
        planned_ids=await ledger.planned_ids() if finished else None,
        spendable_ids=None if cap is None else max(0, cap - await ledger.spent_ids()),
        account=account,
    )


def _repeatable(
    ledger: Ledger, run_dir: RunDir, position: int, row: SourceRow, source: Source | None
) -> Source:
    if not row.spooled:
        assert source is not None
        return source

    def on_spooled(spooled_bytes: int, complete: bool) -> None:
        ledger.source_spooled(position, spooled_bytes, complete=complete)

    return SpooledSource(
        row.name,
        run_dir.spool(position),
        upstream=source,
        spooled_bytes=row.spooled_bytes,
        complete=row.complete,
        on_spooled=on_spooled,
        ahead=isinstance(source, QuerySource),
        advice=ORDER_ADVICE if isinstance(source, QuerySource) else "",
    )


def _is_doubtful(row: SourceRow, source: Source | None) -> bool:
    if row.spooled:
        # An input given again is compared with its copy while it is read; a complete copy is not read for more.
        return source is not None and row.complete
    # A source that broke off has none: what it was mended to is compared chunk by chunk, as far as there are chunks.
    return source is not None and row.fingerprint not in (None, source.fingerprint)


def _recorded(row: SourceRow) -> str:
    """Says how a source was when the run began, so that it can be put back to that."""
    if row.fingerprint is None or not re.fullmatch(r"\d+:\d+", row.fingerprint):
        if row.fingerprint is not None and is_address(row.name):
            return f"{row.name} had {row.fingerprint} when the run began."
        return f"{row.name} cannot tell by itself whether it is the same."
    size, changed_ns = row.fingerprint.split(":")
    return f"{row.name} had {int(size):,} bytes, last changed {timestamp(int(changed_ns) / 1e9)}, when the run began."


def _reopen(row: SourceRow, column: str | int | None) -> Source | None:
    """Opens a recorded source again; one that cannot be read again is there only as its copy."""
    if row.spooled:
        return None
    try:
        return open_again(row.name, column=column)
    except SourceError as error:
        if is_address(row.name):
            raise
        raise SourceError(f"{error} Resume from the folder in which the run was begun.") from error


def _difference(known: Sequence[SourceRow], given: Sequence[Source]) -> str:
    """Says what is new or missing among many, such as the files of a folder."""
    then, now = [row.name for row in known], [source.name for source in given]
    new, missing = sorted(set(now) - set(then)), sorted(set(then) - set(now))
    said = [f"{new[0]} is new"] if new else []
    said += [f"{missing[0]} is missing"] if missing else []
    return f": {' and '.join(said)}" if said and max(len(then), len(now)) > _NAMED else ""


def _names(sources: Sequence[SourceRow] | Sequence[Source]) -> str:
    more = f" and {len(sources) - _NAMED:,} more" if len(sources) > _NAMED else ""
    return ", ".join(source.name for source in sources[:_NAMED]) + more
