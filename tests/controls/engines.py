"""The eight engines, each with a world in which it does harm and in which the real one does none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

from support.simulated import BASE_URL, LOGIN_URL, TOKEN
from support.simulation import Outcome, Scenario, simulate
from support.simulation.network import Network
from support.simulation.process import End, Ending

from bulkjobs._scan import Scanner
from bulkjobs.chunking import Chunker, Cut
from bulkjobs.ledger import Ledger
from bulkjobs.ledger.lock import RunLock
from bulkjobs.ledger.schema import Database, open_for_writing
from bulkjobs.model import Cause, Evidence, NotApplied, Phase, Request, RequestKind, Unknown, Verdict
from bulkjobs.settings import Rate, Secret, Settings
from bulkjobs.simulator import Limit, ServiceConfig, Span
from bulkjobs.verdict import judge

__all__ = ["CONTROLS", "Control", "Findings", "try_control"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Is one broken engine."""

    name: str
    breaks: Callable[[], AbstractContextManager[None]]
    """Breaks every engine that works while the context is entered."""
    scenario: Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Is what was found of the broken engine and of the real one in the same world."""

    control: str
    at_a_step: list[str]
    """Of the broken one: what the watch saw."""
    at_the_end: list[str]
    """Of the broken one: what input, books and files show."""
    by_the_judge: list[str]
    """Of the broken one: what the judge of the soaks and of the crash points says."""
    of_the_real_one: list[str]
    """Anything here is a false alarm, or a bug."""

    @property
    def caught(self) -> bool:
        """Tells whether the broken engine was found out."""
        return bool(self.at_a_step or self.at_the_end)


def try_control(control: Control) -> Findings:
    """Lets the real engine and then the broken one work in the same world, both to the end."""
    real = simulate(control.scenario, to_the_end=True, ask_judge=True)
    with control.breaks():
        broken: Outcome = simulate(control.scenario, to_the_end=True, ask_judge=True)
    return Findings(
        control=control.name,
        at_a_step=[found for found in broken.violations if found not in broken.judged],
        at_the_end=broken.judged,
        by_the_judge=broken.by_the_judge,
        of_the_real_one=real.violations + real.by_the_judge,
    )


_SETTINGS: Final = Settings(
    forecast=False,
    base_url=BASE_URL,
    login_url=LOGIN_URL,
    access_token=Secret(TOKEN),
    rate=None,
    pace=None,
    max_active_jobs=None,
    on_unknown="hold",
    chunk_size=5,
    workers=4,
    request_timeout_s=60.0,
)
_CONFIG: Final = ServiceConfig(latency=Span(min_s=1.0, max_s=4.0), job_time=Span(min_s=0.0, max_s=0.0))
_INPUT: Final = b"".join(b"%d\n" % one for one in range(5_000_001, 5_000_201))
_BASE: Final = Scenario(
    seed=1, files=(_INPUT,), chunk_size=5, settings=_SETTINGS, config=_CONFIG, endings=(), travel_s=0.1
)
_IN_THE_MIDDLE: Final = Ending(how=End.CRASH, step=150, pause_s=60.0)
"""With four requests always on their way, any step is one at which some are."""


@contextmanager
def _retries_on_timeout() -> Iterator[None]:
    def hopeful(evidence: Evidence) -> Verdict:
        verdict = judge(evidence)
        if isinstance(verdict, Unknown) and evidence.status is None:
            return NotApplied(cause=Cause.NOT_PROCESSED, reason="it will not have arrived")
        return verdict

    with mock.patch("bulkjobs.worker.judge", hopeful):
        yield


@contextmanager
def _intends_after_sending() -> Iterator[None]:
    begin, end = Ledger.begin_attempt, Ledger.end_attempt

    async def nothing(_ledger: Ledger, _ordinal: int, _attempt: int) -> None:
        await asyncio.sleep(0)

    async def both_in_turn(
        ledger: Ledger, ordinal: int, attempt: int, evidence: Evidence, verdict: Verdict
    ) -> Verdict:
        if evidence.phase >= Phase.HEADERS_SENT:
            await begin(ledger, ordinal, attempt)
        stands: Verdict = await end(ledger, ordinal, attempt, evidence, verdict)
        return stands

    def both(*arguments: Any) -> asyncio.Future[Verdict]:
        return asyncio.ensure_future(both_in_turn(*arguments))

    with mock.patch.object(Ledger, "begin_attempt", nothing), mock.patch.object(Ledger, "end_attempt", both):
        yield


@contextmanager
def _does_not_sync() -> Iterator[None]:
    def careless(path: Path, check: Callable[..., None]) -> Database:
        database = open_for_writing(path, check)
        database.execute("PRAGMA synchronous = OFF")
        return database

    with mock.patch("bulkjobs.ledger.keeper.open_for_writing", careless):
        yield


@contextmanager
def _sends_again_after_a_crash() -> Iterator[None]:
    def forgets(database: Database, now: float) -> tuple[int, int]:
        database.execute("UPDATE session SET ended_utc = started_utc WHERE ended_utc IS NULL")
        database.execute("UPDATE attempt SET verdict = 'not_applied', reason = '' WHERE verdict IS NULL")
        database.execute("UPDATE chunk SET state = 'planned' WHERE state = 'sending'")
        number = database.execute("INSERT INTO session (started_utc) VALUES (?)", (now,)).lastrowid
        assert number is not None
        return number, 0

    with mock.patch("bulkjobs.ledger.ledger._begin_session", forgets):
        yield


class _BloomScanner:
    """Takes an id for a duplicate when its three bits are set, by whatever ids."""

    def __init__(self, size: int, *, dedupe: bool, opaque: bool, file: int = -1) -> None:
        self._scanner = Scanner(size, dedupe=dedupe, opaque=opaque, file=file)
        self._bits: set[int] = set()
        self._met: dict[int, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scanner, name)

    def scan(self, text: bytes, start: int, end: int) -> Any:
        return self._scanner.scan(text[:start] + re.sub(rb"\d+", self._seen, text[start:end]), start, end)

    def _seen(self, found: re.Match[bytes]) -> bytes:
        """Puts an id of the same length that was really met in the place of one that seems to have been."""
        one = found[0]
        bits = {hash((one, salt)) % 1024 for salt in range(3)}
        if bits <= self._bits:
            return self._met.get(len(one), one)
        self._bits |= bits
        self._met[len(one)] = one
        return one


@contextmanager
def _approximates_duplicates() -> Iterator[None]:
    with mock.patch("bulkjobs.chunking.Scanner", _BloomScanner):
        yield


@contextmanager
def _follows_redirects() -> Iterator[None]:
    """As HTTP libraries do unless they are told not to: 307 and 308 with the body, the others as a GET."""
    send = Network.request

    async def follow(
        network: Network, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        evidence = await send(network, request, before_first_byte=before_first_byte)
        if request.kind is not RequestKind.SUBMIT or evidence.status not in (301, 302, 303, 307, 308):
            return evidence
        if evidence.status in (307, 308):
            return await send(network, request)
        # What another service has at such an address looks like success.
        found = b'{"jobId": "elsewhere%d", "status": "accepted", "type": "contacts"}' % len(
            network._watch.made
        )
        return replace(evidence, status=200, content_type="application/json", body=found)

    with mock.patch.object(Network, "request", follow):
        yield


@contextmanager
def _drops_the_last_line() -> Iterator[None]:
    def end(chunker: Chunker) -> Cut:
        chunker._rest = b""
        return Cut()

    with mock.patch.object(Chunker, "end", end):
        yield


@contextmanager
def _takes_no_lock() -> Iterator[None]:
    def take(_lock: RunLock, _run_dir: Path) -> None:
        """Leaves the file unlocked."""

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(RunLock, "_take", take))
        stack.enter_context(mock.patch("bulkjobs.sinks.jsonl.fcntl.flock"))
        yield


CONTROLS: Final[Sequence[Control]] = (
    Control(
        name="sends again after a time-out",
        breaks=_retries_on_timeout,
        scenario=replace(_BASE, script={3: "timeout", 9: "reset_after"}),
    ),
    Control(
        name="records the intent after sending",
        breaks=_intends_after_sending,
        scenario=replace(_BASE, endings=(_IN_THE_MIDDLE,)),
    ),
    Control(
        name="does not sync the ledger",
        breaks=_does_not_sync,
        scenario=replace(
            _BASE,
            endings=(
                Ending(how=End.DRAIN, step=150, pause_s=60.0),
                Ending(how=End.POWER, step=44, pause_s=60.0),
            ),
        ),
    ),
    Control(
        name="sends again what was in flight at a crash",
        breaks=_sends_again_after_a_crash,
        scenario=replace(_BASE, endings=(_IN_THE_MIDDLE,)),
    ),
    Control(name="approximates duplicates", breaks=_approximates_duplicates, scenario=_BASE),
    Control(
        name="follows redirects",
        breaks=_follows_redirects,
        scenario=replace(_BASE, script={3: "http302_before", 8: "http303_after", 12: "http307_before"}),
    ),
    Control(
        name="drops a last line without an end",
        breaks=_drops_the_last_line,
        scenario=replace(_BASE, files=(_INPUT, _INPUT.replace(b"500", b"600")[:-1])),
    ),
    Control(
        name="lets a second process work on the run",
        breaks=_takes_no_lock,
        scenario=replace(
            _BASE,
            settings=replace(_SETTINGS, rate=Rate(count=8, period_s=60.0)),
            config=replace(_CONFIG, rate=Limit(count=8, window_s=60.0)),
            second_after_s=10.0,
        ),
    ),
)
