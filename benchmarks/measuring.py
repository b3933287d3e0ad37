"""Runs commands and says what they took. This process must stay small: see `run`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from benchmarks.model import Figures, WrongResult

__all__ = ["ROOT", "Usage", "apart", "clean_environ", "end_in_order", "lacking", "run", "run_program", "wait"]

_T = TypeVar("_T")

ROOT: Final = Path(__file__).parents[1]
_RSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Is what the operating system says of a process that has ended, and of the children that it waited for."""

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int

    def figures(self, **more: float) -> Figures:
        """Gives what it took."""
        return Figures(
            wall_s=self.wall_s, cpu_s=self.cpu_s, peak_rss_mib=self.peak_rss_bytes / 2**20, more=more
        )


def wait(process: subprocess.Popen[bytes], began: float) -> Usage:
    """Waits for a process and gives what it took since `began`, a reading of `time.perf_counter`."""
    # wait4 gives the figures of this one child; those of RUSAGE_CHILDREN are sums and maxima over all.
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(process.returncode, wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * _RSS_UNIT_BYTES)


def run(
    command: Sequence[str],
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *,
    expected: Sequence[int] = (0,),
) -> Usage:
    """Runs a command to its end in a folder; what it says goes into the files `out` and `log` there.

    On Linux the peak memory of a child begins with that of its parent. So whatever is large, numpy and matplotlib
    among it, is kept out of this process: see `apart`.

    Raises:
        WrongResult: it ended with another exit code than was expected.
    """
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environ(environ or {}), stdout=out, stderr=log, close_fds=True
        )
        usage = wait(process, began)
    if usage.exit_code not in expected:
        said = (folder / "log").read_bytes()[-800:].decode(errors="replace")
        raise WrongResult(f"{command[0]} ended with exit code {usage.exit_code}: {said}")
    return usage


def run_program(name: str, arguments: Sequence[str], folder: Path, *, counted: int, per: str) -> Figures:
    """Runs one of `benchmarks.programs` and gives what it printed; the peak memory is that of the whole process.

    Args:
        name: of the program.
        arguments: for it.
        folder: to run in.
        counted: what it must have counted.
        per: what to call the rate, such as `ids_per_s`.

    Raises:
        WrongResult: it failed, or counted something else.
    """
    usage = run([sys.executable, "-m", f"benchmarks.programs.{name}", *arguments], folder)
    said = json.loads((folder / "out").read_bytes())
    if said["counted"] != counted:
        raise WrongResult(f"{name} {' '.join(arguments)} counted {said['counted']} instead of {counted}")
    return Figures(
        wall_s=said["wall_s"],
        cpu_s=said["cpu_s"],
        peak_rss_mib=usage.peak_rss_bytes / 2**20,
        more={per: counted / said["wall_s"]},
    )


def clean_environ(more: Mapping[str, str]) -> dict[str, str]:
    """Gives the environment without what this shell may have set for the engine, and with `benchmarks` to import."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BULKJOBS_")}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environ.get("PYTHONPATH"))))
    return {**environ, **more}


def apart(function: Callable[..., _T], /, *arguments: Any, **named: Any) -> _T:
    """Calls a function in a process of its own, so that this one stays small."""
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - megabytes, see `run`
    from multiprocessing import get_context  # noqa: PLC0415

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()


def end_in_order() -> None:
    """Lets a SIGTERM end this process as an interrupt does, so that no service and no worktree stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def lacking(*, libraries: Sequence[str] = (), programs: Sequence[str] = ()) -> Callable[[], str | None]:
    """Gives a function that names the first of these distributions and programs that is not installed."""

    def missing() -> str | None:
        for name in libraries:
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return name
        return next((name for name in programs if shutil.which(name) is None), None)

    return missing
