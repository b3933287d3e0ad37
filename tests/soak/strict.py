"""The limit as a real server counts it: real processes, real time, answers of up to some seconds, kills in between.

`bulkjobs submit` sends to `bulkjobs simulate` through a road that holds each request up for half of the time that an
answer may take; the service takes the other half to answer. So the server counts a request anywhere between its start
and its end, also after its process was killed. The figures are the service's, and its journal is counted once more.

python -m tests.soak strict
python -m tests.soak strict --seconds 60 --rate 30/3s --answer 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from support.launcher import Launcher, Session
from support.oracle import TOKEN, Oracle

from bulkjobs.settings import Rate, parse_rate
from soak.town import Result

__all__ = ["StrictPlan", "main", "run_strict"]

_CHUNK_IDS: Final = 10
_SPARE: Final = 2
_ENDING_S: Final = 60.0
_SAME_REQUEST_S: Final = 0.2
"""What follows sooner belongs to the request before it."""
_SETTLED_S: Final = 3
"""Windows and answers after a start or a kill in which the use is not measured: the ramp after a lost answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrictPlan:
    """Says what is done."""

    seconds: float = 600.0
    rate: str = "100/10s"
    answer_s: float = 15.0
    """Longest time from a request to its answer."""
    runs: int = 2
    """Processes at a time, which share the account."""
    workers: int = 50
    """Of each."""
    kills: int = 2
    seed: int = 1

    @property
    def limit(self) -> Rate:
        """Is the rate as a value."""
        rate = parse_rate(self.rate)
        assert rate is not None
        return rate


def run_strict(plan: StrictPlan, folder: Path) -> Result:
    """Sends for as long as the plan says and gives what the service counted."""
    began = time.monotonic()
    result = Result(asdict(plan))
    limit = plan.limit
    service = [
        *("--rate", plan.rate, "--lockout", f"{limit.period_s}s", "--lockout-extends"),
        *("--latency", f"0s..{plan.answer_s / 2}s", "--queue-time", "0s", "--job-time", "0s"),
    ]
    with (
        Launcher() as launcher,
        Oracle(folder, *service, most="24h", launcher=launcher) as oracle,
        _Road(oracle.port, plan.answer_s / 2, plan.seed) as road,
    ):
        base_url = urlsplit(oracle.base_url)._replace(netloc=f"127.0.0.1:{road.port}").geturl()
        moments = _send(plan, folder, launcher, base_url, result)
        totals = oracle.totals()
    journal = folder / "books.posts.jsonl"
    posts = [json.loads(line) for line in journal.read_bytes().splitlines()]
    result.figures["requests"] = len(posts)
    result.figures["refused"] = totals["throttled"]
    result.figures["lockouts"] = totals["lockouts"]
    result.figures["fullest_window"] = totals["max_in_window"]
    times = [post["at"] for post in posts]
    result.figures["fullest_window_by_the_journal"] = _fullest(times, limit.period_s)
    _measure_use(plan, times, moments, result)
    if max(totals["max_in_window"], result.figures["fullest_window_by_the_journal"]) > limit.count:
        result.violations.append(f"a window held {totals['max_in_window']} requests, not {limit.count}")
    if totals["lockouts"]:
        result.violations.append(f"the account was locked out {totals['lockouts']} times")
    result.elapsed_s = time.monotonic() - began
    return result


