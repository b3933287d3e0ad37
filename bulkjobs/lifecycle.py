"""The life of a chunk, as a table. Ledger, engine, docs and tests consult this one.

Rules of this file: every legal move stands here, and no caller makes a move that does not.
A move into `sending` is durable before the first byte can leave; after a crash every `sending` is `held`.
"""

from __future__ import annotations

from typing import Final

from bulkjobs.errors import InternalError
from bulkjobs.model import ChunkState

__all__ = ["TRANSITIONS", "check_transition", "mermaid"]

_P, _S, _A, _D, _R, _H, _X = (
    ChunkState.PLANNED,
    ChunkState.SENDING,
    ChunkState.ACCEPTED,
    ChunkState.DELIVERED,
    ChunkState.REFUSED,
    ChunkState.HELD,
    ChunkState.SPLIT,
)

TRANSITIONS: Final[dict[tuple[ChunkState, ChunkState], str]] = {
    (_P, _S): "the intent is durable, bytes may leave",
    (_S, _P): "proved not applied: not sent, throttled, token, slots, quota",
    (_S, _A): "the server made a job",
    (_S, _R): "the server wants none of it",
    (_S, _X): "too large, or bad ids among good ones: its parts go out instead",
    (_S, _H): "nobody can know, or the process died",
    (_H, _A): "its job was found",
    (_H, _P): "there is no job, or a person takes the risk",
    (_A, _D): "every sink has the job record",
}
"""Each legal move with its cause."""


def check_transition(before: ChunkState, after: ChunkState) -> None:
    """Passes a legal move.

    Raises:
        InternalError: the move is not in the table.
    """
    if (before, after) not in TRANSITIONS:
        raise InternalError(f"A chunk cannot go from {before.value} to {after.value}.")


def mermaid() -> str:
    """Draws the table as a Mermaid state diagram, which the documentation shows."""
    lines = ["stateDiagram-v2", "    [*] --> planned"]
    for (before, after), cause in TRANSITIONS.items():
        lines.append(f"    {before.value} --> {after.value}: {cause}")
    leave = {before for before, _ in TRANSITIONS}
    lines += [f"    {state.value} --> [*]" for state in ChunkState if state not in leave]
    return "\n".join(lines)
