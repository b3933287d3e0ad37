"""`bulkjobs explain`: what became of one id."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bulkjobs.cli.options import AS_JSON, FOLDER, RUN
from bulkjobs.cli.report import print_lines, table
from bulkjobs.cli.session import exiting
from bulkjobs.cli.streams import on_terminal
from bulkjobs.ids import IdForm, fault_of

if TYPE_CHECKING:
    from bulkjobs.audit import Explanation, Fate  # sqlite comes with it
    from bulkjobs.ledger.inspection import AttemptRow

__all__ = ["Outcome", "explain"]

_MOST_PLACES: Final = 20
_ANSWER_CHARACTERS: Final = 300
_ROLES: Final = {
    "first": "the first, which counts",
    "duplicate": "a duplicate",
    "invalid": "no id",
    "id": "an id",
}


class Outcome(IntEnum):
    """Is what the exit code of an explanation says; 2 is as everywhere."""

    IN_RUN = 0
    """It stands in the sources, as an id or as a text that is none."""
    ABSENT = 3
    """It does not."""


class _Explain(click.Command):
    """Takes an opaque id that begins with a dash for what it is: no option is as long as one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ids = [
            one for one in args if one.startswith("-") and fault_of(os.fsencode(one), IdForm.OPAQUE) is None
        ]
        if ids and "--" not in args:
            args = [*(one for one in args if one not in ids), "--", *ids]
        return super().parse_args(ctx, args)


@click.command(cls=_Explain)
@RUN
@click.argument("wanted", metavar="ID", help="The id, or a text that is none.")
@FOLDER
@AS_JSON
def explain(run: Path, wanted: str, *, folder: Path | None, as_json: bool) -> int:
    """Shows what became of one id: where it stands, its chunk, each attempt, its job. Asks nothing of the server."""
    return exiting(lambda: _explain(run, wanted, folder, as_json=as_json))


def _explain(run: Path, wanted: str, folder: Path | None, *, as_json: bool) -> int:
    from bulkjobs.audit import explain_id  # noqa: PLC0415 - as above

    with on_terminal() as progress:
        found = explain_id(run, wanted, folder=folder, progress=progress)
    print_lines([json.dumps(found.as_dict())] if as_json else table(_rows(found)))
    return Outcome.IN_RUN if found.in_run else Outcome.ABSENT


def _rows(found: Explanation) -> Iterator[tuple[str, str]]:
    yield "id", found.id
    yield "run", found.run_id
    if found.kind == "absent":
        yield "state", "not in this run: it stands in none of its sources"
    elif found.kind == "invalid":
        yield "state", f"invalid: {found.reason}. It was never sent; mend it and give it to another run."
    for index, place in enumerate(found.occurrences[:_MOST_PLACES]):
        yield "stands in", f"{place.source} line {place.line:,}: {_ROLES[found.role(index)]}"
    if found.count > _MOST_PLACES:
        yield "", f"and {found.count - _MOST_PLACES:,} times more"
    for fate in found.fates:
        yield from _fate(fate)
    for note in found.notes:
        yield "note", note


def _fate(fate: Fate) -> Iterator[tuple[str, str]]:
    yield "state", f"{fate.state}. {fate.why}"
    if fate.chain:
        chunk = fate.chain[0]
        where = f"{chunk.ids:,} ids from {chunk.source} line {chunk.line:,}; this is number {fate.position:,} of them"
        yield "chunk", f"{chunk.ordinal}, {chunk.state}: {where}"
        for part in fate.chain[1:]:
            where = f"the {part.ids:,} ids from number {part.first + 1:,} of chunk {chunk.ordinal} on"
            yield "part", f"{part.ordinal}, {part.state}: {where}"
        if any(one.duplicate_risk for one in fate.chain):
            yield (
                "risk",
                "a person had it sent again with the outcome before unknown: it may be paid for twice",
            )
    from bulkjobs.clock import timestamp  # noqa: PLC0415 - as above

    for attempt in fate.attempts:
        yield from _attempt(attempt, parts=len(fate.chain) > 1)
        for one in fate.settlements:
            if (one.chunk, one.attempt) == (attempt.chunk, attempt.attempt):
                yield "settled", f"{timestamp(one.at_utc)} by {one.by}: {one.how}. {one.reason}"
    if fate.job is not None:
        job = fate.job
        seen = "" if job.seen_utc is None else f", seen {timestamp(job.seen_utc)}"
        yield (
            "job",
            f"{job.job_id}, accepted {timestamp(job.accepted_utc)}; last known state: {job.word or job.state}{seen}",
        )
        yield "record", _record(fate)
    if fate.next:
        yield "next", fate.next


def _record(fate: Fate) -> str:
    places = [f"{path} line {line:,}" for path, line in fate.records]
    if not fate.delivered:
        return "not delivered yet" + (f", but written: {', '.join(places)}" if places else "")
    places += [f"{name} (cannot be read back)" for name in fate.other_sinks]
    return f"delivered: {', '.join(places) or 'no file has it'}"


def _attempt(attempt: AttemptRow, *, parts: bool) -> Iterator[tuple[str, str]]:
    from bulkjobs.clock import timestamp  # noqa: PLC0415 - as above
    from bulkjobs.model import Phase  # noqa: PLC0415 - as above

    said = [f"{attempt.attempt}" + (f" of chunk {attempt.chunk}" if parts else "")]
    said.append(f"begun {timestamp(attempt.started_utc)}")
    for name, utc in (
        ("first byte", attempt.sent_utc),
        ("answered", attempt.answered_utc),
        ("ended", attempt.ended_utc),
    ):
        if utc is not None:
            said.append(f"{name} {timestamp(utc)}")
    if attempt.phase is not None:
        said.append(f"got to {Phase(attempt.phase).name.lower().replace('_', ' ')}")
    if attempt.connection_reused is not None:
        said.append(f"on a {'used' if attempt.connection_reused else 'new'} connection")
    yield "attempt", ", ".join(said)
    verdict = "in flight" if attempt.verdict is None else attempt.verdict.replace("_", " ")
    cause = f" ({attempt.cause.replace('_', ' ')})" if attempt.cause else ""
    yield "", f"{verdict}{cause}" + (f": {attempt.reason}" if attempt.reason else "")
    if attempt.error:
        yield "", f"error: {attempt.error}"
    if attempt.status is not None:
        yield "", _answer(attempt)
    if attempt.job_hint:
        yield "", f"job seen in an answer that cannot be trusted: {attempt.job_hint}"


def _answer(attempt: AttemptRow) -> str:
    size = (
        f", {attempt.answer_bytes or len(attempt.body):,} bytes"  # ledgers of version 1 have not counted them
    )
    kind = f", {attempt.content_type}" if attempt.content_type else ""
    later = f", retry after {attempt.retry_after}" if attempt.retry_after else ""
    text = attempt.body.decode("utf-8", "backslashreplace")
    shown = text[:_ANSWER_CHARACTERS] + ("…" if len(text) > _ANSWER_CHARACTERS or attempt.body_cut else "")
    return f"answer: HTTP {attempt.status}{kind}{size}{later}" + (f": {shown}" if shown else "")
