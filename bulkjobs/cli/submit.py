"""`bulkjobs submit` and `bulkjobs resume`: one session of a run, watched and accounted for."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import click

from bulkjobs.cli.options import EPILOG, RUN, with_options
from bulkjobs.cli.report import account, next_steps, outcome, print_lines, table
from bulkjobs.cli.session import Work, run_session
from bulkjobs.cli.streams import LOG_FORMAT, tell
from bulkjobs.clock import SystemClock
from bulkjobs.errors import ConfigError, LedgerError
from bulkjobs.events import Event, Observer, RunStarted, Stopping
from bulkjobs.exits import Exit
from bulkjobs.model import RunSummary
from bulkjobs.observers import LogObserver, ProgressObserver
from bulkjobs.observers.wording import Level
from bulkjobs.rundir import default_run_dir
from bulkjobs.settings import OPTIONS, Settings, merge

__all__ = ["Output", "closing", "resume", "resume_command", "shown", "submit", "watch", "work_on"]

_STDOUT_SINK: Final = "-"
_STOPPED_EARLY: Final = (Exit.USAGE, Exit.STOPPED, Exit.STORAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Holds how a command talks."""

    json: bool = False
    quiet: bool = False
    log_format: Literal["text", "json"] = "text"
    metrics: Path | None = None

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """Takes what `settings.merge` gave for these options."""
        metrics = values.get("metrics")
        return cls(
            json=values.get("json") is True,
            quiet=values.get("quiet") is True,
            log_format="json" if values.get("log_format") == "json" else "text",
            metrics=metrics if isinstance(metrics, Path) else None,
        )


@click.command(epilog=EPILOG)
@click.argument(
    "sources",
    metavar="SOURCE...",
    nargs=-1,
    required=True,
    help="Files of ids or tables, folders or patterns of such, addresses such as s3://…, or - for stdin.",
)
@with_options()
def submit(sources: Sequence[str], *, given: Mapping[str, object]) -> int:
    """Submits ids as bulk jobs and accounts for every one of them.

    Give the same command again to go on with a run that was stopped; a finished run sends nothing.
    """
    values = merge(given, os.environ)
    run = values.get("run")
    run_dir = run if isinstance(run, Path) else default_run_dir(sources[0])
    return work_on(run_dir, sources, values, again=resume_command(run_dir, given))


@click.command(epilog=EPILOG)
@RUN
@with_options(without={"run"})
def resume(run: Path, *, given: Mapping[str, object]) -> int:
    """Goes on with a run: what is planned is sent, what is held stays held."""
    if not os.path.isdir(run):  # noqa: PTH112 - Path.is_dir raises for a very long one
        raise ConfigError(f"There is no run directory {run}. `bulkjobs submit` makes one.")
    return work_on(run, [], merge(given, os.environ), again=resume_command(run, given))


def work_on(run_dir: Path, sources: Sequence[str], values: Mapping[str, object], *, again: str) -> int:
    """Works on a run, shows it, prints its account, and gives the exit code.

    Args:
        run_dir: the run directory.
        sources: as on the command line; none to resume.
        values: of all options, from `settings.merge`.
        again: the command that goes on with this run, for the person who has to.

    Raises:
        ConfigError: the options contradict each other; nothing was sent.
    """
    return shown(run_dir, lambda client: client.run(*sources), values, again=again)


def shown(run_dir: Path, work: Work, values: Mapping[str, object], *, again: str) -> int:
    """Does something with a run, shows it, prints its account, and gives the exit code.

    Args:
        run_dir: the run directory.
        work: what is done.
        values: of all options, from `settings.merge`.
        again: the command that goes on with this run, for the person who has to.

    Raises:
        ConfigError: the options contradict each other; nothing was sent.
    """
    output = Output.of(values)
    LOG_FORMAT.set(output.log_format)
    settings = Settings.of({"state_dir": "default", **values})
    records_on_stdout = _STDOUT_SINK in settings.sinks
    if output.json and records_on_stdout:
        raise ConfigError("--json and --sink - both want stdout; give one of them.")
    ended, worked = watch(run_dir, work, settings, output)
    if not isinstance(ended, RunSummary):
        return ended
    if output.json:
        print_lines([json.dumps(ended.as_dict())])
    else:
        again_lines = [] if worked else ["This run was finished before; nothing was sent."]
        lines = [*closing(ended, run_dir, again), *again_lines]
        if records_on_stdout:
            tell(*lines)
        else:
            print_lines(lines)
    return ended.exit_code


