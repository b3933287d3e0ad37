"""`bulkjobs status`: a run as its ledger has it at this moment, also while it goes on."""

from __future__ import annotations

import json
import os.path
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bulkjobs.cli.options import AS_JSON, RUN
from bulkjobs.cli.report import account, outcome, print_lines, table
from bulkjobs.cli.session import exiting
from bulkjobs.errors import ConfigError
from bulkjobs.exits import Exit
from bulkjobs.observers.totals import clock_time, eta_text
from bulkjobs.planning import Eta, NoEta
from bulkjobs.rundir import RunDir

if TYPE_CHECKING:
    from bulkjobs.ledger import RunSnapshot  # sqlite comes with it

__all__ = ["status"]

_MOST_JOBS: Final = 10
"""Without a limit on open jobs there is one for each accepted chunk."""


@click.command
@RUN
@AS_JSON
def status(run: Path, *, as_json: bool) -> int:
    """Shows how far a run is. Asks only its ledger, so it costs no request and disturbs nothing."""
    return exiting(lambda: _status(run, as_json=as_json))


def _status(run_dir: Path, *, as_json: bool) -> int:
    from bulkjobs.ledger import read_run  # noqa: PLC0415 - as above

    if not os.path.isdir(run_dir):  # noqa: PTH112 - Path.is_dir raises for a very long one
        raise ConfigError(f"There is no run directory {run_dir}.")
    snapshot, now_utc = read_run(run_dir), time.time()
    if as_json:
        print_lines([json.dumps(_object(snapshot, run_dir, now_utc))])
    else:
        print_lines(_lines(snapshot, run_dir, now_utc))
    return Exit.ACCEPTED


def _object(snapshot: RunSnapshot, run_dir: Path, now_utc: float) -> dict[str, object]:
    """Gives the keys of `summary.json` and what only a run that is under way has."""
    from bulkjobs.clock import timestamp  # noqa: PLC0415 - as above
    from bulkjobs.ledger import summarise  # noqa: PLC0415 - as above

    base: dict[str, object] = {}
    if snapshot.run is not None:
        base = summarise(snapshot.run, snapshot.counts, snapshot.exit_code or 0).as_dict()
    until_utc = snapshot.locked_until_utc or 0.0
    return base | {
        "exit_code": snapshot.exit_code,
        "run_dir": str(run_dir),
        "owner": snapshot.owner,
        "stop_reason": snapshot.stop_reason,
        "sources": [source.name for source in snapshot.sources],
        "source_finished": snapshot.run is not None and snapshot.run.source_finished,
        "paused": snapshot.paused_by is not None,
        "control": [row.as_dict() for row in snapshot.controls],
        "locked_until": timestamp(until_utc) if until_utc > now_utc else None,
        "learned_limit": snapshot.learned_limit,
        "eta": _eta_object(_eta(snapshot, run_dir, now_utc)),
        "open_jobs": [
            {
                "job_id": job.job_id,
                "chunk": job.chunk,
                "status": job.state.value,
                "accepted_at": timestamp(job.accepted_utc),
            }
            for job in snapshot.open_jobs
        ],
    }


def _eta(snapshot: RunSnapshot, run_dir: Path, now_utc: float) -> Eta | NoEta:
    from bulkjobs.outlook import read_eta  # noqa: PLC0415 - as above

    if snapshot.owner is None:
        return NoEta(reason="nobody works on it")
    return read_eta(RunDir(run_dir).outlook, now_utc)


def _eta_object(ahead: Eta | NoEta) -> dict[str, object]:
    from bulkjobs.clock import timestamp  # noqa: PLC0415 - as above

    if isinstance(ahead, NoEta):
        return {"low": None, "high": None, "reason": ahead.reason}
    return {"low": timestamp(ahead.low_utc), "high": timestamp(ahead.high_utc), "reason": None}


def _lines(snapshot: RunSnapshot, run_dir: Path, now_utc: float) -> Iterator[str]:
    from bulkjobs.ledger import summarise  # noqa: PLC0415 - as above

    if snapshot.run is None:
        yield "The run directory was made, but no run was begun in it."
        return
    yield from table(account(summarise(snapshot.run, snapshot.counts, snapshot.exit_code or 0)))
    yield from table(_rows(snapshot, now_utc))
    if snapshot.owner is not None:
        yield from table([("all sent", eta_text(_eta(snapshot, run_dir, now_utc), now_utc))])


def _rows(snapshot: RunSnapshot, now_utc: float) -> Iterator[tuple[str, str]]:
    finished = snapshot.run is not None and snapshot.run.source_finished
    yield "sources", ", ".join(source.name for source in snapshot.sources)
    yield "read", "to the end" if finished else "not to the end yet: the figures are of what was planned"
    if snapshot.learned_limit is not None:
        yield "limit", f"{snapshot.learned_limit:,} requests a period, learned from a lock-out"
    if (pause := snapshot.paused_by) is not None:
        yield (
            "paused",
            f"since {clock_time(pause.at_utc)} ({pause.origin}); `bulkjobs control RUN resume` ends it",
        )
    until_utc = snapshot.locked_until_utc
    if until_utc is not None and until_utc > now_utc:
        yield "locked out", f"until {clock_time(until_utc)} ({until_utc - now_utc:.0f} s)"
    for job in snapshot.open_jobs[:_MOST_JOBS]:
        yield (
            "open job",
            f"{job.job_id}, chunk {job.chunk}, {job.state.value} since {clock_time(job.accepted_utc)}",
        )
    if more := len(snapshot.open_jobs[_MOST_JOBS:]):
        yield "", f"and {more:,} more; --json lists them all"
    yield "state", _state(snapshot)


def _state(snapshot: RunSnapshot) -> str:
    if snapshot.owner is not None:
        return f"working ({snapshot.owner})"
    if snapshot.exit_code is not None:
        reason = f" {snapshot.stop_reason}" if snapshot.stop_reason else ""
        return f"ended with exit code {snapshot.exit_code}. {outcome(snapshot.exit_code)}{reason}"
    return "nobody works on it; the last session did not close it"
