"""Ids as Python objects: iterables and async iterables of text, bytes or integers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from itertools import islice
from typing import Final

__all__ = ["AsyncIterableSource", "Id", "IterableSource"]

Id = str | bytes | int
"""One id. Its text is judged like a line of a file, so `True`, `-5` or `1.0` end among the invalid ones."""

_SLICE: Final = 2_000
"""Ids taken at a time: a fraction of a millisecond of work between two looks at the network."""


class IterableSource:
    """Reads ids from an iterable, on the event loop's thread.

    The iterable runs where the caller made it, because a cursor or a generator often may run nowhere else. If
    getting the next id takes long, give an async iterable instead.
    """

    repeatable = False
    fingerprint = None
    size_bytes = None

    def __init__(self, ids: Iterable[Id], name: str) -> None:
        """Takes the ids; `name` is how records and messages call them."""
        self.name = name
        self.position_bytes = 0
        self._ids = ids

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads to the end. See `ports.Source`."""
        ids = iter(self._ids)
        while some := list(islice(ids, _SLICE)):
            block = as_text(some)
            self.position_bytes += len(block)
            yield block
            await asyncio.sleep(0)


class AsyncIterableSource:
    """Reads ids from an async iterable."""

    repeatable = False
    fingerprint = None
    size_bytes = None

    def __init__(self, ids: AsyncIterable[Id], name: str) -> None:
        """Takes the ids; `name` is how records and messages call them."""
        self.name = name
        self.position_bytes = 0
        self._ids = ids

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads to the end. See `ports.Source`."""
        some: list[Id] = []
        async for one in self._ids:
            some.append(one)
            if len(some) == _SLICE:
                block = as_text(some)
                self.position_bytes += len(block)
                yield block
                some.clear()
        if some:
            block = as_text(some)
            self.position_bytes += len(block)
            yield block


def as_text(ids: list[Id]) -> bytes:
    """Writes ids one a line, so that the number of the line is the position in the iterable.

    A line end behind an id is taken off, because the lines of an open file are ids too. Any other separator would
    make two ids of one object; it is escaped, which makes the object an invalid one that can still be read.
    """
    lines = [one if type(one) is bytes else str(one).encode("utf-8", "surrogatepass") for one in ids]
    text = b"\n".join(lines)
    if b"," in text or b"\r" in text or text.count(b"\n") != len(lines) - 1:
        text = b"\n".join(_escaped(line.removesuffix(b"\n").removesuffix(b"\r")) for line in lines)
    return text + b"\n"


def _escaped(line: bytes) -> bytes:
    return line.replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b",", b"\\x2c")
