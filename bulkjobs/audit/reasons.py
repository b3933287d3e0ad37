"""Why a chunk is where it is, and what a person can do about it, in sentences."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from bulkjobs.clock import timestamp
from bulkjobs.ledger import RunRow
from bulkjobs.ledger.inspection import AttemptRow, ChunkRecord, Inspection
from bulkjobs.rundir import RunDir

__all__ = ["Moment", "next_step", "why"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Is what goes on with a run at this moment."""

    run_dir: RunDir
    finished: bool
    """The sources were read to their end."""
    owner: str | None
    locked_until_utc: float | None
    """None when there is no lock-out now."""
    ended: str
    """How the last session ended, in a sentence; empty while it goes on."""

    @classmethod
    def of(cls, run: RunRow, run_dir: RunDir, inspection: Inspection, owner: str | None) -> Self:
        """Reads it."""
        until_utc = max((lockout.until_utc for lockout in inspection.lockouts()), default=0.0)
        sessions = inspection.sessions()
        ended = ""
        if owner is None and sessions:
            last = sessions[-1]
            if last.exit_code is None:
                ended = "The process of the last session ended without closing the run."
            else:
                reason = f": {last.stop_reason}" if last.stop_reason else "."
                ended = f"The last session ended with exit code {last.exit_code}{reason}"
        return cls(
            run_dir=run_dir,
            finished=run.source_finished,
            owner=owner,
            locked_until_utc=until_utc if until_utc > time.time() else None,
            ended=ended,
        )


def why(
    chunk: ChunkRecord | None, attempts: Sequence[AttemptRow], moment: Moment, finding: str | None = None
) -> str:
    """Says what made a chunk what it is; None is a chunk that was not planned yet.

    Args:
        chunk: the chunk, or the part of one that counts.
        attempts: of it.
        moment: what goes on.
        finding: why it could not be settled, if it is held and somebody tried.
    """
    last = attempts[-1] if attempts else None
    state = "unplanned" if chunk is None else chunk.state
    match state:
        case "accepted" | "delivered":
            return "The server made a job of its chunk."
        case "refused":
            return f"The server wants none of its chunk: {_reason(last)}"
        case "held":
            held = f"Nobody can know from here whether the server made a job of its chunk: {_reason(last)}"
            return held if finding is None else f"{held} It could not be settled: {finding}"
        case "sending" if moment.owner is None:
            return "Its chunk was being sent when the process died."
        case "sending":
            return "Its chunk is being sent at this moment."
        case "unplanned":
            return " ".join(filter(None, ["The run has not read so far yet.", moment.ended]))
        case "split":
            return "Its chunk was split, and no part has this id. `bulkjobs audit` says what is wrong."
    return _waits(last, moment)


def _waits(last: AttemptRow | None, moment: Moment) -> str:
    said = ["It has not been sent yet." if last is None else f"It has to be sent again: {_reason(last)}"]
    if moment.locked_until_utc is not None:
        said.append(f"The account is locked out until {timestamp(moment.locked_until_utc)}.")
    elif moment.owner is not None:
        said.append("It waits for its turn.")
    said.append(moment.ended)
    return " ".join(filter(None, said))


def _reason(attempt: AttemptRow | None) -> str:
    return "no attempt is recorded." if attempt is None else attempt.reason or "without a reason."


def next_step(chunk: ChunkRecord | None, moment: Moment) -> str:
    """Says what a person does now; empty when there is nothing to do."""
    state = "planned" if chunk is None else chunk.state
    folder = shlex.quote(str(moment.run_dir.path))
    go_on = f"Go on with: bulkjobs resume {folder}"
    match state:
        case "refused" if chunk is not None:
            path = moment.run_dir.refused_ids(chunk.ordinal)
            return f"Its ids are in {path}, ready to be fed to another run once the reason is mended."
        case "held":
            return (
                f"It is never sent again by itself. Compare with the server's list of jobs: bulkjobs reconcile "
                f"{folder}. What cannot be settled so has its evidence, and the commands by which a person decides, "
                f"in {moment.run_dir.held}."
            )
        case "sending" if moment.owner is None:
            return f"{go_on}; its chunk will be held, because there may be a job."
        case "planned" if moment.owner is None:
            return go_on
        case "accepted" if moment.owner is None:
            return f"Its job record is not delivered yet. {go_on}"
    return ""
