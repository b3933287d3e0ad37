"""Groups of tasks that fail as one: with the error that made the others end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["first_error"]


@asynccontextmanager
async def first_error() -> AsyncIterator[None]:
    """Lets the first error of a group of tasks through as itself: the others only followed from it."""
    try:
        yield
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):  # a stage may have a group of its own
            first = first.exceptions[0]
        raise first from group
