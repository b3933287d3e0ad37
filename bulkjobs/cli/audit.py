"""`bulkjobs audit`: the account of a run, compared with its sources and its files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bulkjobs.cli.options import AS_JSON, FOLDER, RUN
from bulkjobs.cli.report import print_lines, table
from bulkjobs.cli.session import exiting
from bulkjobs.cli.streams import on_terminal

if TYPE_CHECKING:
    from bulkjobs.audit import Audit  # sqlite comes with it
    from bulkjobs.ledger.values import ControlRow

__all__ = ["Outcome", "audit"]

_MOST_ORDERS: Final = 10


class Outcome(IntEnum):
    """Is what the exit code of an audit says; 2 is as everywhere."""

    AGREES = 0
    """Nothing differs, whatever the run itself came to."""
    DIFFERS = 6
    """Something differs: the account of the run cannot be trusted as it is."""


@click.command
@RUN
@FOLDER
@click.option("--quick", is_flag=True, help="Spare SQLite's comparison of tables and indexes.")
@AS_JSON
def audit(run: Path, *, folder: Path | None, quick: bool, as_json: bool) -> int:
    """Checks that every id is accounted for: reads sources, ledger and job records, also while the run goes on."""
    return exiting(lambda: _audit(run, folder, quick=quick, as_json=as_json))


def _audit(run: Path, folder: Path | None, *, quick: bool, as_json: bool) -> int:
    from bulkjobs.audit import audit_run  # noqa: PLC0415 - as above

    with on_terminal() as progress:
        found = audit_run(run, folder=folder, quick=quick, progress=progress)
    print_lines([json.dumps(found.as_dict())] if as_json else _lines(found))
    return Outcome.AGREES if found.agrees else Outcome.DIFFERS


def _lines(found: Audit) -> Iterator[str]:
    yield from table([("run", found.run_id)])
    yield ""
    yield f"{'ids':<12} {'from the source':>18} {'from the ledger':>18}"
    for name, count in found.source.items():
        sign = "= " if name == "invalid" else "  " if name == "read" else "+ "
        mark = "" if count == found.ledger[name] else "   differs"
        yield f"{sign}{name:<10} {count:>18,} {found.ledger[name]:>18,}{mark}"
    yield ""
    yield from table(
        [("compared", ", ".join(f"{count:,} {_plain(name)}" for name, count in found.checked.items()))]
    )
    yield from table(_told(found.orders))
    if found.owner is not None:
        yield from table([("working", f"{found.owner}: this is the account of one moment")])
    yield from table(("note", text) for text in found.notes)
    for one in found.differences:
        yield f"DIFFERENCE {one.where}: {one.text}"
    for where, count in found.untold.items():
        yield f"DIFFERENCE {where}: and {count:,} more"
    more = len(found.differences) + sum(found.untold.values())
    yield (
        "No difference."
        if found.agrees
        else f"{more:,} differences: this account cannot be trusted as it is."
    )


def _told(orders: Sequence[ControlRow]) -> Iterator[tuple[str, str]]:
    """Gives what people told the run while it worked, the latest of it."""
    if more := len(orders[:-_MOST_ORDERS]):
        yield "told", f"{more:,} commands before these; --json lists them all"
    for order in orders[-_MOST_ORDERS:]:
        yield "told", f"{order.at or 'at no time'}: {order.text} (session {order.session}, {order.origin})"


def _plain(name: str) -> str:
    return {"invalid": "invalid ids", "records": "job records", "refused": "refused files"}.get(name, name)
