"""Reads in a thread, one piece ahead of what is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import NamedTuple

__all__ = ["Piece", "Pieces", "ahead"]


class Piece(NamedTuple):
    """Is some text, and how far the source is read with it."""

    text: bytes
    position_bytes: int
    """Stored bytes up to its end, as nearly as is known."""
    mark: str | None = None
    """Where the source can be read on behind it; None where it cannot."""


Pieces = Generator[Piece, None, None]
"""What a way of reading gives, in order and without a piece that is empty."""


async def ahead(pieces: Pieces) -> AsyncGenerator[Piece, None]:
    """Runs a generator in a thread, so that a slow disk or a busy decompressor does not hold up answers.

    While a piece is worked on, the next one is read. An error comes after all pieces before it.
    """
    loop = asyncio.get_running_loop()
    coming = loop.run_in_executor(None, next, pieces, None)
    try:
        # Shielded: a thread cannot be cancelled, and the generator can only be closed once it has let go of it.
        while (piece := await asyncio.shield(coming)) is not None:
            coming = loop.run_in_executor(None, next, pieces, None)
            yield piece
    finally:
        if coming.done():
            _close(coming, pieces)
        else:
            coming.add_done_callback(lambda done: _close(done, pieces))


def _close(last: asyncio.Future[Piece | None], pieces: Pieces) -> None:
    if not last.cancelled():
        last.exception()  # seen: nobody else will ask for it
    pieces.close()
