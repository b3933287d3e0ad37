"""The account of a run, proved: what was read = invalid + duplicate + accepted + refused + held + pending.

Source, ledger and files are three places that hold the same facts. An audit reads all of them at one moment and says
where they do not agree. It asks nothing of the server, takes no lock, writes nothing, and may be made while the run
goes on or after its process was killed.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from pathlib import Path

from bulkjobs.audit.consistency import check_ledger
from bulkjobs.audit.findings import Audit, Findings, Progress
from bulkjobs.audit.orders import check_orders
from bulkjobs.audit.records import RecordCheck
from bulkjobs.audit.recutting import Recut
from bulkjobs.audit.reports import InvalidLines, ReportCheck, reports_are_current
from bulkjobs.audit.rereading import RecordedSource, recorded_sources
from bulkjobs.errors import ConfigError, LedgerError
from bulkjobs.ledger import DATABASE_NAME, RunRow, summarise
from bulkjobs.ledger.inspection import Inspection, inspecting
from bulkjobs.ledger.lock import lock_owner
from bulkjobs.rundir import RunDir

__all__ = ["audit_run", "require_run"]


def audit_run(
    run: str | Path,
    *,
    folder: Path | None = None,
    quick: bool = False,
    progress: Progress | None = None,
) -> Audit:
    """Compares the sources, the ledger and the files of a run.

    It reads for as long as it takes (ten million ids take seconds), so a program with an event loop gives it to a
    thread. Memory is that of the set of ids already met.

    Args:
        run: the run directory.
        folder: where relative names of sources begin; None is the current folder.
        quick: have SQLite look through the file without comparing tables and indexes.
        progress: told, now and then, what is being read.

    Returns:
        What was compared and what differs.

    Raises:
        ConfigError: there is no run.
        SourceError: a source is gone, or cannot be read any more.
        LedgerError: the ledger cannot be read.
    """
    run_dir = RunDir(run)
    require_run(run_dir)
    findings = Findings()
    with inspecting(run_dir.path) as inspection:
        row = inspection.run()
        audit = None
        if row is not None:
            sources = recorded_sources(inspection.sources(), row, run_dir, folder)
            check_ledger(inspection, findings, quick=quick)
            audit = _compared(row, run_dir, inspection, sources, findings=findings, progress=progress)
    if audit is None:
        raise ConfigError(f"The run directory {run_dir.path} was made, but no run was begun in it.")
    return audit


def require_run(run_dir: RunDir) -> None:
    """Passes a run directory that has a ledger of today's format.

    Raises:
        ConfigError: it has none; the message says why.
    """
    if not os.path.isdir(run_dir.path):  # noqa: PTH112 - Path.is_dir raises for a very long one
        raise ConfigError(f"There is no run directory {run_dir.path}.")
    if not (run_dir.path / DATABASE_NAME).is_file():
        raise ConfigError(f"There is no ledger in {run_dir.path}. Is this the run directory?")
    try:
        with inspecting(run_dir.path):
            pass
    except LedgerError as error:
        if error.__cause__ is None:  # it can be read, and is of another version or no ledger
            raise ConfigError(str(error)) from None
        raise


def _compared(
    run: RunRow,
    run_dir: RunDir,
    inspection: Inspection,
    sources: Sequence[RecordedSource],
    *,
    findings: Findings,
    progress: Progress | None,
) -> Audit:
    owner = lock_owner(run_dir.path)
    invalid = InvalidLines(run_dir.invalid, findings)
    recut = Recut(run, sources, inspection, findings, invalid)
    recut.compare(progress)
    invalid.finish(finished=run.source_finished, all_read=not recut.broke_off)

    records = RecordCheck(run, run_dir, inspection, findings)
    records.check()
    refused = _check_reports(run, run_dir, inspection, findings)
    orders = check_orders(inspection, findings)

    ledger = summarise(run, inspection.counts(), 0).ids
    for name, count in recut.ids.items():
        if count != ledger[name]:
            findings.differ(
                "ledger",
                f"{count:,} ids are {name} as counted from the sources, {ledger[name]:,} as counted from the ledger. "
                f"The other differences say why.",
            )
    _describe(run, inspection, findings, recut, owner)
    return Audit(
        run_id=run.run_id,
        owner=owner,
        source=recut.ids,
        ledger=ledger,
        unplanned=recut.unplanned,
        checked={
            "chunks": recut.chunks,
            "parts": recut.parts,
            "invalid": invalid.compared,
            "records": records.records,
            "refused": refused,
            "commands": len(orders),
        },
        orders=orders,
        differences=findings.differences,
        untold=findings.untold(),
        notes=findings.notes,
    )


def _check_reports(run: RunRow, run_dir: RunDir, inspection: Inspection, findings: Findings) -> int:
    """Compares the reports; gives how many files of refused ids there are."""
    current = reports_are_current(run_dir, inspection)
    found = Findings()
    check = ReportCheck(run, run_dir, inspection, found, current=current)
    check.check()
    if current and not reports_are_current(run_dir, inspection):
        # A session began meanwhile: they are of another moment than the ledger that was read.
        found = Findings()
        check = ReportCheck(run, run_dir, inspection, found, current=False)
        check.check()
    findings.take(found)
    return check.refused


def _describe(
    run: RunRow, inspection: Inspection, findings: Findings, recut: Recut, owner: str | None
) -> None:
    """Notes what makes the account one of a moment."""
    if not run.source_finished:
        findings.note(
            f"The sources were not read to their end yet: {recut.unplanned:,} ids behind the last planned chunk are "
            f"in neither column."
        )
    sessions = inspection.sessions()
    if owner is None and sessions and sessions[-1].ended_utc is None:
        sending = sum(1 for _ in inspection.in_state("sending"))
        findings.note(
            f"The last session did not close the run. The next one holds the {sending:,} chunks that were in flight."
        )
