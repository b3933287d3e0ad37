"""The seams of the engine: what it asks of the world, as protocols.

The real thing, a fake in a test and what a user writes all stand behind the same few methods.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from bulkjobs.model import Evidence, JobRecord, Request, RequestKind

__all__ = ["Clock", "RequestLog", "SeekableSource", "Sink", "Source", "Transport"]


class Clock(Protocol):
    """Tells the wall time. Waiting uses the event loop's own clock, which tests drive by hand."""

    def utc(self) -> float:
        """Gives Unix seconds."""


@runtime_checkable
class Source(Protocol):
    """Yields ids as text, block by block."""

    @property
    def name(self) -> str:
        """Is how records, messages and `invalid.jsonl` call this source; stable between runs."""

    @property
    def repeatable(self) -> bool:
        """Tells whether reading again gives the same bytes. If not, the engine spools what it reads."""

    @property
    def fingerprint(self) -> str | None:
        """Is a cheap mark that changes when the content does (size and time), or None when there is none."""

    @property
    def size_bytes(self) -> int | None:
        """Is how many bytes there are to read, as stored; None when nobody knows."""

    @property
    def position_bytes(self) -> int:
        """Is how many of these bytes were read so far."""

    def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads the source once, from its beginning, as blocks of any size that may end anywhere.

        Raises:
            SourceError: the source cannot be read any further. The blocks before stay valid.
        """


@runtime_checkable
class SeekableSource(Source, Protocol):
    """Is a source that can be read on from where an earlier reading was."""

    @property
    def version(self) -> str | None:
        """Changes whenever the content may have, also where `fingerprint` does not; None when nobody can tell."""

    @property
    def mark(self) -> str | None:
        """Is where the block given last ends, for `blocks_after`; None where the content has no such places."""

    def blocks_after(self, mark: str) -> AsyncGenerator[bytes, None]:
        """Reads on behind a mark of an earlier reading of the same version: exactly the bytes that followed it.

        Raises:
            SourceError: the source cannot be read any further. The blocks before stay valid.
        """


@runtime_checkable
class Sink(Protocol):
    """Takes job records, in the order in which the server accepted the chunks."""

    @property
    def name(self) -> str:
        """Is how the ledger remembers this sink's position."""

    async def open(self, position: int | None, coming: Sequence[JobRecord]) -> int | None:
        """Makes ready to write after `position`, which `open` or the last `write` gave; None at the first time.

        Args:
            position: see above.
            coming: the records that are written again next. Nothing else may stand behind `position`.

        Returns:
            The position now, or None if it keeps none.

        Raises:
            SinkError: it cannot be written, or holds less than `position` says, or something else behind it.
        """

    async def write(self, records: Sequence[JobRecord]) -> int | None:
        """Takes records; what it returns is its new position, or None if it keeps none.

        Guarantees:
            When it returns, the records survive a crash of this process. After a crash in between, the
            same records come again.

        Raises:
            SinkError: the records were not taken.
        """

    async def close(self) -> None:
        """Lets go of what `open` took."""


class Transport(Protocol):
    """Carries one request to the server and brings back what can be proved about it."""

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        """Sends one request once and never raises for what the network or the server does.

        Args:
            request: what to send.
            before_first_byte: awaited when a connection stands and before any byte can leave. If it raises,
                nothing is sent and the exception passes through.

        Returns:
            The evidence, also after time-outs, resets and unreadable answers.

        Raises:
            asyncio.CancelledError: the caller was cancelled; `before_first_byte` tells whether bytes left.
        """


class RequestLog(Protocol):
    """Keeps the account's requests other than submits, so that a restart knows the window."""

    async def begin_request(self, kind: RequestKind) -> int:
        """Records durably that a request is about to leave and gives its number."""

    def end_request(self, number: int, status: int | None) -> None:
        """Records when it ended, without waiting for the disk."""
