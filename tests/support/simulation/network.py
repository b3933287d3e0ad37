"""The network between one process and the simulated service, with whatever can happen to a request on its way.

What has left goes on alone: a request arrives whether or not anybody still waits for its answer, or lives. Which
fault a request meets is drawn when it is made. How it then looks is the evidence that `HttpTransport` gives for the
same thing on a wire.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from bulkjobs.model import Evidence, Phase, Request, RequestKind
from bulkjobs.ports import Clock
from bulkjobs.simulator import Service, SimReply, Wire
from bulkjobs.simulator.answers import error_answer, render
from bulkjobs.simulator.faults import Effect, Fault, spoil
from bulkjobs.simulator.messages import Refusal
from support.simulated import as_seen
from support.simulation.process import Process
from support.simulation.scenario import Scenario
from support.simulation.watch import Watch

__all__ = ["Internet", "Network"]

_UNSENT: Final = {
    "unsent_name": (Phase.STARTED, "ClientConnectorDNSError: Cannot connect: name not known"),
    "unsent_refused": (Phase.STARTED, "ClientConnectorError: Cannot connect: connection refused"),
    "unsent_tls": (Phase.CONNECTED, "ClientConnectorCertificateError: certificate has expired"),
}
_LOST: Final = {
    "lost_headers": (Phase.HEADERS_SENT, "ClientOSError: [Errno 32] Broken pipe"),
    "lost_body": (Phase.BODY_SENT, "ClientOSError: [Errno 104] Connection reset by peer"),
}
_ANSWERS: Final = {
    "bad_ids": Refusal(400, "400-108", "Illegal values for the field contactId."),
    "no_quota": Refusal(400, "400-153", "Insufficient transaction quota. The job needs 9, 3 remain."),
    "slots_full": Refusal(400, "400-152", "2 jobs are already running. Please try again later."),
}
"""What the service says in earnest, without having made a job."""

_SPOILT: Final = (
    *(
        "reset_after",
        "close_after",
        "cut_after",
        "html_before",
        "html_after",
        "error200_before",
        "error200_after",
    ),
    *(
        "mislabel_after",
        "http500_before",
        "http500_after",
        "http502_before",
        "http503_after",
        "http504_after",
    ),
    *(
        "http301_before",
        "http302_before",
        "http307_before",
        "http308_before",
        "http303_before",
        "http303_after",
    ),
    *(
        "http400_before",
        "http401_before",
        "http403_before",
        "http404_before",
        "http408_after",
        "http409_before",
    ),
    *("http413_before", "http421_before", "http425_before", "http429_before", "http520_after"),
)
"""Faults of `simulator.faults`. A redirect that was applied, or a refusal, would contradict itself."""

_SUBMIT: Final = (*_UNSENT, *_LOST, *_ANSWERS, *_SPOILT, *("slow", "slow", "stale", "expire"))
_OTHER: Final = (
    *(
        *_UNSENT,
        *_LOST,
        "reset_after",
        "close_after",
        "cut_after",
        "html_before",
        "http500_before",
        "slow",
        "stale",
    ),
    *("http401_before", "http404_before", "http429_before", "http503_before"),
)
_NO_ANSWER: Final = {
    Wire.RESET: "ClientOSError: [Errno 104] Connection reset by peer",
    Wire.CLOSE: "ServerDisconnectedError: Server disconnected",
}
_CUT: Final = "ClientPayloadError: Response payload is not completed"


class Internet:
    """Is what outlives every process: the service, its time, and the faults that are left."""

    def __init__(
        self, scenario: Scenario, service: Service, watch: Watch, server_utc: Callable[[], float]
    ) -> None:
        self.service = service
        self.watch = watch
        self.server_utc = server_utc
        """The service's own clock, which nobody sets."""
        self.travel_s = scenario.travel_s
        self.timeout_s = scenario.settings.request_timeout_s
        self.faults_left = scenario.faults
        self._share = scenario.fault_share
        self._script = scenario.script
        self._submissions = 0
        self.draw = random.Random(f"network/{scenario.seed}")
        self.answered: list[tuple[bytes, SimReply]] = []
        """Bodies and answers of submissions that reached a client whole."""

    def fault_of(self, kind: RequestKind) -> str | None:
        """Draws what happens to the next request, None for nothing."""
        if kind is RequestKind.SUBMIT:
            self._submissions += 1
            if self._submissions in self._script:
                return self._script[self._submissions]
        if not self.faults_left or self.draw.random() >= self._share:
            return None
        self.faults_left -= 1
        return self.draw.choice(_SUBMIT if kind is RequestKind.SUBMIT else _OTHER)

    def expire_tokens(self) -> None:
        """Ends every token that a login gave."""
        self.service._tokens.expire(self.server_utc())


