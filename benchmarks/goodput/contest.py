"""Runs one contender against a fresh service and reads what the books say of it. All processes end here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from benchmarks.goodput.account import Account, Variant
from benchmarks.goodput.books import Story, read_entries, read_submissions, tell
from benchmarks.goodput.roster import Contender, Errand

__all__ = ["Contest", "Result", "run"]

_GRACE_S: Final = 5.0
_SERVICE_ENDS: Final = "1h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Is what all contenders have in common."""

    account: Account
    variant: Variant
    ids: Path
    chunk_ids: int
    limit_s: float
    """When a contender is ended that has not ended by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Is one run of one contender."""

    story: Story
    exit_code: int | None
    """None when the time limit ended it."""
    process_s: float
    """From the start of its process to the end."""


def run(contest: Contest, contender: Contender, folder: Path, seed: int) -> Result:
    """Lets one contender do the work, in a folder of its own.

    Raises:
        WrongBooks: the service holds ids that were not in the file.
    """
    books, work = folder / "books", folder / "work"
    work.mkdir(parents=True)
    account = contest.account
    with _service([*account.options, *contest.variant.faults], books, seed) as ready:
        errand = Errand(
            ids=contest.ids,
            chunk_ids=contest.chunk_ids,
            base_url=ready["base_url"],
            token=ready["token"],
            count=contest.variant.told_count(account),
            window_s=account.window_s,
            lockout_s=account.lockout_s,
            slots=account.slots,
            folder=work,
        )
        began = time.perf_counter()
        exit_code = _limited(contender.command(errand), errand, folder / "log", contest.limit_s)
        process_s = time.perf_counter() - began
        with urlopen(ready["books_url"], timeout=60) as answer:
            totals = json.load(answer)
    ids = frozenset(contest.ids.read_bytes().split())
    story = tell(read_entries(books), read_submissions(books), totals, ids)
    return Result(story=story, exit_code=exit_code, process_s=process_s)


@contextmanager
def _service(options: list[str], books: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Runs the simulated service for as long as the block lasts and gives its addresses."""
    command = [
        *(sys.executable, "-m", "bulkjobs", "simulate", *options, "--books", str(books), "--seed", str(seed)),
        *("--for", _SERVICE_ENDS),  # it ends by itself should this process be killed
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if not (line := process.stdout.readline()):
                raise RuntimeError("The simulated service did not start.")
            yield json.loads(line)
        finally:
            process.terminate()


def _limited(command: list[str], errand: Errand, log: Path, limit_s: float) -> int | None:
    """Runs a command in a group of its own, at most so long, and gives its exit code."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=errand.folder,
            env=errand.environ,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
