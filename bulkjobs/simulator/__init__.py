"""A simulated InsideView bulk-job service, for tests, demonstrations and benchmarks.

It shares no code with the client. In a test, over a socket:

    async with SimulatorServer(ServiceConfig(max_active_jobs=2, faults=FaultPlan.of("reset_after=0.01"))) as server:
        ...                                # talk to server.base_url with the token "simulator-token"
        assert server.service.totals()["repeated_bodies"] == 0

or without one, on a clock of your own, with no aiohttp loaded:

    with Service(ServiceConfig(rate=Limit(count=1000, window_s=300))) as service:
        reply = service.handle(SimRequest(method="POST", path="/api/v1/contact/job", ...), now=0.0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkjobs.simulator.config import Limit, ServiceConfig, Span
from bulkjobs.simulator.faults import FaultPlan, FaultRule
from bulkjobs.simulator.messages import Kind, SimReply, SimRequest, Wire
from bulkjobs.simulator.service import Service

if TYPE_CHECKING:
    from bulkjobs.simulator.server import SimulatorServer

__all__ = [
    "FaultPlan",
    "FaultRule",
    "Kind",
    "Limit",
    "Service",
    "ServiceConfig",
    "SimReply",
    "SimRequest",
    "SimulatorServer",
    "Span",
    "Wire",
]


def __getattr__(name: str) -> object:
    # PEP 562: a virtual-clock test of the service does not pay for loading aiohttp.
    if name == "SimulatorServer":
        from bulkjobs.simulator.server import SimulatorServer  # noqa: PLC0415 - see above

        return SimulatorServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