def watch(run_dir: Path, work: Work, settings: Settings, output: Output) -> tuple[RunSummary | int, bool]:
    """Works on a run, shows it on stderr, and keeps its metrics.

    Returns:
        What `run_session` gives; and whether there was anything to work on.

    Raises:
        ConfigError: the metrics cannot be kept as they were asked for; nothing was sent.
    """
    seen = _Seen()
    with _measuring(output, settings) as metrics, _observing(output) as observers:
        ended = run_session(settings, run_dir, work, [seen, *metrics, *observers])
    if isinstance(ended, RunSummary) and ended.exit_code in _STOPPED_EARLY and not seen.stopping:
        tell(f"bulkjobs: {_stop_reason(run_dir) or outcome(ended.exit_code)}")
    return ended, seen.started


def _stop_reason(run_dir: Path) -> str | None:
    """Reads why the last session ended: what ends it before its first request is no event."""
    from bulkjobs.ledger import read_run  # noqa: PLC0415 - sqlite comes with it

    try:
        return read_run(run_dir).stop_reason
    except LedgerError:
        return None


def _all_read(run_dir: Path) -> bool:
    """Reads whether the sources were read to their end, which the summary does not say."""
    from bulkjobs.ledger import read_run  # noqa: PLC0415 - as above

    try:
        run = read_run(run_dir).run
    except LedgerError:
        return True  # nobody can tell, and the reason for that was told
    return run is not None and run.source_finished


def closing(summary: RunSummary, run_dir: Path, again: str) -> Iterator[str]:
    """Gives the account of a run, what its exit code means, and what to do next."""
    yield from table(account(summary))
    nothing = summary.exit_code == Exit.ACCEPTED and not summary.ids["read"]
    yield "There were no ids." if nothing else outcome(summary.exit_code)
    yield from next_steps(summary, run_dir, again, all_read=_all_read(run_dir))


@dataclass(slots=True, kw_only=True)
class _Seen:
    """Notes what was told of a session."""

    started: bool = False
    """The engine began to work, which it does not on a finished run."""
    stopping: bool = False

    def __call__(self, event: Event, /) -> None:
        self.started = self.started or isinstance(event, RunStarted)
        self.stopping = self.stopping or isinstance(event, Stopping)


@contextmanager
def _measuring(output: Output, settings: Settings) -> Iterator[list[Observer]]:
    """Keeps a file of metrics if there is to be one."""
    if output.metrics is None:
        yield []
        return
    from bulkjobs.observers.metrics import MetricsObserver  # noqa: PLC0415 - most runs need none of it

    def warn(text: str) -> None:
        tell(f"bulkjobs: {text}", level="warn")

    with MetricsObserver(
        output.metrics, endpoint=settings.endpoint, clock=SystemClock(), warn=warn
    ) as observer:
        yield [observer]


@contextmanager
def _observing(output: Output) -> Iterator[list[Observer]]:
    """Chooses what is shown on stderr: a display on a terminal, a log elsewhere, or only what needs a person."""
    clock = SystemClock()
    if sys.stderr is None:  # it was closed
        yield []
        return
    if output.quiet or output.log_format == "json" or not _on_terminal():
        least = Level.ERROR if output.quiet else None
        yield [LogObserver(sys.stderr, clock=clock, format=output.log_format, least=least)]
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

    with ProgressObserver(Console(stderr=True), clock=clock) as progress:
        yield [progress, LogObserver(progress, clock=clock, least=Level.WARN)]


def _on_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def resume_command(run_dir: Path, given: Mapping[str, object]) -> str:
    """Spells the command that goes on with a run, with the options of this one.

    The webhook is the exception: its query may hold a password, which belongs in no output.
    """
    words = ["bulkjobs", "resume", str(run_dir)]
    for option in OPTIONS:
        value = given.get(option.field)
        if option.field in ("run", "webhook", "json", "quiet", "log_format") or value is None:
            continue
        if isinstance(value, bool):
            words.append(option.name if value or option.off is None else option.off)
        else:
            for text in value if isinstance(value, list) else [value]:
                words += [option.name, str(text)]
    return shlex.join(words) + (" --webhook …" if given.get("webhook") else "")
