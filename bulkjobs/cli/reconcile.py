"""`bulkjobs reconcile`: settles held chunks, by the server's list of jobs or by a person's word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bulkjobs.cli.options import EPILOG, RUN, with_options
from bulkjobs.cli.streams import tell
from bulkjobs.cli.submit import resume_command, shown
from bulkjobs.errors import ConfigError
from bulkjobs.settings import merge

if TYPE_CHECKING:
    from bulkjobs.reconciler import Orders

__all__ = ["reconcile"]

_ADOPTION: Final = re.compile(r"([0-9]{1,12})=([A-Za-z0-9_-]{1,64})")
_CHUNK: Final = re.compile(r"[0-9]{1,12}")


@click.command(epilog=EPILOG)
@RUN
@click.option(
    "--adopt", metavar="CHUNK=JOB", multiple=True, help="Take this job for the held chunk's. May be repeated."
)
@click.option(
    "--resubmit",
    metavar="CHUNK",
    multiple=True,
    help="Send a held chunk again although its ids may then be paid for twice. May be repeated.",
)
@click.option(
    "--webhook-calls",
    metavar="FILE",
    type=Path,
    help="Log of webhook calls: a line each, with the address called and what was sent to it.",
)
@with_options(without={"run"})
def reconcile(
    run: Path,
    *,
    adopt: Sequence[str],
    resubmit: Sequence[str],
    webhook_calls: Path | None,
    given: Mapping[str, object],
) -> int:
    """Settles held chunks and submits nothing.

    Without --adopt and --resubmit every held chunk is compared with the server's list of jobs: its job is adopted, or
    it is proved that there is none, or it stays held. That takes at least two times --settle and no quota.
    """
    if not os.path.isdir(run):  # noqa: PTH112 - Path.is_dir raises for a very long one
        raise ConfigError(f"There is no run directory {run}.")
    orders = _orders(adopt, resubmit, webhook_calls)
    if orders.resubmit:
        chunks = ", ".join(map(str, orders.resubmit))
        tell(
            f"bulkjobs: chunk {chunks} goes out again with the next resume. If the server did make a job of it, "
            f"its ids are paid for twice. They are listed in {run / 'duplicate-risk'} when it is sent.",
            level="warn",
        )
    return shown(
        run,
        lambda client: client.reconcile(orders),
        merge(given, os.environ),
        again=resume_command(run, given),
    )


def _orders(adopt: Iterable[str], resubmit: Iterable[str], webhook_calls: Path | None) -> Orders:
    from bulkjobs.reconciler import Orders  # noqa: PLC0415 - sqlite and more come with it

    adoptions: dict[int, str] = {}
    for text in adopt:
        match = _ADOPTION.fullmatch(text)
        if match is None:
            raise ConfigError(f"--adopt is {text!r}; it may be CHUNK=JOB, such as 17=v9qh2to86kg85s03trag.")
        if int(match[1]) in adoptions:
            raise ConfigError(f"--adopt names chunk {match[1]} twice; a chunk has one job.")
        adoptions[int(match[1])] = match[2]
    again: list[int] = []
    for text in resubmit:
        if not _CHUNK.fullmatch(text):
            raise ConfigError(f"--resubmit is {text!r}; it may be the number of a chunk in held.jsonl.")
        again.append(int(text))
    if both := sorted(adoptions.keys() & set(again)):
        raise ConfigError(f"Chunk {both[0]} is named by --adopt and by --resubmit; give one of them.")
    if webhook_calls is None:
        return Orders(adopt=adoptions, resubmit=again)
    try:
        calls = webhook_calls.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"The log of calls {webhook_calls} cannot be read: {error.strerror}.") from error
    return Orders(adopt=adoptions, resubmit=again, calls=calls)
