"""The permit for one request: what the gate gives, and what is reported on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from bulkjobs.errors import BulkJobsError
from bulkjobs.throttle import Outcome

if TYPE_CHECKING:
    from types import TracebackType

    from bulkjobs.account.gate import Gate
    from bulkjobs.throttle import Ticket

__all__ = ["GateStopped", "Permit", "PermitWithdrawn"]


class GateStopped(BulkJobsError):  # noqa: N818 - a condition that the caller handles, not a fault
    """Says that no request of this kind is let through any more. Nothing was sent."""


class PermitWithdrawn(BulkJobsError):  # noqa: N818 - as above
    """Says that a lock-out began after the request was admitted and before it began. Nothing was sent."""


class Permit:
    """Allows one request. Report its end as soon as it is known, once; leaving without a report is `lost`.

        with await gate.admit(RequestKind.SUBMIT) as permit:
            ...  # the request; `permit.check()` right before its first byte
            permit.answered()
            permit.outcome_known()
            permit.job_opened(job_id)

    A submit's slot is given back on leaving, unless `job_opened` made an open job of it, or the permit was passed on.
    """

    __slots__ = ("_alone", "_gate", "_passed_on", "_ticket")

    def __init__(self, gate: Gate, ticket: Ticket, *, alone: bool) -> None:
        self._gate = gate
        self._ticket = ticket
        self._alone = alone
        """It is for the one submit that tries alone, and its outcome was not reported yet."""
        self._passed_on = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._passed_on:
            self._passed_on = False
            return
        if self._ticket.in_flight:
            self.lost()
        self._gate._settle(self._ticket, alone=self._alone)  # noqa: SLF001 - a permit is a part of its gate

    def pass_on(self) -> Self:
        """Leaves it to somebody else, who enters it again, to give the permit back: leaving it now does not."""
        self._passed_on = True
        return self

    def check(self) -> None:
        """Passes if the request may still begin. To be called when everything is ready for its first byte.

        Raises:
            PermitWithdrawn: a lock-out has begun since; report `not_sent` and ask for another permit.
        """
        if not self._gate._may_send():  # noqa: SLF001 - as above
            raise PermitWithdrawn("The account was locked out after this request was admitted.")

    def not_sent(self) -> None:
        """Reports that no byte left; the token is free at once."""
        self._gate._end(self._ticket, Outcome.NOT_SENT)  # noqa: SLF001 - as above

    def answered(self) -> None:
        """Reports that the server answered something other than a throttle."""
        self._gate._end(self._ticket, Outcome.ANSWERED)  # noqa: SLF001 - as above

    def lost(self) -> None:
        """Reports that we gave up on an answer: the server may still count the request."""
        self._gate._end(self._ticket, Outcome.UNKNOWN_END)  # noqa: SLF001 - as above

    def throttled(self, retry_after_s: float | None, reason: str) -> None:
        """Reports a throttle answer, which closes the gate for the whole account.

        Args:
            retry_after_s: the wait the server asked for; None if it asked for none.
            reason: what it said, for people.
        """
        self._gate._end(self._ticket, Outcome.THROTTLED, retry_after_s, reason)  # noqa: SLF001 - as above

    def outcome_known(self) -> None:
        """Reports that the outcome of a submission is known, whatever it is."""
        alone, self._alone = self._alone, False
        self._gate._known(alone=alone)  # noqa: SLF001 - as above

    def outcome_unknown(self) -> None:
        """Reports that the outcome of a submission is unknown; too many of them stop submits."""
        alone, self._alone = self._alone, False
        self._gate._unknown(alone=alone)  # noqa: SLF001 - as above

    def job_opened(self, job_id: str) -> None:
        """Turns the slot of a submit into an open job, and reports the answer if that was not done."""
        if self._ticket.in_flight:
            self.answered()
        self._gate._open_job(self._ticket, job_id)  # noqa: SLF001 - as above