def _send(plan: StrictPlan, folder: Path, launcher: Launcher, base_url: str, result: Result) -> list[float]:
    """Lets the runs send, one of them killed now and then, and gives when all was quiet at first and changed since.

    Returns:
        In Unix seconds: the start, each kill, the end.
    """
    limit = plan.limit
    ids = int(_SPARE * _CHUNK_IDS * limit.count * (plan.seconds / limit.period_s + 1) / plan.runs)

    def start(run: int) -> Session:
        command = [
            *("submit", f"ids-{run}.txt", "--run", f"{run}.run", "--json", "--chunk-size", str(_CHUNK_IDS)),
            *("--base-url", base_url, "--rate", plan.rate, "--max-active-jobs", "none", "--pace", "none"),
            *("--workers", str(plan.workers), "--on-unknown", "hold"),
        ]
        environ = {"BULKJOBS_ACCESS_TOKEN": TOKEN}
        return launcher.start(command, folder=folder, environ=environ, name=f"session-{run}")

    for run in range(plan.runs):
        first = 10**6 * (run + 1)
        (folder / f"ids-{run}.txt").write_text("".join(f"{first + number}\n" for number in range(ids)))
    moments = [time.time()]
    sessions = [start(run) for run in range(plan.runs)]
    for part in range(plan.kills + 1):
        killed = part % plan.runs
        if sessions[killed].wait_at_most(plan.seconds / (plan.kills + 1)):
            told = (folder / f"session-{killed}.err").read_text()[-2000:]
            result.violations.append(f"a session ended by itself: {told}")
            break
        moments.append(time.time())
        if part < plan.kills:
            sessions[killed].send_signal(signal.SIGKILL)
            sessions[killed].wait()
            sessions[killed] = start(killed)
            result.figures["kills"] += 1
    for session in sessions:
        session.send_signal(signal.SIGTERM)
    for session in sessions:
        session.wait(_ENDING_S)
    return moments


def _fullest(times: Sequence[float], window_s: float) -> int:
    """Counts the requests in the fullest window of a journal."""
    within: deque[float] = deque()
    most = 0
    for at in times:
        within.append(at)
        while within[0] <= at - window_s:
            within.popleft()
        most = max(most, len(within))
    return most


def _measure_use(plan: StrictPlan, times: Sequence[float], moments: Sequence[float], result: Result) -> None:
    """Compares what was sent with what a client can send that does not know when a request is counted.

    That is N requests in each W + L seconds, L being the mean time to an answer; see `support.scenarios.optimum`.
    """
    limit = plan.limit
    cycle_s = limit.period_s + plan.answer_s / 2
    per_s = limit.count / cycle_s
    result.figures["use_permille"] = int(1000 * len(times) / (per_s * (moments[-1] - times[0])))
    sent, measured_s = 0, 0.0
    for start, end in pairwise(moments):
        since = start + _SETTLED_S * (cycle_s + plan.answer_s)
        cycles = int(max(0.0, end - since) / cycle_s)
        sent += sum(since <= at < since + cycles * cycle_s for at in times)
        measured_s += cycles * cycle_s
    if measured_s:
        result.figures["use_permille_away_from_kills"] = int(1000 * sent / (per_s * measured_s))


class _Road:
    """Forwards connections to a port, what the client sends only after a time, on a thread of its own."""

    def __init__(self, port: int, most_s: float, seed: int) -> None:
        self._to = port
        self._most_s = most_s
        self._draw = random.Random(seed)
        self._open: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self.port = 0
        """To connect to."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._forward(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            back, on = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(on)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, on, self._most_s))
                group.create_task(self._copy(back, writer, 0.0))
        except* OSError:
            pass  # one of the two is gone
        finally:
            for each in writers:
                each.close()
            for each in writers:
                with suppress(OSError):
                    await each.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most_s: float) -> None:
        """Passes on what comes, what begins a request after a time, until the sender is gone."""
        last = 0.0
        while block := await reader.read(1 << 16):
            if most_s and self._loop.time() > last + _SAME_REQUEST_S:
                await asyncio.sleep(self._draw.uniform(0, most_s))
            writer.write(block)
            await writer.drain()
            last = self._loop.time()
        writer.write_eof()


def main(argv: Sequence[str]) -> int:
    """Runs the plan that the arguments make and gives 1 if the limit was exceeded."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak strict")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", default="100/10s", metavar="N/WINDOW")
    parser.add_argument("--answer", type=float, default=15.0, metavar="S", help="longest time to an answer")
    parser.add_argument("--runs", type=int, default=2, help="processes that share the account")
    parser.add_argument("--workers", type=int, default=50, help="of each")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    plan = StrictPlan(
        seconds=given.seconds,
        rate=given.rate,
        answer_s=given.answer,
        runs=given.runs,
        workers=given.workers,
        kills=given.kills,
        seed=given.seed,
    )
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        result = run_strict(plan, Path(folder))
    print(result.table(), file=sys.stderr)
    print(json.dumps(result.as_dict()))
    return 1 if result.violations else 0
