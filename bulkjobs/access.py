"""The way to the server, as the last session of the run left it: gate, token, transport, and who asks for jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bulkjobs.account.auth import Authenticator, authenticator_from
from bulkjobs.account.gate import Gate
from bulkjobs.account.joining import open_throttle
from bulkjobs.account.listing import JobReader
from bulkjobs.api import HttpTransport
from bulkjobs.endpoints import Endpoint
from bulkjobs.events import Event
from bulkjobs.halt import Halt
from bulkjobs.ledger import Ledger, OpenJob
from bulkjobs.polling import DURATIONS_KEPT
from bulkjobs.ports import Clock, Transport
from bulkjobs.settings import MOST_WORKERS, Settings
from bulkjobs.throttle import GRACE_S, Throttle
from bulkjobs.tracker import Tracker

__all__ = ["Access", "open_access"]

_SPARE_CONNECTIONS: Final = 8
"""Beside those of as many workers as there can ever be: no request waits for a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Holds what stands between the stages and the server."""

    gate: Gate
    auth: Authenticator
    transport: Transport
    reader: JobReader
    tracker: Tracker | None
    """None without a limit on open jobs: nobody waits for one to end."""

    def on_job(self, job_id: str) -> None:
        """Has the end of a job watched for, if anybody waits for one."""
        if self.tracker is not None:
            self.tracker.add(job_id)


@asynccontextmanager
async def open_access(
    settings: Settings,
    endpoint: Endpoint,
    ledger: Ledger,
    *,
    run_id: str,
    transport: Transport | None,
    clock: Clock,
    halt: Halt,
    emit: Callable[[Event], None],
    uniform: Callable[[], float],
    probe: bool,
) -> AsyncIterator[Access]:
    """Opens the way to the server, with everything the ledger knows of the account.

    Args:
        settings: checked values.
        endpoint: kind of job.
        ledger: of the run.
        run_id: of the run.
        transport: carries requests; None makes the real one.
        clock: wall clock.
        halt: pulled when there is no token.
        emit: told of waits and changes.
        uniform: gives numbers in [0, 1) for waits.
        probe: the first request goes alone.
    """
    async with AsyncExitStack() as stack:
        throttle = await stack.enter_async_context(
            open_throttle(settings, run_id, ledger.session, clock=clock, emit=emit)
        )
        gate, open_jobs = await _gate(settings, ledger, throttle, clock=clock, emit=emit, probe=probe)
        if transport is None:
            transport = await stack.enter_async_context(
                HttpTransport(
                    connections=MOST_WORKERS + _SPARE_CONNECTIONS,
                    request_timeout_s=settings.request_timeout_s,
                    connect_timeout_s=settings.connect_timeout_s,
                    clock=clock,
                )
            )
        auth = authenticator_from(
            settings,
            gate=gate,
            transport=transport,
            request_log=ledger,
            observer=emit,
            clock=clock,
            uniform=uniform,
        )
        tracker = None
        if settings.max_active_jobs is not None:
            tracker = Tracker(
                endpoint,
                base_url=settings.base_url,
                accept=settings.accept,
                poll_s=settings.poll_s,
                gate=gate,
                auth=auth,
                transport=transport,
                ledger=ledger,
                clock=clock,
                halt=halt,
                emit=emit,
            )
            tracker.resume(open_jobs, await ledger.job_durations(DURATIONS_KEPT))
        reader = JobReader(
            endpoint,
            base_url=settings.base_url,
            accept=settings.accept,
            gate=gate,
            auth=auth,
            transport=transport,
            request_log=ledger,
            clock=clock,
        )
        yield Access(gate=gate, auth=auth, transport=transport, reader=reader, tracker=tracker)
        gate.close()


async def _gate(
    settings: Settings,
    ledger: Ledger,
    throttle: Throttle,
    *,
    clock: Clock,
    emit: Callable[[Event], None],
    probe: bool,
) -> tuple[Gate, list[OpenJob]]:
    """Makes the gate as the last session left it; `probe`: its first request goes alone."""
    gate = Gate(
        throttle,
        pace=settings.pace,
        clock=clock,
        observer=emit,
        on_lockout=ledger.lockout,
        on_limit=ledger.learn_limit,
    )
    window_s = settings.rate.period_s if settings.rate is not None else 0.0
    # What began, or ended, longer ago than this cannot count any more.
    counts_s = window_s + settings.request_timeout_s + GRACE_S
    state = await ledger.account_state(clock.utc() - counts_s)
    gate.restore(
        history_utc=state.history,
        locked_until_utc=state.locked_until_utc,
        # One of the answers that died with the process may have been a throttle, to a submission or to another.
        suspect=probe or any(ended_utc is None for _, ended_utc in state.history),
        learned_limit=state.learned_limit,
        open_jobs=[job.job_id for job in state.open_jobs],
    )
    return gate, state.open_jobs
