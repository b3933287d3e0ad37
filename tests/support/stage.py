"""A small run over real sockets in which one thing goes wrong, or two: client, proxy, service and judge in one loop."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bulkjobs.api import HttpTransport
from bulkjobs.client import Client
from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.settings import Secret, Settings
from bulkjobs.simulator import FaultPlan, ServiceConfig, SimulatorServer, Span
from support.faults import Exchange, Fault, FaultProxy, Message, Plan, Stage, spoiling
from support.faults.certificates import Certificates
from support.judge import Judgement, judge_run

__all__ = ["CHUNK_IDS", "SESSIONS", "Name", "Names", "Play", "Run", "StepClock"]

CHUNK_IDS: Final = 5
SESSIONS: Final = 4
"""More are never needed: one that holds, one that settles, and one for each stop that a person has to clear away."""
OLDER_ID: Final = 1
"""In a job of somebody else from before the run, so that the list can be seen to reach back that far."""
OLDER_BY_S: Final = 3_600.0
HANGS_S: Final = 0.6
"""Longer than a client waits for a connection here."""
LONG_S: Final = 60.0
"""A pause as long as this is not sat through."""
PAUSE: Final = Halt.pause
NO_TIME: Final = Span(min_s=0.0, max_s=0.0)


class StepClock:
    """Is the system's wall clock, until somebody sets it."""

    step_s = 0.0

    def utc(self) -> float:
        """Gives the time as it is set."""
        return time.time() + self.step_s


Name = Callable[["Run"], int | Exception | None]
"""What a name leads to: a port, an error, or no answer for long."""


@dataclass(frozen=True, kw_only=True)
class Play:
    """Is how a fault class is played in a run. What is left out is sound."""

    wire: Fault | None = None
    """Of the proxy, at a POST or at the connection of one."""
    service: str | None = None
    """Of the service, at a submission."""
    times: int = 1
    """How many submissions in a row the service's fault meets."""
    name: Name | None = None
    """What the name of the server leads to when a connection is made, once or, with `moved`, from then on."""
    moved: bool = False
    step_s: float = 0.0
    """What the wall clock is set to, by so many seconds, when the POST arrives."""
    tls: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    late_s: float = 0.0
    chunks: int = 6
    begins: int = 0
    """By how many POSTs the first place is later than the first POST."""
    ends: int = 0
    """By how many the last place is earlier than the last POST."""
    refused: int = 0
    """Ids that end as refused."""
    stays_held: bool = False
    """The list proves nothing, so nothing is settled."""

    @property
    def lonely(self) -> bool:
        """Tells whether each POST needs a connection of its own, one after the other."""
        return self.name is not None or (self.wire is not None and self.wire.stage is Stage.CONNECT)


async def _answer_and_close(exchange: Exchange, answer: Message) -> None:
    await exchange.send(answer.head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + answer.body)
    await exchange.end()


ONE_POST: Final = spoiling("one_post_a_connection", _answer_and_close)


class Names:
    """Stands in the place of the system's resolver."""

    def __init__(self, run: Run) -> None:
        """Makes one for a run."""
        self._run = run
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, Any]]:
        """Gives the proxy's address, or what is played."""
        self.asked += 1
        for play, at in self._run.plays:
            if play.name is not None and (self.asked == at or (play.moved and self.asked > at)):
                self._run.struck[at] += 1
                found = play.name(self._run)
                if found is None:
                    # As a system's resolver it gives up in the end; until then aiohttp asks no other time.
                    await asyncio.sleep(HANGS_S)
                    raise OSError(socket.EAI_AGAIN, "Temporary failure in name resolution")
                if isinstance(found, Exception):
                    raise found
                port = found or port
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": port,
                "family": family,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]

    async def close(self) -> None:
        """Has nothing to close."""


