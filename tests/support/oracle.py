"""The simulated service as a process of its own, which outlives every client and whose books are the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from support.launcher import Launcher, Session

__all__ = ["TOKEN", "Oracle"]

TOKEN: Final = "simulator-token"
_PATIENCE_S: Final = 30.0
_ROOT: Final = Path(__file__).parent.parent.parent


class Oracle:
    """Runs `bulkjobs simulate` for as long as the `with` block lasts. By default it limits nothing."""

    def __init__(
        self, folder: Path, *options: str, most: str = "1h", launcher: Launcher | None = None
    ) -> None:
        """Starts the process and waits until it listens.

        Args:
            folder: where the books and what it writes to stderr go.
            options: of `simulate`; they override the defaults here.
            most: after this time it ends by itself, should the test die.
            launcher: starts it quickly; it then lives no longer than the launcher.
        """
        self.books = folder / "books"
        self._index = folder / "books.jsonl"
        command = ["simulate", "--token", TOKEN, "--for", most, "--rate", "none", "--max-active-jobs", "none"]
        command += ["--books", str(self.books), *options]
        self._process: subprocess.Popen[bytes] | Session
        if launcher is not None:
            self._process = launcher.start(command, folder=folder, environ={}, name="oracle")
        else:
            self._process = _start_anew(command, folder)
        line = _first_line(self._process, folder / "oracle.out")
        if not line:
            self.close()
            raise RuntimeError(f"the service did not start: {(folder / 'oracle.err').read_text()}")
        ready: dict[str, str] = json.loads(line)
        self.base_url = ready["base_url"]
        self.login_url = ready["login_url"]
        self._books_url = ready["books_url"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_PATIENCE_S)

    @property
    def port(self) -> int:
        """Is where it listens."""
        return int(self.base_url.split(":")[2].split("/")[0])

    @property
    def jobs(self) -> int:
        """Is how many jobs it has made."""
        return self._index.read_bytes().count(b"\n") if self._index.exists() else 0

    @property
    def index_bytes(self) -> int:
        """Grows with every job made; cheaper to watch than `jobs`."""
        return self._index.stat().st_size if self._index.exists() else 0

    def totals(self) -> dict[str, Any]:
        """Gives what it counted: requests by kind, jobs, throttled."""
        with urllib.request.urlopen(self._books_url, timeout=_PATIENCE_S) as answer:
            totals: dict[str, Any] = json.load(answer)
        return totals

    def options(self, base_url: str | None = None) -> list[str]:
        """Gives the options of a client that sends here, or through another address, without any limit."""
        address = ["--base-url", base_url or self.base_url, "--login-url", self.login_url]
        return [*address, "--rate", "none", "--max-active-jobs", "none"]


def _start_anew(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"}
    with (folder / "oracle.out").open("wb") as stdout, (folder / "oracle.err").open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "bulkjobs", *command],
            cwd=folder,
            env=environ,
            stdout=stdout,
            stderr=stderr,
        )


def _first_line(process: subprocess.Popen[bytes] | Session, path: Path) -> bytes:
    """Waits until the service says that it is ready; gives nothing when it ends instead."""
    give_up_at = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up_at:
        if path.exists() and (text := path.read_bytes()).endswith(b"\n"):
            return text
        if not process.running if isinstance(process, Session) else process.poll() is not None:
            break
        time.sleep(0.005)
    return b""
