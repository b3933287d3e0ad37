"""The files of job records against the ledger: each delivered chunk's record once, every field right, no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from bulkjobs.audit.findings import Findings, told
from bulkjobs.ledger import RunRow
from bulkjobs.ledger.inspection import Inspection, inspecting
from bulkjobs.rundir import RunDir

__all__ = ["RecordCheck", "SinkFile", "sink_files"]

_FILE: Final = "jsonl:"
_NEXT: Final = "The ledger has the right one: compare by `bulkjobs explain`, and keep both files."


@dataclass(slots=True)
class SinkFile:
    """Is a file of job records that the ledger knows."""

    path: Path
    ours: bool
    """It is that of the run directory, in which nobody else writes."""
    position: int
    """How long it was after the last delivery that the ledger knows of."""
    chunks: set[int] = field(default_factory=set)
    """Whose records were met in it."""
    behind: int = 0
    """Records that stand behind the position."""


def sink_files(inspection: Inspection, run_dir: RunDir) -> tuple[list[SinkFile], list[str]]:
    """Gives the files among the sinks of a run, and the names of its other sinks, which nobody can read back."""
    files, others = [], []
    for name, position in inspection.sink_positions().items():
        if name == run_dir.jobs.name:
            files.append(SinkFile(run_dir.jobs, ours=True, position=position or 0))
        elif name.startswith(_FILE):
            files.append(SinkFile(Path(name.removeprefix(_FILE)), ours=False, position=position or 0))
        else:
            others.append(name)
    return files, others


class RecordCheck:
    """Compares the files of job records of a run with its ledger."""

    def __init__(self, run: RunRow, run_dir: RunDir, inspection: Inspection, findings: Findings) -> None:
        self._run = run
        self._run_dir = run_dir
        self._inspection = inspection
        self._findings = findings
        self._unknown: list[tuple[SinkFile, int, dict[str, Any]]] = []
        """Records behind the position of their file whose jobs the ledger did not have yet when the audit began."""
        self.records = 0
        """Records of the run that were compared."""

    def check(self) -> None:
        """Compares all of them."""
        files, others = sink_files(self._inspection, self._run_dir)
        for file in files:
            self._compare(file)
        self._missing(files, others)
        if self._unknown:
            with inspecting(self._run_dir.path) as later:
                for file, number, record in self._unknown:
                    self._compare_record(later, file, number, record)

    def _compare(self, file: SinkFile) -> None:
        try:
            there = file.path.stat().st_size
        except OSError:
            there = -1
        if there < file.position:
            said = f"has {there:,} bytes" if there >= 0 else "is not there"
            self._findings.differ(
                "sink",
                f"{file.path} {said}, but {file.position:,} were written to it. Put the file back, or write the "
                f"records anew from the ledger (tables chunk and job).",
            )
        if there < 0:
            return
        end = 0
        for number, line in _lines(file.path):
            end += len(line)
            self._take(file, number, line, known=end <= file.position)

    def _take(self, file: SinkFile, number: int, line: bytes, *, known: bool) -> None:
        """Takes one line; it is `known` when all of it stands before the position."""
        if not file.ours and self._run.run_id.encode() not in line:
            return  # somebody else's, as far as anybody can tell
        if not line.endswith(b"\n"):
            self._take_torn(file, number, known=known)
            return
        record = _parsed(line)
        if record is None or record.get("run_id") != self._run.run_id:
            if file.ours:
                self._differ(
                    file, number, "is not a job record of this run. Take it out, and find out who wrote it."
                )
            return
        self.records += 1
        chunk = record.get("chunk")
        if not isinstance(chunk, int):
            self._differ(file, number, f"has {told(chunk)} for a chunk. {_NEXT}")
            return
        if chunk in file.chunks:
            self._differ(file, number, f"has chunk {chunk} once more. Take one of the two lines out.")
            return
        file.chunks.add(chunk)
        if not known:
            file.behind += 1
            if self._inspection.job(chunk) is None:
                self._unknown.append((file, number, record))
                return
        self._compare_record(self._inspection, file, number, record)
        self._compare_delivery(file, number, chunk, known=known)

    def _take_torn(self, file: SinkFile, number: int, *, known: bool) -> None:
        if known:
            self._differ(file, number, "ends in the middle of a record. Put the file back.")
            return
        self._findings.note(
            f"{file.path} ends in the middle of a line behind what is delivered: it is being written, or its process "
            f"died. The next session cuts it off and writes it again."
        )

    def _compare_record(
        self, inspection: Inspection, file: SinkFile, number: int, record: dict[str, Any]
    ) -> None:
        chunk = record["chunk"]
        expected = inspection.record(self._run, chunk)
        if expected is None:
            self._differ(
                file,
                number,
                f"is a record of chunk {chunk} with job {told(record.get('job_id'))}, of which the ledger knows "
                f"nothing. The ledger may be an older copy: do not resume with it, look for the newer one.",
            )
            return
        fields = expected.as_dict()
        for name in fields.keys() | record.keys():
            if record.get(name) != fields.get(name):
                self._differ(
                    file,
                    number,
                    f"has {told(record.get(name))} as {name} of chunk {chunk}, the ledger {told(fields.get(name))}. "
                    f"{_NEXT}",
                )

    def _compare_delivery(self, file: SinkFile, number: int, chunk: int, *, known: bool) -> None:
        row = self._inspection.chunk(chunk)
        if row is None or row.state not in ("accepted", "delivered"):
            return  # told as what it is, by the record or by the state
        if known != (row.state == "delivered"):
            place = "before" if known else "behind"
            self._differ(
                file,
                number,
                f"stands {place} byte {file.position:,}, up to which all is delivered, but chunk {chunk} is "
                f"{row.state}. {_NEXT}",
            )

    def _missing(self, files: list[SinkFile], others: list[str]) -> None:
        """Tells which delivered records are in no file, and how many are still to come."""
        lacking = {id(file): 0 for file in files}
        delivered = 0
        for chunk in self._inspection.in_state("delivered"):
            delivered += 1
            absent = [file for file in files if chunk.ordinal not in file.chunks]
            for file in absent:
                lacking[id(file)] += 1
            if files and not others and len(absent) == len(files):
                self._findings.differ(
                    "sink",
                    f"{' and '.join(str(file.path) for file in files)} lacks the record of chunk {chunk.ordinal}, "
                    f"which was delivered. {_NEXT}",
                )
        if others and delivered:
            self._findings.note(f"Records that were given to {told(', '.join(others))} cannot be read back.")
        for file in files:
            if lacking[id(file)] and len(files) + len(others) > 1:
                self._findings.note(
                    f"{file.path} does not have {lacking[id(file)]:,} of {delivered:,} delivered records: a session "
                    f"delivers to the sinks it was given."
                )
        coming = sum(1 for _ in self._inspection.in_state("accepted"))
        if coming:
            already = max((file.behind for file in files), default=0)
            self._findings.note(
                f"{coming:,} records of accepted chunks are not delivered yet"
                + (f"; {already:,} stand in a file already, behind what is delivered" if already else "")
                + ". The session that works on the run, or the next one, delivers them."
            )

    def _differ(self, file: SinkFile, number: int, text: str) -> None:
        self._findings.differ("sink", f"{file.path} line {number} {text}")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        yield from enumerate(file, 1)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
