"""What tests of programs that embed bulkjobs need: a clock that jumps, and a server without a network.

    def test_a_lock_out_is_waited_out():
        transport = FakeTransport(lambda request: answered(429))
        run_virtual(main(transport))  # five minutes pass in no time

How time passes. On a `VirtualClockLoop` time stands still while anything can be done, and jumps to the next
timer when nothing can. What another thread is working on counts as something that can be done: while such
work is outstanding the loop waits for it in real time, and no time passes on its clock. It knows of that work
because it is told, through `external_work_began` and `external_work_ended`; `run_in_executor`, and with it
`asyncio.to_thread`, tell by themselves, and so does bulkjobs' ledger. Telling was preferred to polling for a
short real time before each jump, which makes every jump slow and a slow disk a failing test.

Sockets are not known to the loop: it would not wait for the peer. Use a loop on real time for them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bulkjobs.model import Evidence, Phase, Request

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from bulkjobs.ports import Clock

__all__ = [
    "EPOCH_UTC",
    "FakeTransport",
    "VirtualClock",
    "VirtualClockLoop",
    "answered",
    "lost",
    "run_virtual",
]

EPOCH_UTC: Final = 1_767_225_600.0
"""Wall time at which virtual clocks begin: 2026-01-01 00:00:00 UTC."""

_T = TypeVar("_T")

_TICK_S: Final = 1e-9
"""Every pass of the loop takes this long. On a clock that stands still, aiolimiter can set a timer for this
very moment again and again, because of rounding, and would never come to an end."""

_STALL_S: Final = 10.0
"""Real time after which a loop gives up that has no timer, no task that can go on and no thread to wait for."""


class _JumpingSelector(selectors.DefaultSelector):
    """Is the loop's clock: where a real selector would sleep until the next timer, this one jumps there."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.external_work = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Far from zero a float no longer has nanoseconds; the clock then takes the smallest step it can.
        self.now_s = max(self.now_s + _TICK_S, math.nextafter(self.now_s, math.inf))
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.external_work:
            return super().select(None)
        if timeout is None:
            return self._wait_for_anything()
        self.now_s += timeout
        return []

    def _wait_for_anything(self) -> list[tuple[selectors.SelectorKey, int]]:
        # A thread that nobody told about may still call in, as at the end of an executor.
        ready = super().select(_STALL_S)
        if not ready:
            raise RuntimeError(
                "Nothing will ever happen: no timer is set, no task can go on, no thread is at work."
            )
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Is an event loop on which waiting takes no time. Its clock begins at 0."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Gives seconds since the loop was made, on its own clock."""
        return self._clock.now_s

    def external_work_began(self) -> None:
        """Stops the clock until `external_work_ended`: a thread is working on something that a task waits for.

        Both are called on the loop's own thread, and count.
        """
        self._clock.external_work += 1

    def external_work_ended(self) -> None:
        """Takes back one `external_work_began`."""
        self._clock.external_work -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., _T], *args: object
    ) -> asyncio.Future[_T]:
        """Runs a function in a thread, while the clock stands still."""
        future = super().run_in_executor(executor, func, *args)
        self.external_work_began()
        future.add_done_callback(lambda _: self.external_work_ended())
        return future


def run_virtual(main: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine to its end on a new `VirtualClockLoop`, as `asyncio.run` does on a real one."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


class VirtualClock:
    """Tells the wall time that belongs to a virtual loop; it is a `ports.Clock`."""

    def __init__(self, epoch_utc: float = EPOCH_UTC) -> None:
        """Makes a clock.

        Args:
            epoch_utc: wall time at the loop's zero, in Unix seconds. Set it to let the wall clock jump.
        """
        self.epoch_utc = epoch_utc

    def utc(self) -> float:
        """Gives Unix seconds. Only inside a running loop."""
        return self.epoch_utc + asyncio.get_running_loop().time()


class FakeTransport:
    """Stands in for the network: a function answers the requests. It is a `ports.Transport`."""

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Evidence] | Evidence],
        *,
        clock: Clock | None = None,
        connect: Callable[[Request], Awaitable[Evidence | None] | Evidence | None] | None = None,
    ) -> None:
        """Makes a transport.

        Args:
            handler: plays the server: gets a request whose bytes have left and gives the evidence, at once or
                after a wait. The transport fills in the times. An exception passes through.
            clock: tells the times of the evidence; a `VirtualClock` if none is given.
            connect: plays the way there: gives None for a connection, or the evidence of having had none.
        """
        self._handler = handler
        self._connect = connect
        self._clock = clock or VirtualClock()
        self.requests: list[Request] = []
        """The requests whose bytes have left, in order."""

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        """Sends one request to the handler; see `ports.Transport`."""
        started_utc = self._clock.utc()
        failure = None if self._connect is None else await _settled(self._connect(request))
        if failure is None:
            if before_first_byte is not None:
                await before_first_byte()
            self.requests.append(request)
            sent_utc = self._clock.utc()
            evidence = await _settled(self._handler(request))
        else:
            sent_utc, evidence = None, failure
        ended_utc = self._clock.utc()
        return dataclasses.replace(
            evidence,
            started_utc=started_utc,
            ended_utc=ended_utc,
            sent_utc=sent_utc,
            answered_utc=None if evidence.status is None else ended_utc,
        )


def answered(
    status: int, body: bytes = b"", *, retry_after: str | None = None, content_type: str = "application/json"
) -> Evidence:
    """Makes the evidence of a complete answer, its times left to the transport."""
    return Evidence(
        phase=Phase.COMPLETE,
        started_utc=0.0,
        ended_utc=0.0,
        status=status,
        retry_after=retry_after,
        content_type=content_type,
        body=body,
        connection_reused=False,
        answer_bytes=len(body),
    )


def lost(error: str = "TimeoutError", *, phase: Phase = Phase.BODY_SENT) -> Evidence:
    """Makes the evidence of a request without an answer, its times left to the transport."""
    return Evidence(phase=phase, started_utc=0.0, ended_utc=0.0, error=error)


async def _settled(value: Awaitable[_T] | _T) -> _T:
    if inspect.isawaitable(value):
        return await value
    return value
