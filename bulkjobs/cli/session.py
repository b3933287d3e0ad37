"""One session of a command: the event loop, the signals, what a failure says, and the exit code.

The first SIGINT or SIGTERM drains (nothing new is sent, answers in flight are recorded), the second cancels what
is in flight, the third ends the process as if there were no handler. A traceback is never shown: it goes to
`crash.txt` in the run directory, or to stderr with `BULKJOBS_DEBUG=1`, and holds places in the code and names of
classes only, because values and messages could hold a secret.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bulkjobs.cli.streams import LOG_FORMAT, OutputError, tell
from bulkjobs.errors import (
    AuthError,
    BulkJobsError,
    ConfigError,
    InternalError,
    LedgerError,
    SinkError,
    SourceError,
)
from bulkjobs.events import Observer
from bulkjobs.exits import Exit
from bulkjobs.model import RunSummary
from bulkjobs.pool import require_files
from bulkjobs.settings import Settings

if TYPE_CHECKING:
    from bulkjobs.client import Client  # aiohttp comes with it, which most commands need not wait for

__all__ = ["Interrupts", "Work", "exiting", "failed", "run_session"]

_EXIT_CODES: Final[tuple[tuple[type[BulkJobsError], Exit], ...]] = (
    (LedgerError, Exit.STORAGE),
    (SinkError, Exit.STORAGE),
    (OutputError, Exit.STORAGE),
    (AuthError, Exit.STOPPED),
    (ConfigError, Exit.USAGE),
    (SourceError, Exit.USAGE),
)
"""By rank: of several errors the first kind here decides. Whatever is not here is a bug."""
_TOO_MANY_FILES: Final = (
    "No more files or connections can be opened. Allow more with `ulimit -n 1024`, or give fewer --workers, then "
    "give the command again."
)
_SIGNALLED: Final = {signal.SIGINT: Exit.SIGINT, signal.SIGTERM: Exit.SIGTERM}


def exiting(command: Callable[[], int]) -> int:
    """Runs a command and gives its exit code; a failure becomes a message."""
    LOG_FORMAT.set("text")  # until the options say otherwise
    try:
        return command()
    except Exception as error:  # noqa: BLE001 - the last place that can keep a traceback from the user
        return failed(error, None)
    except KeyboardInterrupt:
        return Exit.SIGINT


Work = Callable[["Client"], Awaitable[RunSummary]]
"""What a session does with its client."""


def run_session(
    settings: Settings, run_dir: Path, work: Work, observers: Sequence[Observer]
) -> RunSummary | int:
    """Works on a run until it is over or stopped.

    Args:
        settings: what decides how.
        run_dir: the run directory.
        work: what is done with the client of the run.
        observers: told what happens.

    Returns:
        The summary, or the exit code of a session that could not make one; the reason was then told.
    """
    interrupts = Interrupts()
    try:
        require_files(settings.workers)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_work(settings, run_dir, work, observers, interrupts))
    except Exception as error:  # noqa: BLE001 - as in exiting; here the run directory is known
        return failed(error, run_dir)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return interrupts.exit_code or Exit.SIGINT


async def _work(
    settings: Settings,
    run_dir: Path,
    work: Work,
    observers: Sequence[Observer],
    interrupts: Interrupts,
) -> RunSummary:
    from bulkjobs.client import Client  # noqa: PLC0415 - aiohttp comes with it; other commands need none of it

    try:
        async with Client(settings, run=run_dir, observers=observers) as client:
            interrupts.attach(client)
            return await work(client)
    finally:
        # After the client is closed: a late signal must not break into that.
        interrupts.detach()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class Interrupts:
    """Turns signals into the client's drain and cancel."""

    def __init__(self) -> None:
        """Makes it without handlers; `attach` sets them."""
        self._client: Client | None = None
        self._received = 0
        self.exit_code: Exit | None = None
        """Follows from the first signal; None before one came."""

    def attach(self, client: Client) -> None:
        """Sets the handlers on the running loop."""
        self._client = client
        for number in _SIGNALLED:
            asyncio.get_running_loop().add_signal_handler(number, self.receive, number)

    def detach(self) -> None:
        """Takes the handlers away."""
        if self._client is None:
            return
        self._client = None
        for number in _SIGNALLED:
            asyncio.get_running_loop().remove_signal_handler(number)

    def receive(self, number: signal.Signals) -> None:
        """Takes a signal."""
        client = self._client
        if client is None:
            return
        self._received += 1
        name = number.name
        if self._received == 1:
            self.exit_code = _SIGNALLED[number]
            tell(
                f"{name}: nothing more is sent, answers in flight are waited for. Once more cancels these.",
                level="info",
            )
            client.drain(f"{name} was received.", exit_code=self.exit_code)
            return
        tell(
            f"{name}: requests in flight are cancelled; what became of them is unknown, so their chunks are held."
        )
        self.detach()
        for each in _SIGNALLED:
            signal.signal(each, signal.SIG_DFL)
        client.cancel()


def failed(error: Exception, run_dir: Path | None) -> int:
    """Tells a person why a command failed, and gives the exit code.

    An error of ours is its message; anything else is a bug.

    Args:
        error: what was raised; groups are opened.
        run_dir: where `crash.txt` goes if the error is a bug and the directory exists.
    """
    leaves = list(_leaves(error))
    codes = [_code(leaf) for leaf in leaves]
    if None in codes:
        return _crashed(error, run_dir)
    for message in dict.fromkeys(_TOO_MANY_FILES if _lacks_files(leaf) else str(leaf) for leaf in leaves):
        tell(f"bulkjobs: {message}")
    return next(code for _, code in _EXIT_CODES if code in codes)


def _code(error: BaseException) -> Exit | None:
    if _lacks_files(error):
        return Exit.STORAGE
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), None)


def _lacks_files(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _crashed(error: Exception, run_dir: Path | None) -> int:
    places = list(_places(error))
    names = ", ".join(
        f"{type(leaf).__name__} ({leaf})" if isinstance(leaf, InternalError) else type(leaf).__name__
        for leaf in _leaves(error)
    )
    tell(
        f"bulkjobs: A bug in bulkjobs ended this: {names}. What the ledger holds is safe; nothing is sent twice."
    )
    if os.environ.get("BULKJOBS_DEBUG") == "1":
        tell(*places)
    elif run_dir is not None and _write_private(run_dir / "crash.txt", "\n".join(places) + "\n"):
        tell(f"bulkjobs: Where in the code is in {run_dir / 'crash.txt'}; please report it.")
    else:
        tell("bulkjobs: With BULKJOBS_DEBUG=1 in the environment the same command shows where in the code.")
    return Exit.BUG


def _places(error: BaseException, told: frozenset[int] = frozenset()) -> Iterator[str]:
    """Gives the frames of an exception and of those behind it, without values, messages or source lines."""
    yield f"{type(error).__module__}.{type(error).__qualname__}"
    if id(error) in told:  # a group whose first error was raised from it holds itself
        return
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for other in (*inner, *([behind] if behind is not None else [])):
        yield "behind it:"
        yield from _places(other, told | {id(error)})


def _write_private(path: Path, text: str) -> bool:
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
    except OSError:
        return False
    return True
