"""Job records to an async function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bulkjobs.errors import SinkError
from bulkjobs.model import JobRecord

__all__ = ["CallbackSink", "TakesRecord"]

TakesRecord = Callable[[JobRecord], Awaitable[Any]]


class CallbackSink:
    """Calls an async function with one record after the other. Implements `ports.Sink`.

    A record counts as delivered when the function has returned; after a crash before that it comes again, with
    the same `run_id`, `chunk` and `job_id` to tell it by.
    """

    def __init__(self, take: TakesRecord) -> None:
        """Names the function."""
        self.name = f"callback:{getattr(take, '__qualname__', type(take).__name__)}"
        self._take = take

    async def open(self, position: int | None, coming: Sequence[JobRecord] = ()) -> None:
        """Has nothing to prepare."""
        del position, coming

    async def write(self, records: Sequence[JobRecord]) -> None:
        """Calls the function. See `ports.Sink`."""
        for record in records:
            try:
                await self._take(record)
            except Exception as error:
                raise SinkError(
                    f"{self.name} did not take the record of chunk {record.chunk}: {error!r}."
                ) from error

    async def close(self) -> None:
        """Has nothing to let go of."""
