"""What a soak needs: ids, a service in a process of its own, and a way to start and kill the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support.evidence import Books, Given, RunImage, read_books, read_image, read_sources
from support.launcher import Launcher, Session
from support.oracle import Oracle

from benchmarks.data import DataSpec, write

__all__ = ["Result", "Town", "make_source", "wait_until"]

_ROOT: Final = Path(__file__).parent.parent.parent
_BETWEEN_LOOKS_S: Final = 0.0005


@dataclass(slots=True)
class Result:
    """Is what came of a soak."""

    parameters: dict[str, Any]
    violations: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Gives it as JSON values."""
        return {
            "parameters": self.parameters,
            "violations": self.violations,
            "figures": dict(sorted(self.figures.items())),
            "elapsed_s": round(self.elapsed_s, 3),
        }

    def table(self) -> str:
        """Gives it for people."""
        rows = [*self.parameters.items(), *sorted(self.figures.items())]
        rows += [("elapsed_s", f"{self.elapsed_s:.1f}"), ("violations", len(self.violations))]
        width = max(len(name) for name, _ in rows)
        lines = [
            f"{name:<{width}}  {value:,}" if isinstance(value, int) else f"{name:<{width}}  {value}"
            for name, value in rows
        ]
        return "\n".join([*lines, *(f"VIOLATION: {one}" for one in self.violations)])


def make_source(path: Path, *, ids: int, seed: int) -> Given:
    """Writes a file of ids with a few duplicates and invalid lines among them, and reads it as the judge does."""
    write(DataSpec(ids=ids, duplicates=0.01, invalid=0.002, seed=seed), path)
    return read_sources([path])


class Town:
    """One source, one run, one service; session after session of the command."""

    def __init__(
        self,
        folder: Path,
        oracle: Oracle,
        launcher: Launcher,
        *,
        options: Sequence[str],
        environ: dict[str, str],
    ) -> None:
        """Names the place; `ids.txt` is in the folder.

        Args:
            folder: of the source and the run.
            oracle: the service.
            launcher: starts sessions.
            options: of `submit`, besides the addresses.
            environ: holds the credentials.
        """
        self.folder = folder
        self.oracle = oracle
        self._launcher = launcher
        self._options = options
        self._environ = environ

    @property
    def command(self) -> list[str]:
        """Is the command line of every session."""
        return [
            "submit", "ids.txt", "--run", "the.run", "--json", *self.oracle.options(), *self._options,
        ]  # fmt: skip

    def start(self) -> Session:
        """Starts a session."""
        return self._launcher.start(self.command, folder=self.folder, environ=self._environ)

    def start_anew(self) -> subprocess.Popen[bytes]:
        """Starts a session that loads everything itself."""
        state = {"XDG_STATE_HOME": str(self.folder / "state")}
        environ = {**state, **self._environ, "PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT)}
        with (self.folder / "session.err").open("ab") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "bulkjobs", *self.command],
                cwd=self.folder,
                env=environ,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    @property
    def image(self) -> RunImage:
        """Is what the run directory holds."""
        return read_image(self.folder / "the.run")

    @property
    def books(self) -> Books:
        """Is what the service wrote down."""
        return read_books(self.oracle.books)

    @property
    def stderr(self) -> str:
        """Is what the sessions said."""
        path = self.folder / "session.err"
        return path.read_text(errors="replace") if path.exists() else ""


def wait_until(
    condition: Callable[[], bool], ended: Callable[[], bool], *, patience_s: float = 3_600.0
) -> bool:
    """Looks again and again until the condition holds; tells whether it came before the end.

    Raises:
        TimeoutError: neither came in time.
    """
    give_up_at = time.monotonic() + patience_s
    while not condition():
        if ended():
            return False
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"nothing happened for {patience_s:g} s")
        time.sleep(_BETWEEN_LOOKS_S)
    return True


def kill_process(process: subprocess.Popen[bytes]) -> int:
    """Kills a process that was started here and gives how it ended."""
    process.send_signal(signal.SIGKILL)
    return process.wait()
