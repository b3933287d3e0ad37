"""What a person reads when a session is over: the account of the run, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from bulkjobs.cli.streams import harmless, say
from bulkjobs.exits import Exit
from bulkjobs.model import RunSummary

__all__ = ["account", "next_steps", "outcome", "print_lines", "table"]

_OUTCOMES: Final = {
    Exit.ACCEPTED: "Every id was accepted.",
    Exit.BUG: "A bug ended the session.",
    Exit.USAGE: "Stopped by a setting or a source that cannot be used.",
    Exit.PARTS_REFUSED: "Finished; some ids are invalid or were refused.",
    Exit.HELD: "Some chunks are held: nobody can know from here whether the server made jobs of them.",
    Exit.STOPPED: "Stopped by quota, the spend cap, credentials or a server that is set up otherwise.",
    Exit.STORAGE: "The ledger or a sink could not be written.",
    Exit.SIGINT: "Stopped by SIGINT with work left.",
    Exit.SIGTERM: "Stopped by SIGTERM, or by `bulkjobs control RUN drain`, with work left.",
}


def account(summary: RunSummary) -> Iterator[tuple[str, str]]:
    """Gives the figures of a run as rows; the ids add up to those read."""
    ids = summary.ids
    rest = " + ".join(f"{count:,} {name}" for name, count in ids.items() if name != "read" and count)
    yield "run", summary.run_id
    yield "endpoint", summary.endpoint
    yield "ids", f"{ids.get('read', 0):,} read" + (f" = {rest}" if rest else "")
    yield "chunks", _counts(summary.chunks)
    yield "jobs", _counts(summary.jobs) or "none"
    yield "requests", _counts(summary.requests) or "none"
    yield "lock-outs", f"{summary.lockouts:,}"
    yield "time", _time(summary.elapsed_s)


def outcome(exit_code: int) -> str:
    """Says in a sentence what an exit code means."""
    return _OUTCOMES[Exit(exit_code)]


def next_steps(summary: RunSummary, run_dir: Path, resume: str, *, all_read: bool) -> Iterator[str]:
    """Names what is left to do, one line each, and where to look.

    Args:
        summary: of the session that ended.
        run_dir: its run directory.
        resume: the command that goes on with it.
        all_read: whether the sources were read to their end.
    """
    ids = summary.ids
    if ids.get("invalid"):
        yield f"{ids['invalid']:,} invalid ids, each with its line and reason: {run_dir / 'invalid.jsonl'}"
    if ids.get("refused"):
        yield f"{ids['refused']:,} refused ids, ready to be fed again: {run_dir / 'refused' / 'chunk-*.txt'}"
    if ids.get("held"):
        yield (
            f"{ids['held']:,} held ids, with the evidence and what can be done: {run_dir / 'held.jsonl'}; "
            f"`bulkjobs reconcile {shlex.quote(str(run_dir))}` looks for their jobs again"
        )
    if ids.get("pending") or summary.chunks.get("pending"):
        capped = summary.exit_code == Exit.STOPPED and "--spend-cap" in resume
        higher = " (if the spend cap stopped it, with a higher one)" if capped else ""
        yield f"{ids.get('pending', 0):,} ids pending; go on with: {resume}{higher}"
    if not all_read:
        yield "The source was not read to its end; what was not read is in none of these figures."


def table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Lines rows up."""
    for name, text in rows:
        yield f"{name:<10} {text}"


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines on stdout; whatever came from outside is made harmless for a terminal.

    Raises:
        OutputError: stdout takes no more.
    """
    say("".join(f"{harmless(line)}\n" for line in lines))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "total")


def _time(seconds: float) -> str:
    minutes, rest_s = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours} h {minutes:02} min {rest_s:02.0f} s"
    return f"{minutes} min {rest_s:04.1f} s" if minutes else f"{rest_s:.1f} s"
