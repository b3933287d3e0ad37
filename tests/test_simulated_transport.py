"""The transport without a socket gives the evidence that the real one gives for the same fault."""

from __future__ import annotations

import asyncio

import pytest
from support.simulated import BASE_URL, TOKEN, SimulatedTransport

from bulkjobs.api import HttpTransport
from bulkjobs.clock import SystemClock
from bulkjobs.endpoints import endpoint_named
from bulkjobs.model import Evidence, Request
from bulkjobs.ports import Transport
from bulkjobs.simulator import FaultPlan, Service, ServiceConfig, SimulatorServer
from bulkjobs.testing import VirtualClock, run_virtual
from bulkjobs.verdict import judge
from bulkjobs.wire.request import submit_request

FAULTS = (
    "reset_before",
    "reset_after",
    "close_after",
    "cut_after",
    "html_before",
    "http503_after",
    "mislabel_after",
)


def submission(base_url: str) -> Request:
    return submit_request(
        endpoint_named("contacts"), base_url=base_url, body=b"1\n2", token=TOKEN, accept="json", webhook=None
    )


async def nothing() -> None:
    pass


async def over_a_socket(config: ServiceConfig) -> Evidence:
    transport = HttpTransport(
        connections=1, request_timeout_s=5.0, connect_timeout_s=5.0, clock=SystemClock()
    )
    async with SimulatorServer(config) as server, transport:
        return await transport.request(submission(server.base_url), before_first_byte=nothing)


async def without_one(config: ServiceConfig) -> Evidence:
    with Service(config) as service:
        transport: Transport = SimulatedTransport(service, clock=VirtualClock())
        return await transport.request(submission(BASE_URL), before_first_byte=nothing)


def told(evidence: Evidence) -> tuple[object, ...]:
    """Gives what decides: how far it got and when, what came, which class of error, and the verdict."""
    error = None if evidence.error is None else evidence.error.partition(":")[0]
    # aiohttp's reader meets a reset while it still writes or when it reads, as the system likes.
    error = "reset" if error in ("ClientOSError", "ClientConnectionResetError") else error
    media_type = (evidence.content_type or "").partition(";")[0]  # a charset may be named on the wire
    times = (evidence.sent_utc is None, evidence.answered_utc is None)
    answer = (evidence.status, media_type, evidence.body, evidence.answer_bytes)
    return evidence.phase, answer, times, error, type(judge(evidence))


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_the_evidence_is_that_of_the_real_transport(fault: str | None) -> None:
    config = ServiceConfig(faults=FaultPlan.of(*([f"submit:{fault}@1"] if fault else [])))
    real = asyncio.run(over_a_socket(config))
    simulated = run_virtual(without_one(config))
    assert told(simulated) == told(real)
