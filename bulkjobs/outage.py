"""Asks whether the server answers, while submits are stopped for unknown outcomes.

The question is one page of the job list. It costs nothing, and goes through the gate like every request, so that the
window and a lock-out hold for it. What an answer means is decided in `breaker`.
"""

from __future__ import annotations

from bulkjobs.account.gate import Gate, GateStopped
from bulkjobs.account.listing import JobReader
from bulkjobs.errors import AuthError, ConfigError
from bulkjobs.exits import Exit
from bulkjobs.halt import Halt

__all__ = ["watch_outages"]


async def watch_outages(gate: Gate, reader: JobReader, halt: Halt) -> None:
    """Asks each time it is due, until it is cancelled or nothing can be asked any more.

    Args:
        gate: tells when a question is due, and is told the answer.
        reader: asks.
        halt: pulled when there is no token to ask with.
    """
    while True:
        await gate.question_due()
        try:
            trouble = await reader.trouble()
        except GateStopped:
            return
        except AuthError as error:
            halt.pull(Exit.STOPPED, str(error))
            return
        except ConfigError as error:  # the file of the token cannot be read
            halt.pull(Exit.USAGE, str(error))
            return
        gate.question_answered(trouble)
