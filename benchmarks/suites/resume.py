"""How soon a run that was killed near its end sends again, beside counting the lines of its source.

The counting server stops answering when 99 % of the chunks were accepted, and the client is killed then. That run
directory is copied for each round.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.measuring import clean_environ, run
from benchmarks.model import OURS, Bar, Case, Contender, Figures, Place, Scale, Suite, WrongResult
from benchmarks.server import counting
from benchmarks.suites.submit import CHUNK_IDS, Work, engine, environ, made

__all__ = ["SUITE"]

_LEFT: Final = 16
"""Chunks that are not accepted at the kill, at least: eight are in flight."""
_LIMIT_S: Final = 1800
_OPTIONS: Final = ("--on-unknown", "hold")
"""Those in flight at the kill stay held, and nobody waits for the list of jobs."""


def _killed_run(work: Work, folder: Path, chunk_ids: int) -> int:
    """Makes a run that was killed when few chunks were left, and gives the port that it knows the service by."""
    chunks = -(-work.ids // chunk_ids)
    answered = chunks - max(chunks // 100, _LEFT)
    folder.mkdir()
    with counting("--answers", str(answered)) as service, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            engine(work, service, "--chunk-size", str(chunk_ids), *_OPTIONS),
            cwd=folder,
            env=clean_environ(environ(folder)),
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + _LIMIT_S
        records = folder / "run" / "jobs.jsonl"
        while not records.is_file() or records.read_bytes().count(b"\n") < answered:
            if process.poll() is not None or time.monotonic() > deadline:
                raise WrongResult(f"the run to be killed ended: {(folder / 'log').read_text()[-800:]}")
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return service.port


def _resumed(work: Work, killed: Path, port: int, chunk_ids: int, place: Place) -> Figures:
    shutil.copytree(killed, place.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
    with counting("--port", str(port)) as service:
        began = time.monotonic()
        usage = run(
            engine(work, service, "--chunk-size", str(chunk_ids), *_OPTIONS),
            place.folder,
            environ(place.folder),
            expected=(0, 4),
        )
        first = service.first_submission()
    if first is None:
        raise WrongResult("nothing was sent after the kill")
    return Figures(wall_s=first - began, cpu_s=usage.cpu_s, peak_rss_mib=usage.peak_rss_bytes / 2**20)


@contextmanager
def _cases(scale: Scale, folder: Path) -> Iterator[Sequence[Case]]:
    work = made(scale.pick(10_000_000, 1_000_000, 50_000), folder / "ids.txt", scale.seed)
    sizes = [work]
    if scale.full:
        sizes.append(made(100_000_000, folder / "ids-100000000.txt", scale.seed))
    # Small inputs in small chunks, so that there is a 99th of a hundred.
    chunk_ids = scale.pick(CHUNK_IDS, 1_000, 500)
    yield [_case(one, folder / f"killed-{one.ids}", chunk_ids) for one in sizes]


def _case(work: Work, folder: Path, chunk_ids: int) -> Case:
    port = _killed_run(work, folder, chunk_ids)
    return Case(
        name=f"resume-{work.ids}",
        title=f"Killed near the end of {work.ids:,} ids: until the first submission arrives "
        "(CPU and memory to the end of the run)",
        contenders=(
            Contender(
                name=OURS,
                title="bulkjobs submit, again",
                play=lambda place: _resumed(work, folder, port, chunk_ids, place),
            ),
            Contender(
                name="wc",
                title="wc -l",
                play=lambda place: run(["wc", "-l", str(work.source)], place.folder).figures(),
            ),
        ),
        ids=work.ids,
        chunks=-(-work.ids // chunk_ids),
        bars=(
            Bar(
                says=f"first submission after a kill at 99 % of {work.ids:,} ids, by `wc -l`",
                figure="wall_s",
                above=OURS,
                below="wc",
                bar=5,
                aim=2,
                most=True,
            ),
        ),
    )


SUITE: Final = Suite(name="resume", title="Going on after a kill", cases=_cases)
