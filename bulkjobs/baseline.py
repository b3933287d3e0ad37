"""Which jobs there were before a run: what a lost answer may have made is not among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bulkjobs.account.listing import JobList, JobReader
from bulkjobs.events import BaselineMissing, Event
from bulkjobs.halt import Halt
from bulkjobs.ledger import Ledger
from bulkjobs.ports import Clock

__all__ = ["take_baseline"]

_TRIES: Final = 3
_WAIT_S: Final = 10.0


async def take_baseline(
    reader: JobReader, ledger: Ledger, *, clock: Clock, halt: Halt, emit: Callable[[Event], None]
) -> None:
    """Remembers the jobs there are before the first chunk goes out. Without it there is less to go by, no more.

    A server that cannot be reached is waited for, as the chunks would have to anyway.

    Args:
        reader: asks for jobs.
        ledger: remembers them.
        clock: wall clock.
        halt: ends it between two tries.
        emit: told if there is to be none.

    Raises:
        GateStopped, AuthError, ConfigError: as `JobReader.jobs`.
    """
    tries = 0
    while not halt.pulled:
        now = clock.utc()
        listed = await reader.jobs(now, now)
        if isinstance(listed, JobList):
            await ledger.record_baseline(listed.jobs)
            return
        tries += not listed.unsent
        if tries == _TRIES:
            emit(BaselineMissing(reason=listed.reason))
            return
        await halt.pause(_WAIT_S)