class Network:
    """Carries the requests of one process. Implements `ports.Transport`."""

    def __init__(self, internet: Internet, process: Process, clock: Clock) -> None:
        self._internet = internet
        self._watch = internet.watch
        self._process = process
        self._clock = clock
        self._draw = internet.draw

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        """Sends one request; see `ports.Transport`."""
        started_utc = self._clock.utc()
        fault = self._internet.fault_of(request.kind) if self._process.alive else None
        await self._pass(self._draw.choice([0.0, 0.0, 0.05, 1.0]))
        if fault in _UNSENT:
            phase, error = _UNSENT[fault]
            return self._evidence(started_utc, phase, error=error)
        if before_first_byte is not None:
            await before_first_byte()
        await self._still_alive("the first byte may leave")
        self._watch.leaves(self._process, request, fault)
        answer = self._send(request, fault)
        self._process.step("the request has left")
        try:
            async with asyncio.timeout(self._internet.timeout_s):
                reply, known = await answer
        except TimeoutError:
            reply, known = None, None
        await self._still_alive("the answer is here")
        self._watch.returns(self._process, request, reply)
        if reply is None:
            phase, error = _LOST.get(fault or "", (Phase.BODY_SENT, "TimeoutError"))
            return self._evidence(started_utc, phase, error=error)
        # A refusal is not kept: given to another request it would be taken for proof, and nobody could tell. That it
        # cannot come is the transport's doing, which has a fresh connection for each request.
        if known and request.kind is RequestKind.SUBMIT and reply.status == HTTPStatus.OK:
            self._internet.answered.append((request.body, reply))
        return self._read(reply, started_utc)

    async def _pass(self, wait_s: float) -> None:
        if self._process.alive:
            await asyncio.sleep(wait_s)
        await self._still_alive("a connection stands")

    async def _still_alive(self, where: str) -> None:
        """Takes a step; the tasks of a process that has crashed stay here."""
        self._process.step(where)
        if not self._process.alive:
            await asyncio.get_running_loop().create_future()

    def _send(self, request: Request, fault: str | None) -> asyncio.Future[tuple[SimReply | None, bool]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[SimReply | None, bool]] = loop.create_future()
        travel_s = self._draw.random() * self._internet.travel_s
        if fault in _LOST:
            loop.call_later(travel_s, self._answer, answer, None, False)
        else:
            self._watch.travels(request)
            loop.call_later(travel_s, self._arrive, request, fault, answer)
        return answer

    def _arrive(
        self, request: Request, fault: str | None, answer: asyncio.Future[tuple[SimReply | None, bool]]
    ) -> None:
        internet = self._internet
        if fault == "expire":
            internet.expire_tokens()
        reply = self._handled(request, fault)
        delay_s = reply.delay_s
        known = fault is None and reply.wire is Wire.ANSWER
        if fault == "timeout":
            delay_s = 2 * internet.timeout_s
        elif fault == "slow":
            delay_s = self._draw.choice([0.9, 1.1, 3.0]) * internet.timeout_s
        elif fault == "stale":
            # Only what the ledger has: the answer to a request that was given up on cannot be told from the right one.
            earlier = [old for body, old in internet.answered if self._watch.knows_job_of(body)]
            reply = self._draw.choice(earlier) if earlier else replace(reply, wire=Wire.RESET)
        asyncio.get_running_loop().call_later(delay_s, self._answer, answer, reply, known)

    def _handled(self, request: Request, fault: str | None) -> SimReply:
        """Lets the service have the request, unless the fault means that it never does, and spoils the answer."""
        internet, seen = self._internet, as_seen(request)
        spoilt = Fault.parse(fault) if fault in _SPOILT else None
        said = _ANSWERS.get(fault or "")
        if said is not None:
            self._watch.arrives(request, made=None, counted=False)
            return render(error_answer(said, "simulation"), as_json=seen.wants_json, status=said.status)
        if spoilt is not None and spoilt.effect is Effect.BEFORE:
            self._watch.arrives(request, made=None, counted=False)
            empty = SimReply(status=200, body=b"", content_type="text/plain")
            return spoil(spoilt, empty, request=seen, slow_s=0.0, diagnostic_code="simulation")
        books = internet.service._books
        before = books.jobs
        reply = internet.service.handle(seen, internet.server_utc())
        self._watch.arrives(request, made=books.last_job_id if books.jobs > before else None, counted=True)
        if spoilt is not None:
            delay_s = reply.delay_s
            reply = spoil(spoilt, reply, request=seen, slow_s=0.0, diagnostic_code="simulation")
            reply = replace(reply, delay_s=delay_s)
        return reply

    @staticmethod
    def _answer(
        answer: asyncio.Future[tuple[SimReply | None, bool]], reply: SimReply | None, known: bool
    ) -> None:
        if not answer.done():
            answer.set_result((reply, known))

    def _read(self, reply: SimReply, started_utc: float) -> Evidence:
        error = _NO_ANSWER.get(reply.wire)
        if error is not None:
            return self._evidence(started_utc, Phase.BODY_SENT, error=error)
        cut = reply.wire is Wire.CUT
        return replace(
            self._evidence(
                started_utc, Phase.STATUS_READ if cut else Phase.COMPLETE, error=_CUT if cut else None
            ),
            status=reply.status,
            retry_after=dict(reply.headers).get("Retry-After"),
            content_type=reply.content_type,
            body=reply.body[: len(reply.body) // 2] if cut else reply.body,
        )

    def _evidence(self, started_utc: float, phase: Phase, *, error: str | None) -> Evidence:
        return Evidence(
            phase=phase,
            started_utc=started_utc,
            ended_utc=self._clock.utc(),
            error=error,
            connection_reused=None if phase is Phase.STARTED else False,
        )