class Run:
    """Is one run; `go` plays it to its end."""

    def __init__(
        self,
        folder: Path,
        plays: list[tuple[Play, int]],
        *,
        certificates: Certificates | None = None,
        ports: Mapping[str, int] | None = None,
        holds_first: bool = True,
    ) -> None:
        """Writes the source.

        Args:
            folder: an empty one.
            plays: what goes wrong, and at which POST.
            certificates: None for a run without TLS.
            ports: of other servers that a name may lead to.
            holds_first: whether the first session leaves alone what is in doubt, and the next one settles it. Such a
                run does not look at the list of jobs before it begins, so its first chunks could stay held.
        """
        self.plays = plays
        self.ports = dict(ports or {})
        self.struck: Counter[int] = Counter()
        self.sessions: list[int] = []
        """The exit code of each."""
        self.judgements: list[Judgement] = []
        self.certificates = certificates
        self._folder = folder
        self._holds_first = holds_first
        self._clock = StepClock()
        chunks = max(play.chunks for play, _ in plays)
        self.ids = range(70_000_001, 70_000_001 + chunks * CHUNK_IDS)
        self._source = folder / "ids.txt"
        self._source.write_text("".join(f"{one}\n" for one in self.ids))
        self._books = folder / "books"
        self.names = Names(self)

    @property
    def run_dir(self) -> Path:
        """Is the run directory."""
        return self._folder / "the.run"

    @property
    def pause_of(self) -> Callable[[Halt, float], Awaitable[bool]]:
        """Is what stands in the place of `Halt.pause`: the clock goes on by a long pause at once.

        An attempt that ended when the clock had been set ahead takes an hour until two listings prove anything.
        """

        async def pause(halt: Halt, wait_s: float) -> bool:
            if wait_s < LONG_S:
                return await PAUSE(halt, wait_s)
            self._clock.step_s += wait_s
            return not halt.pulled

        return pause

    async def go(self) -> Judgement:
        """Settles what is in doubt, perhaps in a session after the one that holds it; the judge looks after each."""
        rules = [
            f"submit:{play.service}@{at}" + (f"-{at + play.times - 1}" if play.times > 1 else "")
            for play, at in self.plays
            if play.service
        ]
        late_s = max(play.late_s for play, _ in self.plays)
        config: dict[str, Any] = {"job_time": NO_TIME, "faults": FaultPlan.of(*rules, late_s=late_s)}
        for play, _ in self.plays:
            config |= play.config
        async with SimulatorServer(ServiceConfig(books=self._books, **config)) as server:
            server.service.add_foreign([OLDER_ID], self._clock.utc() - OLDER_BY_S)
            tls = self.certificates.server("good") if self.certificates else None
            async with (
                FaultProxy(server.origin, self._plan(), tls=tls) as proxy,
                FaultProxy(server.origin, Plan(every_post=ONE_POST), tls=tls) as elsewhere,
            ):
                self.ports["elsewhere"] = int(elsewhere.origin.rpartition(":")[2])
                await self._sessions(server, proxy)
                assert proxy.errors == elsewhere.errors == []
                self._note(proxy)
        return self.judgements[-1]

    def _plan(self) -> Plan:
        posts: dict[int, Fault] = {}
        connections: dict[int, Fault] = {}
        for play, at in self.plays:
            wire = self._setting_the_clock(play) if play.step_s else play.wire
            if wire is not None:
                (connections if wire.stage is Stage.CONNECT else posts)[at] = wire
        lonely = any(play.lonely for play, _ in self.plays)
        return Plan(posts=posts, connections=connections, every_post=ONE_POST if lonely else None)

    def _setting_the_clock(self, play: Play) -> Fault:
        assert play.wire is not None
        then = play.wire.play

        async def set_it(exchange: Exchange) -> None:
            self._clock.step_s = play.step_s
            await then(exchange)

        return Fault(play.wire.name, set_it)

    async def _sessions(self, server: SimulatorServer, proxy: FaultProxy) -> None:
        settings: dict[str, Any] = {
            "base_url": proxy.through(server.base_url).replace("127.0.0.1", "localhost"),
            "login_url": server.login_url,
            "access_token": Secret("simulator-token"),
            "rate": None, "pace": None, "max_active_jobs": None, "lockout_s": 0.15,
            "chunk_size": CHUNK_IDS, "workers": 1 if any(play.lonely for play, _ in self.plays) else 2,
            "settle_s": 0.05, "request_timeout_s": 10.0, "connect_timeout_s": 5.0, "poll_s": 0.05,
        }  # fmt: skip
        for play, _ in self.plays:
            settle_s = max(settings["settle_s"], play.settings.get("settle_s", 0.0))
            settings |= {**play.settings, "settle_s": settle_s}
        first = "hold" if self._holds_first else "reconcile"
        for on_unknown in (first, *["reconcile"] * (SESSIONS - 1)):
            code = await self._session(Settings(on_unknown=on_unknown, **settings))  # type: ignore[arg-type]
            self.sessions.append(code)
            self.judgements.append(judge_run([self._source], self._books, self.run_dir))
            if on_unknown == "reconcile" and code in (Exit.ACCEPTED, Exit.PARTS_REFUSED, Exit.HELD):
                break

    async def _session(self, settings: Settings) -> int:
        ssl_context = self.certificates.client() if self.certificates else None
        async with (
            HttpTransport(
                connections=settings.workers + 2,
                request_timeout_s=settings.request_timeout_s,
                connect_timeout_s=settings.connect_timeout_s,
                clock=self._clock,
                ssl_context=ssl_context,
            ) as transport,
            Client(settings, run=self.run_dir, transport=transport, clock=self._clock) as client,
        ):
            return (await client.run(self._source)).exit_code

    def _note(self, proxy: FaultProxy) -> None:
        """Notes what of the wire's and the service's faults has struck."""
        journal = Path(f"{self._books}.posts.jsonl").read_text().splitlines()
        booked = {post["number"]: post["fault"] for post in map(json.loads, journal)}
        for play, at in self.plays:
            if play.service:
                self.struck[at] += booked.get(at) == play.service
            elif play.wire is not None and play.wire.stage is Stage.CONNECT:
                self.struck[at] += at <= proxy.connections
            elif play.wire is not None:
                self.struck[at] += at <= len(proxy.posts) and proxy.posts[at - 1].fault == play.wire.name
