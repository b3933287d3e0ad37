"""Starts the command in processes of their own, quickly: each is forked from one that has loaded everything.

Loading Python and the libraries takes longer than a whole small run. So one process loads them once and waits; for
each session it forks a child, which becomes what `python -m bulkjobs` (or `python crashing.py`) would be after its
imports: its own process with its own streams, environment and folder, that can be stopped and killed. The waiting
process has a single thread, so nothing is lost by forking it. It speaks JSON lines on its stdin and stdout.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["Launcher", "Session"]

_PATIENCE_S: Final = 60.0
_TESTS: Final = Path(__file__).parent.parent
_LOADED: Final = (
    "bulkjobs.__main__", "bulkjobs.cli.app", "bulkjobs.cli.submit", "bulkjobs.client", "bulkjobs.engine", "bulkjobs.simulator",
    "support.crashing", "uvloop", "numpy", "aiohttp", "orjson", "lxml.etree",
)  # fmt: skip


class Session:
    """Is one process that was started."""

    def __init__(self, pid: int, out: Path) -> None:
        self.pid = pid
        self.out = out
        """What it wrote to stdout."""
        self._ended = threading.Event()
        self._returncode: int | None = None

    @property
    def running(self) -> bool:
        """Tells whether it has not ended yet."""
        return not self._ended.is_set()

    def wait(self, timeout_s: float = _PATIENCE_S) -> int:
        """Gives the exit code, or minus the number of the signal that ended it.

        Raises:
            TimeoutError: it goes on; it is killed.
        """
        if not self._ended.wait(timeout_s):
            self.send_signal(signal.SIGKILL)
            raise TimeoutError(f"process {self.pid} did not end within {timeout_s} s")
        assert self._returncode is not None
        return self._returncode

    def wait_at_most(self, timeout_s: float) -> bool:
        """Waits for the end; tells whether it came."""
        return self._ended.wait(timeout_s)

    def send_signal(self, number: int) -> None:
        """Signals the process unless it has ended."""
        if self.running:
            os.kill(self.pid, number)

    def end(self, status: int) -> None:
        """Is told how it ended."""
        self._returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()


class Launcher:
    """Starts sessions for as long as the `with` block lasts; may be used from several threads."""

    def __init__(self) -> None:
        environ = {"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"}
        environ["PYTHONPATH"] = os.pathsep.join([str(_TESTS.parent), str(_TESTS)])
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._asking = threading.Lock()
        self._started: list[Session] = []
        self._answer = threading.Semaphore(0)
        self._pid = 0
        self._gone = False
        self._sessions: dict[int, Session] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every session that goes on, and the waiting process."""
        for session in self._started:
            session.send_signal(signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is self._process.stdin and stream is not None:
                stream.close()
        self._process.wait(_PATIENCE_S)
        self._reader.join(_PATIENCE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        stdin: Path | None = None,
        name: str = "session",
    ) -> Session:
        """Starts the command.

        Args:
            arguments: what stands behind `bulkjobs`.
            folder: where it runs; stdout goes to NAME.out there and stderr is appended to NAME.err.
            environ: its whole environment.
            stdin: a file to read; None for nothing.
            name: of the two files.
        """
        out = folder / f"{name}.out"
        request = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environ": {"XDG_STATE_HOME": str(folder / "state"), **environ},
            "stdin": str(stdin or os.devnull),
            "stdout": str(out),
            "stderr": str(folder / f"{name}.err"),
        }
        assert self._process.stdin is not None
        with self._asking:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            if not self._answer.acquire(timeout=_PATIENCE_S):
                raise TimeoutError("the launching process does not answer")
            if self._gone:
                raise RuntimeError("the launching process has ended; see what it wrote to stderr")
            session = self._sessions[self._pid]
            session.out = out
            self._started.append(session)
            return session

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, int] = json.loads(line)
            if "status" in told:
                self._sessions[told["pid"]].end(told["status"])
            else:
                self._pid = told["pid"]
                self._sessions[self._pid] = Session(self._pid, Path())
                self._answer.release()
        self._gone = True
        self._answer.release()  # whoever waits need not wait longer


# --- the process that waits ---


def _serve() -> None:
    for module in _LOADED:
        importlib.import_module(module)
    _warm_up()
    assert threading.active_count() == 1
    gc.freeze()  # what is loaded is never collected, so its memory stays shared
    told = os.dup(1)
    os.dup2(2, 1)
    children: dict[int, int] = {}
    poll = select.poll()
    poll.register(0, select.POLLIN)
    rest = b""
    while True:
        for fd, _ in poll.poll():
            if fd in children:
                poll.unregister(fd)
                pid, status = os.waitpid(children.pop(fd), 0)
                os.close(fd)
                _tell(told, pid=pid, status=status)
                continue
            if not (block := os.read(0, 1 << 16)):
                for pid in children.values():  # whoever started them is gone
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                pid = _fork(json.loads(line), told)
                _tell(told, pid=pid)
                pidfd = os.pidfd_open(pid)
                children[pidfd] = pid
                poll.register(pidfd, select.POLLIN)


def _warm_up() -> None:
    """Lets a command read its arguments and fail: what is loaded for that is loaded late, and takes longest."""
    from bulkjobs.__main__ import main

    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), suppress(SystemExit):
        main(["resume", os.devnull + "/no-run"])


def _tell(fd: int, **facts: int) -> None:
    os.write(fd, json.dumps(facts).encode() + b"\n")


def _fork(request: dict[str, Any], told: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.close(told)
        _redirect(0, request["stdin"], os.O_RDONLY)
        _redirect(1, request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        _redirect(2, request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        faulthandler.register(signal.SIGUSR1)  # tells in NAME.err where a session stands that does not go on
        os.environ.clear()
        os.environ.update(request["environ"])
        os.chdir(request["folder"])
        from support.crashing import main

        code = main(request["arguments"])
    except BaseException:  # noqa: BLE001 - nobody else would show it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(fd: int, path: str, flags: int) -> None:
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, fd)
    os.close(opened)


if __name__ == "__main__":
    _serve()
