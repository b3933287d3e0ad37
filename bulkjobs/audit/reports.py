"""The files that a run leaves for people, against the sources and the ledger that they follow from."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from bulkjobs.audit.findings import Findings, told
from bulkjobs.ledger import RunRow, summarise
from bulkjobs.ledger.inspection import AttemptRow, ChunkRecord, Inspection, inspecting
from bulkjobs.ledger.lock import lock_owner
from bulkjobs.model import InvalidId
from bulkjobs.rundir import RunDir

__all__ = ["InvalidLines", "ReportCheck", "reports_are_current"]

_AGAIN: Final = "`bulkjobs resume` writes it anew."
_CHUNK_FILE: Final = re.compile(r"chunk-(\d{8,})\.txt")
_CLOCKS_S: Final = 0.02
"""File systems take their times from a clock that ticks more slowly than the one the ledger asks."""
_REFUSED: Final = ("ids", "source", "line", "parent", "first")
_HELD: Final = ("digest", "first_id", "last_id", *_REFUSED)
_BLOCK_BYTES: Final = 1 << 20

_Expected = Callable[[ChunkRecord, AttemptRow | None], dict[str, object]]
_Key = tuple[str, str, str]
"""Source, line and text of an invalid id."""


class InvalidLines:
    """Compares `invalid.jsonl` with the invalid ids of the sources, line beside line.

    Both come in the same order, so that what waits for its other half stays small; but it is the multisets that are
    compared, and each line that has none is told.
    """

    def __init__(self, path: Path, findings: Findings) -> None:
        """Opens the file; one that is not there has no lines."""
        self._path = path
        self._findings = findings
        self._file: BinaryIO | None = None
        if path.is_file():
            self._file = path.open("rb")
        self._number = 0
        self._torn = False
        self._expected: Counter[_Key] = Counter()
        """Invalid ids that no line was met for."""
        self._found: Counter[_Key] = Counter()
        """Lines that no invalid id was met for."""
        self._behind = 0
        """Invalid ids behind the last line."""
        self._first_behind: _Key | None = None
        self.compared = 0

    def expect(self, invalid: Sequence[InvalidId]) -> None:
        """Takes the next invalid ids of the sources."""
        for one in invalid:
            self.compared += 1
            key = (one.source, str(one.line), one.text)
            line = self._next()
            if line is None and not self._found:
                self._behind += 1
                self._first_behind = self._first_behind or key
            elif line != key:
                self._differ(key, line)

    def finish(self, *, finished: bool, all_read: bool) -> None:
        """Takes what is left in the file and tells what differs.

        Args:
            finished: the run has read its sources to their end: every line is there.
            all_read: the sources were read to their end now. If not, lines may stand behind what was read.
        """
        rest = 0
        while (line := self._next()) is not None:
            if all_read:
                self._differ(None, line)
            rest += 1
        for key, count in self._expected.items():
            self._missing(key, count)
        if self._first_behind is not None and finished:
            self._missing(self._first_behind, self._behind)
        elif self._behind:
            self._findings.note(
                f"{self._path.name} does not have {self._behind:,} of the invalid ids yet: the run has not read so "
                f"far, or the next session writes them again."
            )
        for (source, line_number, text), count in self._found.items():
            self._findings.differ(
                "invalid",
                f"{self._path} has {told(text)} of {told(source)} line {line_number} {count} times more than the "
                f"sources. Take the line out; whatever stands there was not sent.",
            )
        if rest and not all_read:
            self._findings.note(f"{self._path.name} has {rest:,} lines behind what is known of the sources.")
        if self._torn:
            self._torn_line(finished=finished)
        if self._file is not None:
            self._file.close()

    def _torn_line(self, *, finished: bool) -> None:
        text = f"{self._path} ends in the middle of a line"
        if finished:
            self._findings.differ("invalid", f"{text}, although it was complete once. Take that line out.")
        else:
            self._findings.note(
                f"{text}: it is being written, or its process died. The next session mends it."
            )

    def _missing(self, key: _Key, count: int) -> None:
        source, line, text = key
        self._findings.differ(
            "invalid",
            f"{self._path} lacks {told(text)} of {told(source)} line {line}"
            + (f" and {count - 1:,} more" if count > 1 else "")
            + ", which is invalid in the source. It was not sent; look it up in the source.",
        )

    def _differ(self, key: _Key | None, line: _Key | None) -> None:
        """Takes two halves that do not fit each other; each may fit one that waits."""
        for half, mine, other in ((key, self._expected, self._found), (line, self._found, self._expected)):
            if half is None:
                continue
            if other[half]:
                other[half] -= 1
            else:
                mine[half] += 1
            if not other[half]:
                del other[half]

    def _next(self) -> _Key | None:
        if self._file is None or not (text := self._file.readline()):
            return None
        self._number += 1
        if not text.endswith(b"\n"):
            self._torn = True
            return None
        value = _parsed(text)
        if value is None:
            return ("", str(self._number), told(text.decode("utf-8", "backslashreplace").rstrip("\n")))
        return (str(value.get("source")), str(value.get("line")), str(value.get("text")))


def reports_are_current(run_dir: RunDir, inspection: Inspection) -> bool:
    """Tells whether the reports speak of the ledger as it is: the last session wrote them after its end.

    `summary.json` is the last one written, so that its time tells whether the process lived to write them all.
    """
    sessions = inspection.sessions()
    if not sessions or lock_owner(run_dir.path) is not None:
        return False
    with inspecting(run_dir.path) as now:
        if now.sessions() != sessions:
            return False  # a session came and went since the audit began
    ended_utc = sessions[-1].ended_utc
    if ended_utc is None or sessions[-1].exit_code is None or not run_dir.summary.is_file():
        return False
    last_utc = max(ended_utc, inspection.last_settlement_utc() or 0.0)
    return run_dir.summary.stat().st_mtime >= last_utc - _CLOCKS_S


class ReportCheck:
    """Compares `refused/`, `duplicate-risk/`, `held.jsonl` and `summary.json` with the ledger."""

    def __init__(
        self, run: RunRow, run_dir: RunDir, inspection: Inspection, findings: Findings, *, current: bool
    ) -> None:
        """Makes it; reports that are not `current` may say what was true before, and are not compared."""
        self._run = run
        self._run_dir = run_dir
        self._inspection = inspection
        self._findings = findings
        self._current = current
        self.refused = 0
        """Files of refused ids that were compared."""

    def check(self) -> None:
        """Compares all of them."""
        self._refused_files()
        self._risky_files()
        if not self._current:
            if self._inspection.sessions():
                self._findings.note(
                    "summary.json, held.jsonl and refused/reasons.jsonl were not compared: a session writes them "
                    "when it ends, and none has since the last change."
                )
            return
        self._compare_lines("refused", self._run_dir.refused / "reasons.jsonl", _reason, "refused")
        self._compare_lines("held", self._run_dir.held, _held, "held")
        self._summary()

    def _refused_files(self) -> None:
        refused = set()
        for chunk in self._inspection.in_state("refused"):
            self.refused += 1
            path = self._run_dir.refused_ids(chunk.ordinal)
            refused.add(path.name)
            self._compare_ids("refused", path, chunk)
        for path in _chunk_files(self._run_dir.refused):
            if path.name in refused:
                continue
            if self._current:
                self._findings.differ(
                    "refused",
                    f"{path} holds ids of a chunk that is not refused. Do not feed it again: they may be paid for.",
                )
            else:
                self._findings.note(
                    f"{path} holds ids of a chunk that the ledger does not call refused (yet). Do not feed it again "
                    f"before a session has ended."
                )

    def _risky_files(self) -> None:
        for path in _chunk_files(self._run_dir.duplicate_risk):
            ordinal = int(path.stem.removeprefix("chunk-"))
            chunk = self._inspection.chunk(ordinal)
            if chunk is None or not chunk.duplicate_risk:
                self._findings.differ(
                    "refused", f"{path} speaks of a chunk that nobody had sent again at a risk. Take it away."
                )
            else:
                self._compare_ids("refused", path, chunk)

    def _compare_ids(self, where: str, path: Path, chunk: ChunkRecord) -> None:
        digest = _digest(path)
        if digest is None:
            self._findings.differ(
                where,
                f"{path} is missing: the ids of chunk {chunk.ordinal} ({chunk.ids} from {told(chunk.source)} line "
                f"{chunk.line}). Take them from the source.",
            )
        elif digest != chunk.digest:
            self._findings.differ(
                where,
                f"{path} does not hold the ids of chunk {chunk.ordinal}: its digest is {digest[:12]}…, that of the "
                f"chunk {told(chunk.digest[:12])}…. Do not feed it again; take the ids from the source.",
            )

    def _compare_lines(self, where: str, path: Path, expected: _Expected, state: str) -> None:
        """Compares the lines of a report with the chunks it is about, both in order of their ordinals."""
        lines = self._by_chunk(where, path)
        for chunk in self._inspection.in_state(state):
            line = lines.pop(chunk.ordinal, None)
            if line is None:
                self._findings.differ(
                    where, f"{path} lacks chunk {chunk.ordinal}, which is {chunk.state}. {_AGAIN}"
                )
                continue
            values = expected(chunk, self._inspection.last_attempt(chunk.ordinal))
            if where == "held":
                values["finding"] = self._inspection.finding(chunk.ordinal)
            for name, known in values.items():
                if line.get(name) != known:
                    self._findings.differ(
                        where,
                        f"{path} says {told(line.get(name))} as {name} of chunk {chunk.ordinal}, the ledger "
                        f"{told(known)}. {_AGAIN}",
                    )
        for ordinal in lines:
            self._findings.differ(
                where, f"{path} speaks of chunk {told(ordinal)}, which is not {state}. {_AGAIN}"
            )

    def _by_chunk(self, where: str, path: Path) -> dict[int | str, dict[str, Any]]:
        """Reads the lines of a report, by what they call their chunk."""
        lines: dict[int | str, dict[str, Any]] = {}
        for number, value in _lines(path):
            if value is None:
                self._findings.differ(where, f"{path} line {number} is no JSON object. {_AGAIN}")
                continue
            ordinal = value.get("chunk")
            if not isinstance(ordinal, int):
                ordinal = str(ordinal)
            if ordinal in lines:
                self._findings.differ(where, f"{path} has chunk {told(ordinal)} twice. {_AGAIN}")
            lines[ordinal] = value
        return lines

    def _summary(self) -> None:
        path = self._run_dir.summary
        said = _parsed(path.read_bytes())
        if said is None:
            self._findings.differ("summary", f"{path} is no JSON object. {_AGAIN}")
            return
        summary = summarise(self._run, self._inspection.counts(), 0).as_dict()
        for name, value in summary.items():
            # The exit code is that of the session that wrote it, which need not have been one that sent anything.
            if name != "exit_code" and said.get(name) != value:
                self._findings.differ(
                    "summary",
                    f"{path} says {told(said.get(name))} as {name}, the ledger {told(value)}. {_AGAIN}",
                )


def _held(chunk: ChunkRecord, attempt: AttemptRow | None) -> dict[str, object]:
    line: dict[str, object] = {name: getattr(chunk, name) for name in _HELD}
    if attempt is not None:
        line |= {"attempt": attempt.attempt, "reason": attempt.reason, "http_status": attempt.status}
    return line


def _reason(chunk: ChunkRecord, attempt: AttemptRow | None) -> dict[str, object]:
    line: dict[str, object] = {name: getattr(chunk, name) for name in _REFUSED}
    if attempt is not None:
        line |= {"attempt": attempt.attempt, "reason": attempt.reason, "http_status": attempt.status}
    return line


def _chunk_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("chunk-*.txt") if _CHUNK_FILE.fullmatch(path.name))


def _digest(path: Path) -> str | None:
    """Gives the digest of a file of ids without the newline at its end, as that of a chunk; None when it is gone."""
    digest = hashlib.sha256()
    held = b""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(held)
                held = block[-1:]
                digest.update(block[:-1])
    except OSError:
        return None
    digest.update(held.removesuffix(b"\n"))
    return digest.hexdigest()


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            yield number, _parsed(text)


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
