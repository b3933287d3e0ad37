"""The workers of a session: as many as wanted, and how one is taken away without losing what it holds.

A worker sits on a seat, which hands it one item after another. A seat that is taken away while its worker waits for
an item ends at once; one whose worker is busy hands out nothing more, so the worker ends when its item is done.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, Generic, Self, TypeVar

from bulkjobs.errors import ConfigError

__all__ = ["Pool", "Seat", "require_files"]

T = TypeVar("T")

_FILES: Final = 32
"""What a session has open besides a connection for each worker: streams, event loop, ledger, source, sinks."""


def require_files(workers: int) -> None:
    """Passes when this process may open what so many workers need.

    Raises:
        ConfigError: it may not. The event loop would end the process without a word when it lacks one.
    """
    count = _FILES + workers
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < count:
        raise ConfigError(
            f"A session with {workers} workers may have {count} files and connections open, but only {allowed} are "
            "allowed. Allow more with `ulimit -n 1024`, or give fewer --workers."
        )


class Seat(Generic[T]):
    """Hands items to one worker until there are no more, or until the seat is taken away."""

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = items
        self.task: asyncio.Task[None] | None = None
        self.idle = True
        """Its worker holds no item."""
        self.taken_away = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self.idle = True
        if self.taken_away:
            raise StopAsyncIteration
        item = await anext(self._items)
        self.idle = False  # in the same step as the item is taken: nothing can come in between
        return item

    @property
    def in_use(self) -> bool:
        """Tells whether a worker sits on it and may stay."""
        return not self.taken_away and self.task is not None and not self.task.done()


class Pool(Generic[T]):
    """Keeps as many workers at work as are wanted. One pool serves a session, one `run` after another."""

    def __init__(self, size: int) -> None:
        """Makes a pool of so many workers, none of which works yet."""
        self._size = size
        self._seats: list[Seat[T]] = []
        self._add: Callable[[], None] | None = None

    @property
    def size(self) -> int:
        """Is how many workers are wanted."""
        return self._size

    async def run(
        self, work: Callable[[AsyncIterator[T]], Coroutine[Any, Any, None]], items: AsyncIterator[T]
    ) -> None:
        """Lets workers work until all of them have ended, because there are no more items or by themselves.

        Args:
            work: is one worker: takes items until they end. Its exception ends all, in a group.
            items: shared by the workers. Cancelling a wait for the next one must lose nothing.
        """
        try:
            async with asyncio.TaskGroup() as group:

                def add() -> None:
                    seat = Seat(items)
                    worker = work(seat)
                    try:
                        seat.task = group.create_task(worker)
                    except (
                        RuntimeError
                    ):  # one has failed, or all are being cancelled: the others are about to end
                        worker.close()
                        return
                    seat.task.add_done_callback(lambda _: self._seats.remove(seat))
                    self._seats.append(seat)

                self._add = add
                for _ in range(self._size):
                    add()
        finally:
            self._add = None

    def resize(self, size: int) -> None:
        """Changes how many workers are wanted, at once and for whatever runs later.

        Of too many the idle ones end first. Where all are busy, some end when their item is done.
        """
        self._size = size
        in_use = [seat for seat in self._seats if seat.in_use]
        if self._add is None or not in_use:
            return  # what runs has ended, or nothing runs
        if len(in_use) > size:
            self._take_away(sorted(in_use, key=lambda seat: not seat.idle)[: len(in_use) - size])
            return
        missing = size - len(in_use)
        leaving = [seat for seat in self._seats if seat.taken_away and not seat.idle][:missing]
        for seat in leaving:
            seat.taken_away = False
        for _ in range(missing - len(leaving)):
            self._add()

    def cancel(self) -> None:
        """Breaks off what every worker does."""
        for seat in self._seats:
            if seat.task is not None:
                seat.task.cancel()

    @staticmethod
    def _take_away(seats: list[Seat[T]]) -> None:
        for seat in seats:
            seat.taken_away = True
            if seat.idle and seat.task is not None:
                seat.task.cancel()
