"""Parts of a chunk: what goes out in its place when it is too large, or to find bad ids among good ones.

Halves, and single ids from three down: one bad id among 10,000 is then alone after at most 12 halvings and one
division into single ids, 28 submissions with the first one included. Halving down to one would take a step more.
"""

from __future__ import annotations

import hashlib
from typing import Final

from bulkjobs.model import FIRST_PART, Chunk, Tally

__all__ = ["part_body", "parts_of"]

_SINGLE_FROM: Final = 3


def parts_of(chunk: Chunk) -> list[Chunk]:
    """Divides a chunk of two ids or more.

    Returns:
        The parts, in input order: together they have exactly the ids of the chunk. Their ordinals are not given yet.
    """
    ids = chunk.body.split(b"\n")
    size = 1 if len(ids) <= _SINGLE_FROM else (len(ids) + 1) // 2
    return [_part(chunk, first, ids[first : first + size]) for first in range(0, len(ids), size)]


def part_body(body: bytes, first: int, ids: int) -> bytes:
    """Gives the bytes of a part again.

    Args:
        body: of the chunk as it was cut from the source.
        first: index in it of the part's first id.
        ids: how many ids the part has.
    """
    return b"\n".join(body.split(b"\n")[first : first + ids])


def _part(chunk: Chunk, first: int, ids: list[bytes]) -> Chunk:
    body = b"\n".join(ids)
    return Chunk(
        ordinal=FIRST_PART,
        body=body,
        ids=len(ids),
        digest=hashlib.sha256(body).hexdigest(),
        first_id=ids[0].decode("ascii"),
        last_id=ids[-1].decode("ascii"),
        source=chunk.source,
        line=chunk.line,
        tally=Tally(),
        parent=chunk.ordinal if chunk.parent is None else chunk.parent,
        first=chunk.first + first,
    )
