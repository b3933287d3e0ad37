"""Plays a scenario and reports what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bulkjobs.simulator.account import Throttle
from support.scenarios.client import Client, MakeThrottle, make_throttle
from support.scenarios.loop import Loop
from support.scenarios.optimum import LIST_PAGE, Means, best_finish_s, chunks_within, tokens
from support.scenarios.polls import Polls
from support.scenarios.reachable import Law, most_jobs
from support.scenarios.scenario import Event, Scenario
from support.scenarios.service import Server

__all__ = ["Report", "markdown", "play", "problems"]

_DAY_S: Final = 86_400.0
_HEADS: Final = (
    "Scenario",
    "Simulated",
    "Requests",
    "Fullest window",
    "Lock-outs",
    "Sent into one",
    "Use of the window",
    "Use of the slots",
    "Of the reachable",
    "Time to finish",
)
_PATIENCE: Final = 3.0
"""A client that takes so many times as long as the best one is not waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Is what came of a scenario. Every figure is the server's."""

    name: str
    title: str
    limit: int | None
    """Of the server, the highest there was."""
    simulated_s: float
    requests: int
    """Of the client, that were let through."""
    jobs: int
    restarts: int
    fullest: int
    """Requests in the fullest window, wherever it began."""
    lockouts: int
    sent_into_lockouts: int
    """Requests begun in spite of an answer that told of the lock-out."""
    window_use: float
    """Of what the best client could have sent in the time it took."""
    slot_use: float
    """Of the jobs that the best client could have had in the time it took."""
    reachable_use: float
    """Of the jobs that a client which does not see the future could have had at the most."""
    finish: float
    """Time to finish, in times of the best client's."""
    cpu_s: float


def play(scenario: Scenario, make: MakeThrottle = make_throttle, polls: type[Polls] = Polls) -> Report:
    """Plays a scenario with the pure controller.

    Args:
        scenario: what to play.
        make: makes the controller; for controllers that are broken on purpose.
        polls: who asks for open jobs; likewise.
    """
    began_s = time.process_time()
    loop, server = Loop(), Server(scenario)
    chunks = chunks_within(scenario)
    client = Client(scenario, loop, server, chunks, make=make, polls=polls)
    for event in scenario.events:
        _enter(event, scenario, loop, server, client)
    loop.at(0.0, client.start)
    loop.run(_PATIENCE * (scenario.work.span_s or 7 * _DAY_S))
    finished_s = client.finished_at
    return report_of(
        scenario,
        server.throttle,
        finished_s=finished_s,
        simulated_s=loop.now if finished_s is None else finished_s,
        requests=server.counts.ours,
        jobs=server.counts.submits,
        means=Means(
            answer_s=client.token_s / max(1, sum(client.requests.values())),
            job_s=server.counts.busy_s / max(1, server.counts.submits),
        ),
        restarts=client.restarts,
        sent_into_lockouts=server.sent_into_lockouts,
        cpu_s=time.process_time() - began_s,
    )


def report_of(
    scenario: Scenario,
    throttle: Throttle,
    *,
    finished_s: float | None,
    simulated_s: float,
    requests: int,
    jobs: int,
    means: Means,
    restarts: int,
    sent_into_lockouts: int,
    cpu_s: float,
) -> Report:
    """Makes the report of what was counted; `finished_s` is None for a client that did not finish."""
    config = scenario.config
    locked_s = sum(max(0.0, min(each.until, simulated_s) - each.began_at) for each in throttle.lockouts)
    open_s = simulated_s - locked_s
    window_use = slot_use = reachable_use = 0.0
    if config.rate is not None:
        window_s = config.rate.window_s
        bearable = tokens(scenario, simulated_s) * (open_s + window_s) / (window_s + means.answer_s)
        window_use = requests / bearable
    if config.max_active_jobs is not None:
        bearable = config.max_active_jobs * (open_s + means.job_s) / (means.job_s + means.answer_s)
        slot_use = jobs / bearable
        reachable_use = jobs / _reachable(scenario, means, open_s)
    best_s = best_finish_s(scenario, jobs, means, span_s=simulated_s) + locked_s
    return Report(
        name=scenario.name,
        title=scenario.title,
        limit=None
        if config.rate is None
        else max(config.rate.count, *(event.count for event in scenario.events if event.what == "limit"), 0),
        simulated_s=simulated_s,
        requests=requests,
        jobs=jobs,
        restarts=restarts,
        fullest=throttle.max_in_window or 0,
        lockouts=len(throttle.lockouts),
        sent_into_lockouts=sent_into_lockouts,
        window_use=window_use,
        slot_use=slot_use,
        reachable_use=reachable_use,
        finish=math.inf if finished_s is None else finished_s / best_s,
        cpu_s=cpu_s,
    )


def _reachable(scenario: Scenario, means: Means, span_s: float) -> float:
    """Gives the most jobs that a client without a view of the future could have had on the server, in a time."""
    slots, rate = scenario.config.max_active_jobs, scenario.config.rate
    assert slots is not None
    requests = math.inf
    if rate is not None:
        requests = tokens(scenario, span_s) * (span_s + rate.window_s) / (rate.window_s + means.answer_s)
    return most_jobs(
        replace(Law.of_spans(scenario.job_times), mean_s=means.job_s),
        slots=slots,
        shared=min(slots, LIST_PAGE),
        requests=requests,
        span_s=span_s,
        idle_s=means.answer_s,
    )


def problems(report: Report, expect: Mapping[str, tuple[float, float]]) -> list[str]:
    """Gives the figures that are not as they were expected."""
    found = []
    for what, (low, high) in expect.items():
        figure: float = getattr(report, what.replace("-", "_"))
        if not low <= figure <= high:
            found.append(f"{report.name}: {what} is {figure:.5g}, not {low:g} to {high:g}")
    return found


def markdown(reports: Iterable[Report]) -> str:
    """Gives the reports as a table."""
    lines = [f"| {' | '.join(_HEADS)} |", "| --- " * len(_HEADS) + "|"]
    for report in reports:
        cells = [
            report.title,
            _time(report.simulated_s),
            f"{report.requests:,}",
            "-" if report.limit is None else f"{report.fullest} of {report.limit}",
            str(report.lockouts),
            str(report.sent_into_lockouts),
            _share(report.window_use),
            _share(report.slot_use),
            _share(report.reachable_use),
            f"{report.finish:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds / _DAY_S:.1f} d" if seconds >= _DAY_S else f"{seconds / 60:.0f} min"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" if share else "-"


def _enter(event: Event, scenario: Scenario, loop: Loop, server: Server, client: Client) -> None:
    """Has an event happen at its time, and again as often as it says."""
    does: dict[str, Callable[[], object]] = {
        "restart": partial(client.kill, event),
        "clock": partial(client.set_clock, event.by_s),
        "limit": partial(server.set_limit, event.count),
        "lock-out": lambda: server.strike(loop.now),
        "foreign": lambda: server.foreign(loop.now),
    }
    every_s = event.every_s
    if event.what == "foreign":
        assert scenario.config.rate is not None
        every_s = scenario.config.rate.window_s / event.count

    def happen() -> None:
        does[event.what]()
        if loop.now + every_s < event.until_s:
            loop.at(loop.now + every_s, happen)

    loop.at(event.at_s, happen)
