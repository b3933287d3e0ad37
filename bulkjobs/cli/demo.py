"""`bulkjobs demo`: a run against the simulated service, throttled and short of job slots, in ten seconds.

The service runs in a process of its own and keeps books of what it accepted; at the end the run's account is
compared with them. Its five minutes pass in three seconds. Its limit is below the one that the client is told,
so the client runs into one lock-out, learns the true limit from it and keeps to that.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from bulkjobs.cli.report import print_lines
from bulkjobs.cli.session import exiting
from bulkjobs.cli.submit import Output, closing, watch
from bulkjobs.errors import ConfigError, InternalError
from bulkjobs.exits import Exit
from bulkjobs.model import RunSummary
from bulkjobs.settings import Rate, Secret, Settings

__all__ = ["demo"]

_SEED: Final = 20_240_229
_VALID: Final = 300_000
_DUPLICATES: Final = 1_500
_BROKEN: Final = ("n/a", "88O2619", "-17", "1.0", "12 345", "NULL", "#REF!", "8802619;8802620", "٣٤٥", "0x1F")
_SPEED: Final = 100.0
_WINDOW_S: Final = 300.0 / _SPEED
_SERVICE: Final = (
    *("--speed", f"{_SPEED:g}", "--rate", "30/5m", "--lockout", "5m", "--max-active-jobs", "2"),
    *("--queue-time", "2s..5s", "--job-time", "10s..25s", "--seed", str(_SEED), "--for", "2m"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    """Is what was put into the file of ids."""

    path: Path
    ids: frozenset[str]
    read: int


@click.command
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=Path,
    help="New directory to work in. [a temporary one, which stays]",
)
def demo(*, folder: Path | None) -> int:
    """Submits made-up ids to a simulated service and checks the account of it.

    It takes some ten seconds: 300,000 ids, two job slots, one lock-out.
    """
    return exiting(lambda: _demo(folder))


def _demo(folder: Path | None) -> int:
    place = _make(folder)
    given = _write_ids(place / "ids.txt")
    books, run_dir = place / "service-books.txt", place / "ids.run"
    print_lines(
        [
            f"{given.read:,} lines of ids are in {given.path}; the service's five minutes pass in three seconds.",
            "It allows 30 requests in that time and two jobs at once. The client was told 60 requests.",
        ]
    )
    with _service(books) as ready:
        source = str(given.path)
        ended, _ = watch(run_dir, lambda client: client.run(source), _settings(ready), Output())
    if not isinstance(ended, RunSummary):
        return ended
    if ended.exit_code in (Exit.SIGINT, Exit.SIGTERM):
        print_lines(["The demo was interrupted. What it made is in", str(place)])
        return ended.exit_code
    faults = list(_faults(ended, given, books))
    print_lines([*closing(ended, run_dir, f"bulkjobs resume {run_dir}"), "", *(faults or [_praise(ended)])])
    print_lines([f"Look further with: bulkjobs status {run_dir}"])
    return Exit.BUG if faults else Exit.ACCEPTED


def _make(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="bulkjobs-demo-"))
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"The directory {folder} cannot be made: {error.strerror}.") from error
    return folder


def _write_ids(path: Path) -> _Input:
    """Writes valid ids in no order, some of them twice, and lines that are no ids; always the same."""
    chance = random.Random(_SEED)  # noqa: S311 - test data
    valid = [str(number) for number in chance.sample(range(1_000_000, 99_999_999), _VALID)]
    lines = [*valid, *chance.sample(valid, _DUPLICATES), *_BROKEN]
    chance.shuffle(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return _Input(path=path, ids=frozenset(valid), read=len(lines))


@contextmanager
def _service(books: Path) -> Iterator[dict[str, str]]:
    """Runs the simulated service and gives what it says when it is ready."""
    command = [sys.executable, "-m", "bulkjobs", "simulate", *_SERVICE, "--books", str(books)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:  # noqa: S603 - ourselves
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise InternalError("The simulated service did not start; what it wrote stands above.")
            yield json.loads(line)
        finally:
            process.terminate()


def _settings(ready: dict[str, str]) -> Settings:
    return Settings(
        base_url=ready["base_url"],
        login_url=ready["login_url"],
        access_token=Secret(ready["token"]),
        rate=Rate(count=60, period_s=_WINDOW_S),
        max_active_jobs=2,
        poll_s=0.15,
        workers=4,
    )


def _faults(summary: RunSummary, given: _Input, books: Path) -> Iterator[str]:
    """Compares the account with what was put in and with what the service has; says what does not fit."""
    expected = {
        "read": given.read,
        "invalid": len(_BROKEN),
        "duplicate": _DUPLICATES,
        "accepted": _VALID,
        "refused": 0,
        "held": 0,
        "pending": 0,
    }
    for name, count in expected.items():
        if summary.ids[name] != count:
            yield f"Not as expected: {summary.ids[name]:,} ids {name}, and it should be {count:,}."
    accepted = books.read_text(encoding="ascii").split()
    if len(accepted) != len(given.ids) or set(accepted) != given.ids:
        yield f"Not as expected: the service accepted {len(accepted):,} ids, {len(set(accepted)):,} distinct."


def _praise(summary: RunSummary) -> str:
    lockouts = "1 lock-out" if summary.lockouts == 1 else f"{summary.lockouts} lock-outs"
    return (
        f"As it should be: after {lockouts} the service's own books hold each of the {_VALID:,} valid ids "
        f"exactly once; {_DUPLICATES:,} duplicates and {len(_BROKEN)} broken lines were kept back."
    )
