"""The client without its shell: the pure controller, workers that always have a chunk, and who asks for jobs.

What the gate, the worker, the ledger and the opening of a session do with the controller is done here by the same
rules and in the same order, one event after the other. A killed process leaves what its ledger would know.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from bulkjobs.model import RequestKind
from bulkjobs.polling import Question
from bulkjobs.settings import Settings
from bulkjobs.throttle import GRACE_S, Admit, Outcome, Throttle, Ticket
from support.scenarios.loop import Loop
from support.scenarios.polls import Polls
from support.scenarios.scenario import Event, Scenario
from support.scenarios.service import Answer, Said, Server

__all__ = ["Client", "MakeThrottle", "make_throttle"]

MakeThrottle = Callable[[Settings], Throttle]

_LATE: Final = 0.99
_EARLY: Final = 0.01
"""Of the time between start and end. Not the very ends: what lies a window apart to the last bit of a float is
counted in either."""


def make_throttle(settings: Settings) -> Throttle:
    """Makes the controller as a session does."""
    return Throttle(
        rate=settings.rate,
        lockout_s=settings.effective_lockout_s,
        max_active_jobs=settings.max_active_jobs,
    )


class _Request:
    """Is one request on its way, and afterwards what the ledger knows of it."""

    __slots__ = (
        "answer",
        "begun_at",
        "begun_utc",
        "counted_at",
        "ended_utc",
        "ends_at",
        "kind",
        "lost",
        "process",
        "question",
        "ticket",
    )  # fmt: skip

    def __init__(
        self, process: _Process, kind: RequestKind, ticket: Ticket, question: Question | None
    ) -> None:
        self.process = process
        self.kind = kind
        self.ticket = ticket
        self.question = question
        self.begun_at = self.counted_at = self.ends_at = 0.0
        self.lost = False
        """The client gives up before the answer is there."""
        self.answer: Answer | None = None
        self.begun_utc = 0.0
        self.ended_utc: float | None = None


class _Process:
    """Is one client process."""

    __slots__ = ("alive", "free_workers", "in_flight", "polls")

    def __init__(self, workers: int, polls: Polls) -> None:
        self.alive = True
        self.free_workers = workers
        self.polls = polls
        self.in_flight: set[_Request] = set()


class Client:
    """Is every client of the account under test: usually one process at a time."""

    def __init__(
        self,
        scenario: Scenario,
        loop: Loop,
        server: Server,
        chunks: int,
        *,
        make: MakeThrottle,
        polls: type[Polls],
    ) -> None:
        """Makes a client that is not running yet.

        Args:
            scenario: what it is told and what happens to its requests.
            loop: time.
            server: takes the requests.
            chunks: how many there are to be sent.
            make: makes a controller, for each process that finds none.
            polls: who asks for open jobs.
        """
        self._scenario = scenario
        self._settings = scenario.settings
        self._loop = loop
        self._server = server
        self._make = make
        self._polls = polls
        self._left = chunks
        self._unsettled = chunks
        self._draw = random.Random(f"network/{scenario.seed}")
        self._throttle = make(scenario.settings)
        self._processes: list[_Process] = []
        self._open: dict[str, tuple[float, _Process]] = {}
        """When each open job was accepted, and by whom."""
        self._wake_at = math.inf
        self._restarts: deque[Event] = deque()
        self._begun = 0
        # What the disk holds.
        self._wall_s = 0.0
        """How far the wall clock has been set."""
        self._history: deque[_Request] = deque()
        rate = scenario.settings.rate
        self._counts_s = (
            (0.0 if rate is None else rate.period_s) + scenario.settings.request_timeout_s + GRACE_S
        )
        """What began, or ended, longer ago than this cannot count any more."""
        self._kept_s = self._counts_s + max((abs(event.by_s) for event in scenario.events), default=0.0)
        self._locked_out_utc: tuple[float, float] | None = None
        """From when it was known to last until when."""
        self._learned: int | None = None
        self._durations_s: deque[float] = deque(maxlen=64)
        # What is reported.
        self.finished_at: float | None = None
        self.restarts = 0
        self.requests: dict[RequestKind, int] = dict.fromkeys(RequestKind, 0)
        self.token_s = 0.0
        """Of all requests together, from start to end."""

    def start(self) -> None:
        """Starts every process."""
        for _ in range(self._scenario.processes):
            self._processes.append(self._new_process())
        self._pump()

    def kill(self, event: Event) -> None:
        """Kills a process at the next moment that the event names."""
        self._restarts.append(event)
        self._pump()

    def set_clock(self, by_s: float) -> None:
        """Sets the wall clock.

        Nothing that waits goes by it, and what the runs of an account share has times of the clock that nobody sets.
        The ledger, which is all there is without that, has wall times.
        """
        if self._settings.state_dir == "none":
            self._wall_s += by_s

    # Sending

    def _new_process(self) -> _Process:
        return _Process(self._settings.workers, self._polls(self._settings.poll_s, self._durations_s))

    def _pump(self) -> None:
        """Begins what may begin now, submissions first, and comes back when something may again."""
        now, wake_at = self._loop.now, math.inf
        if now >= self._wake_at:
            self._wake_at = math.inf
        used_up = False
        decide = self._throttle.decide
        for process in self._processes:
            while self._left and process.free_workers and process.alive:
                decision = decide(RequestKind.SUBMIT, now)
                if not isinstance(decision, Admit):
                    wake_at = min(wake_at, decision.at)
                    used_up = True
                    break
                process.free_workers -= 1
                self._left -= 1
                self._begin(process, RequestKind.SUBMIT)
        if self._settings.max_active_jobs is not None:
            for process in self._processes:
                wake_at = min(wake_at, self._ask(process, now))
        if wake_at < self._wake_at:
            self._wake_at = wake_at
            self._loop.at(wake_at, self._pump)
        if self._restarts and self._processes and self._is_moment(used_up=used_up):
            self._die(self._restarts.popleft())

    def _ask(self, process: _Process, now: float) -> float:
        """Begins the questions that may begin now; gives when to look again."""
        polls, throttle = process.polls, self._throttle
        while True:
            wake_at = polls.choose(now, throttle.rate, throttle.slots_held_by_others_since)
            if polls.waiting is None:
                return wake_at
            kind = RequestKind.STATUS if polls.waiting.page is None else RequestKind.LIST
            decision = throttle.decide(kind, now)
            if not isinstance(decision, Admit):
                return decision.at
            self._begin(process, kind, polls.sent(now))

    def _begin(self, process: _Process, kind: RequestKind, question: Question | None = None) -> None:
        loop, now = self._loop, self._loop.now
        request = _Request(process, kind, self._throttle.started(kind), question)
        answer_s, share = self._drawn()
        timeout_s = self._settings.request_timeout_s
        request.lost = answer_s > timeout_s
        request.begun_at = now
        request.ends_at = now + min(answer_s, timeout_s)
        request.counted_at = now + min(answer_s * share, timeout_s + GRACE_S)
        request.begun_utc = now + self._wall_s
        process.in_flight.add(request)
        self._begun += 1
        self.requests[kind] += 1
        self._remember(request)
        loop.at(request.counted_at, self._count, request)
        loop.at(request.ends_at, self._end, request)

    def _drawn(self) -> tuple[float, float]:
        """Draws how long an answer takes, and after which share of that the request counts."""
        network, draw = self._scenario.network, self._draw
        span = network.answer
        if network.slow is not None and draw.random() < network.slow_share:
            span = network.slow
        answer_s = draw.uniform(span.min_s, span.max_s)
        match network.counted:
            case "start":
                return answer_s, _EARLY
            case "end":
                return answer_s, _LATE
            case "worst":
                rate = self._settings.rate
                late = rate is None or self._begun // rate.count % 2 == 0
                return answer_s, _LATE if late else _EARLY
            case "anywhere":
                return answer_s, draw.uniform(_EARLY, _LATE)

    def _count(self, request: _Request) -> None:
        """Lets the server see a request, whether or not anybody still waits for the answer."""
        now = self._loop.now
        if request.answer is not None or now < request.counted_at:
            return  # a kill has moved the moment
        server, question = self._server, request.question
        if question is None:
            request.answer = server.submit(now, request.begun_at)
        elif question.page is None:
            request.answer = server.ask(question.jobs[0], now, request.begun_at)
        else:
            since = min((self._open[each][0] for each in question.jobs if each in self._open), default=now)
            request.answer = server.page(question.page, since, now, request.begun_at)

    # Ending

    def _end(self, request: _Request) -> None:
        process, now = request.process, self._loop.now
        if not process.alive:
            return
        process.in_flight.remove(request)
        request.ended_utc = now + self._wall_s
        self.token_s += now - request.begun_at
        answer = None if request.lost else request.answer
        self._report(request, answer)
        if request.question is None:
            self._end_submit(request, answer)
        else:
            self._end_question(request, request.question, answer)
        self._pump()

    def _end_question(self, request: _Request, question: Question, answer: Answer | None) -> None:
        throttle, process, now = self._throttle, request.process, self._loop.now
        told = {} if answer is None else answer.told
        ours = {
            job_id: over
            for job_id, over in told.items()
            if job_id in self._open and self._open[job_id][1] is process
        }
        process.polls.answered(question, request.begun_at, now, ours, None if answer is None else answer.rows)
        for job_id, over in ours.items():
            if over:
                self._durations_s.append(now - self._open.pop(job_id)[0])
                throttle.job_closed(job_id)
        if answer is not None and answer.rows is not None:
            running = sum(not over for over in told.values())
            hidden = sum(job_id not in told for job_id in self._open)
            throttle.jobs_listed(now, running + hidden)

    def _report(self, request: _Request, answer: Answer | None) -> None:
        """Tells the controller, and stores what the gate would have stored."""
        throttle, now = self._throttle, self._loop.now
        outcome = Outcome.ANSWERED
        if answer is None:
            outcome = Outcome.UNKNOWN_END
        elif answer.said is Said.THROTTLED:
            outcome = Outcome.THROTTLED
            self._server.told(answer.lockout, now)
        throttle.ended(request.ticket, now, outcome)
        if throttle.locked_out and not throttle.doubtful:
            self._locked_out_utc = now + self._wall_s, throttle.locked_until + self._wall_s
        self._learned = throttle.learned

    def _end_submit(self, request: _Request, answer: Answer | None) -> None:
        throttle, process, now = self._throttle, request.process, self._loop.now
        process.free_workers += 1
        settled = True
        if answer is None:
            pass  # held
        elif answer.said is Said.OK:
            throttle.job_opened(request.ticket, answer.job_id, now)
            if self._settings.max_active_jobs is not None:
                self._open[answer.job_id] = (now, process)
                process.polls.add(answer.job_id, now, now, at_once=False)
        elif answer.said is Said.NO_QUOTA:
            self._unsettled -= self._left
            self._left = 0
        else:
            settled = False
            self._left += 1
            if answer.said is Said.SLOTS_FULL:
                throttle.slots_full(now, "as many jobs run as may")
        throttle.slot_settled(request.ticket)
        self._settle(settled)

    def _settle(self, settled: bool) -> None:
        self._unsettled -= settled
        if not self._unsettled and self.finished_at is None:
            self.finished_at = self._loop.now
            self._loop.stopped = True

    # Dying, and coming back

    def _is_moment(self, *, used_up: bool) -> bool:
        in_flight = any(process.in_flight for process in self._processes)
        match self._restarts[0].when:
            case "any":
                return True
            case "in flight":
                return in_flight
            case "locked out":
                return self._throttle.locked_out
            case "window used up":
                return used_up and in_flight and not self._throttle.locked_out

    def _die(self, event: Event) -> None:
        """Ends the process that has lived longest. What it has sent goes on alone, for the grace at most."""
        process = self._processes.pop(0)
        process.alive = False
        self.restarts += 1
        now = self._loop.now
        for request in sorted(process.in_flight, key=lambda request: request.begun_at):
            if request.answer is None and request.counted_at > now + GRACE_S:
                request.counted_at = now + self._draw.uniform(0, GRACE_S)
                self._loop.at(request.counted_at, self._count, request)
            self.token_s += now - request.begun_at
            if self._processes:  # others live on and see that it has gone
                self._throttle.ended(request.ticket, now, Outcome.UNKNOWN_END)
                self._throttle.slot_settled(request.ticket)
            self._unsettled -= request.kind is RequestKind.SUBMIT
        self._settle(settled=False)
        self.set_clock(event.by_s)
        down_s = self._draw.uniform(event.down.min_s, event.down.max_s)
        self._loop.at(now + down_s, self._come_back, process)

    def _come_back(self, before: _Process) -> None:
        """Starts a process in place of one that was killed."""
        process = self._new_process()
        if not self._processes:
            known = self._throttle.state()
            self._throttle = self._make(self._settings)
            if self._settings.state_dir != "none":
                self._throttle.load({**self._throttle.state(), "limit": known["limit"]})
            self._restore(unanswered=bool(before.in_flight))
        self._processes.append(process)
        now = self._loop.now
        for job_id, (accepted_at, by) in list(self._open.items()):
            if by is before:
                self._open[job_id] = (accepted_at, process)
                process.polls.add(job_id, accepted_at, now, at_once=True)
        self._pump()

    def _restore(self, *, unanswered: bool) -> None:
        """Does what the opening of a session does with what the ledger knows."""
        now = self._loop.now
        now_utc = now + self._wall_s
        since_utc = now_utc - self._counts_s
        locked_until = None
        if self._locked_out_utc is not None:
            known_utc, until_utc = self._locked_out_utc
            locked_until = min(until_utc - self._wall_s, now + until_utc - known_utc)
        self._throttle.restore(
            now,
            history=[
                (
                    one.begun_utc - self._wall_s,
                    None if one.ended_utc is None else one.ended_utc - self._wall_s,
                )
                for one in self._history
                if (one.begun_utc if one.ended_utc is None else one.ended_utc) >= since_utc
            ],
            locked_until=locked_until,
            suspect=unanswered,
            learned_limit=self._learned,
            open_jobs=list(self._open),
        )
        if locked_until is not None and locked_until > now:
            self._locked_out_utc = now_utc, locked_until + self._wall_s

    def _remember(self, request: _Request) -> None:
        history = self._history
        history.append(request)
        while history[0].ends_at < request.begun_at - self._kept_s:
            history.popleft()
