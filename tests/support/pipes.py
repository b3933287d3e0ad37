"""Pipes as standard input."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["pipe_holding"]


@contextlib.contextmanager
def pipe_holding(*pieces: bytes) -> Iterator[int]:
    """Gives the reading end of a pipe that holds the pieces and is then at its end."""
    reading, writing = os.pipe()
    for piece in pieces:
        os.write(writing, piece)
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)
