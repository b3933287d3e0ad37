"""`bulkjobs control`: tells a run what to do while it works, or shows what is in force in it."""

from __future__ import annotations

import dataclasses
import json
import os.path
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bulkjobs.cli.options import AS_JSON, RUN
from bulkjobs.cli.report import print_lines, table
from bulkjobs.cli.session import exiting
from bulkjobs.cli.streams import tell
from bulkjobs.errors import ConfigError
from bulkjobs.exits import Exit

if TYPE_CHECKING:
    from bulkjobs.control.protocol import State  # asyncio and sqlite come with it

__all__ = ["Outcome", "control"]

_TIMEOUT_S: Final = 10.0

_EPILOG: Final = (
    "pause: submits wait; what is in flight is recorded and jobs are tracked. resume: ends a pause. drain: nothing "
    "more is sent, answers in flight are recorded, and the run ends as after SIGTERM. rate N/TIME or none: another "
    "limit of the account, as --rate. workers N: as --workers; one that is taken away finishes its chunk first. "
    "Each holds for the session that works now: the next one begins as its options say."
)


class Outcome(IntEnum):
    """Is what the exit code says; 2 is as everywhere, and also: nothing was changed, and the message says why."""

    DONE = 0
    UNKNOWN = 6
    """The process has not answered, or it could not record the command; the message says which."""


@click.command(epilog=_EPILOG)
@RUN
@click.argument(
    "command", required=False, help="pause, resume, drain, rate or workers. [shows what is in force]"
)
@click.argument("value", required=False, help="N/TIME or none for rate, N for workers.")
@AS_JSON
def control(run: Path, command: str | None, value: str | None, *, as_json: bool) -> int:
    """Pauses, resumes, drains or retunes a run while it works, or shows what is in force in it."""
    return exiting(lambda: _control(run, command, value, as_json=as_json))


def _control(run_dir: Path, name: str | None, value: str | None, *, as_json: bool) -> int:
    from bulkjobs.control.client import NoAnswer, ask  # noqa: PLC0415 - as above
    from bulkjobs.control.protocol import Refusal, command_of  # noqa: PLC0415 - as above

    command = command_of("state" if name is None else name, value)
    if not os.path.isdir(run_dir):  # noqa: PTH112 - Path.is_dir raises for a very long one
        raise ConfigError(f"There is no run directory {run_dir}.")
    try:
        answer = ask(run_dir, command, timeout_s=_TIMEOUT_S)
    except NoAnswer as error:
        tell(f"bulkjobs: {error}")
        return Outcome.UNKNOWN
    if isinstance(answer, Refusal):
        tell(f"bulkjobs: {answer.reason}")
        return Outcome.UNKNOWN if answer.kind == "storage" else Exit.USAGE
    print_lines([json.dumps(dataclasses.asdict(answer))] if as_json else table(_rows(answer)))
    return Outcome.DONE


def _rows(state: State) -> Iterator[tuple[str, str]]:
    yield "run", state.run_id
    yield "process", f"pid {state.pid}"
    yield "state", "draining" if state.draining else "paused" if state.paused else "working"
    if state.rate is None:
        yield "limit", "none"
    else:
        yield "limit", f"{state.rate}, of which {state.window_used:,} are used up"
    if state.locked_until is not None:
        yield "locked out", f"until {state.locked_until}"
    yield "workers", f"{state.workers:,}"
    yield "in flight", f"{state.in_flight:,} requests"
