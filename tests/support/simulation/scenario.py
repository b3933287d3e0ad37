"""What one seed stands for: an input, settings, a service, and all that will go wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from bulkjobs.settings import Rate, Secret, Settings
from bulkjobs.simulator import FaultPlan, Limit, ServiceConfig, Span
from support.simulated import BASE_URL, LOGIN_URL, TOKEN
from support.simulation.process import End, Ending

__all__ = ["Jump", "Scenario", "long_scenario_of", "reconciled", "scenario_of"]

_INVALID: Final = (
    b"x",
    b"-5",
    b"+7",
    b"007",
    b"0",
    b"1.5",
    b"12 3",
    b"1_000",
    b"99999999999999999999",
    b"\xff\xfe",
)
_SHORT: Final = (0, 1, 2, 5, 10, 20, 40)
_BRIEF: Final = (0, 1, 2, 3, 4, 6, 8)
"""How many chunks a run may have."""
_WINDOW_S: Final = 300.0
_HOUR_S: Final = 3_600.0
_RECONCILED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """Sets the wall clock at a step of a process."""

    process: int
    step: int
    by_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Holds everything that is decided before a simulation begins; what is drawn later follows from the seed."""

    seed: int
    files: tuple[bytes, ...]
    chunk_size: int
    settings: Settings
    config: ServiceConfig
    endings: tuple[Ending, ...]
    """Of the first processes; those after them are left alone."""
    jumps: tuple[Jump, ...] = ()
    fault_share: float = 0.0
    """Of the requests, while there are faults left."""
    faults: int = 0
    """How many requests meet a fault of the network, at most."""
    script: Mapping[int, str] = field(default_factory=dict)
    """Faults of certain submissions, counted from 1, beside those by chance."""
    second_after_s: float | None = None
    """When a second process is started on the same run, which must do nothing; None for never."""
    travel_s: float = 0.0
    """Longest time from the first byte to the arrival at the server."""

    @property
    def keeps_rate(self) -> bool:
        """Tells whether the client was told limits that the account bears, so that it must not exceed them."""
        allowed, kept = self.config.rate, self.settings.rate
        if allowed is None:
            return True
        return kept is not None and kept.count <= allowed.count and kept.period_s >= allowed.window_s


def scenario_of(seed: int, *, brief: bool = False) -> Scenario:
    """Draws a short run with much going wrong, of up to 40 chunks and four processes that end before it has.

    Args:
        seed: what it follows from.
        brief: draws one of at most 8 chunks and two such processes. Most of what can happen takes no more, and there
            are three of them in the time of one.
    """
    draw = random.Random(f"scenario/{seed}")
    size = draw.choice([1, 2, 3, 7, 20])
    chunks = draw.choice(_BRIEF if brief else _SHORT)
    # Some worlds are calm, so that each kind of trouble is also met alone.
    calm = draw.random() < 0.15
    config, settings = _account(draw, seed, size, chunks)
    scenario = Scenario(
        seed=seed,
        files=_files(draw, ids=max(0, chunks * size - draw.choice([0, 0, draw.randrange(size)]))),
        chunk_size=size,
        settings=settings,
        config=config,
        endings=()
        if calm or draw.random() < 0.25
        else _endings(draw, most=2 if brief else 4, steps=40 + 12 * chunks),
        jumps=() if draw.random() < 0.7 else _jumps(draw, steps=40 + 12 * chunks),
        fault_share=0.0 if calm else draw.choice([0.05, 0.2, 0.5, 0.9]),
        faults=draw.choice([1, 3, 10, 30]),
        travel_s=draw.choice([0.0, 0.1, 2.0]),
    )
    return reconciled(scenario) if draw.random() < _RECONCILED_SHARE else scenario


def reconciled(scenario: Scenario) -> Scenario:
    """Gives the same world with a client that settles what is held by the server's list of jobs.

    Nobody else uses the account; every other client is told so and may go by sizes alone.
    """
    settings = replace(scenario.settings, on_unknown="reconcile", exclusive=scenario.seed % 2 == 0)
    return replace(scenario, settings=settings)


def long_scenario_of(seed: int, *, chunks: int = 1_500) -> Scenario:
    """Draws a run of hours at a rate of some hundred requests in five minutes, with something going wrong at times."""
    draw = random.Random(f"long scenario/{seed}")
    size = draw.choice([1, 2, 3])
    count = draw.choice([60, 100, 300])
    slots = draw.choice([None, None, 4, 16])
    if slots is not None:
        chunks //= 3
    config = ServiceConfig(
        seed=seed,
        rate=Limit(count=count, window_s=_WINDOW_S),
        lockout_extends=draw.random() < 0.5,
        max_active_jobs=slots,
        job_time=Span(min_s=5.0, max_s=60.0),
        latency=Span(min_s=0.05, max_s=draw.choice([1.0, 20.0])),
        token_ttl_s=6_000.0,
        faults=FaultPlan.of(*_late(draw, chunks), late_s=240.0),
    )
    settings = Settings(
        base_url=BASE_URL,
        login_url=LOGIN_URL,
        client_id="simulator-client",
        client_secret=Secret("simulator-secret"),
        rate=Rate(count=int(count * draw.choice([0.9, 1.0, 1.0, 1.3])), period_s=_WINDOW_S),
        on_unknown="hold",
        max_active_jobs=slots,
        chunk_size=size,
        workers=draw.choice([2, 8, 16]),
        request_timeout_s=120.0,
        poll_s=30.0,
    )
    scenario = Scenario(
        seed=seed,
        files=_files(draw, ids=chunks * size),
        chunk_size=size,
        settings=settings,
        config=config,
        endings=_endings(draw, most=3, steps=6 * chunks),
        jumps=_jumps(draw, steps=6 * chunks),
        fault_share=0.02,
        faults=60,
        travel_s=1.0,
    )
    return reconciled(scenario) if draw.random() < _RECONCILED_SHARE else scenario


def _account(draw: random.Random, seed: int, size: int, chunks: int) -> tuple[ServiceConfig, Settings]:
    limited = draw.random() < 0.6
    count = draw.randint(6, 60)
    slots = draw.choice([None, None, 1, 2, 5])
    login = draw.random() < 0.5
    config = ServiceConfig(
        seed=seed,
        rate=Limit(count=count, window_s=_WINDOW_S) if limited else None,
        fixed_window_phase_s=draw.choice([None, None, 17.0]),
        lockout_s=_WINDOW_S,
        lockout_extends=draw.random() < 0.5,
        retry_after=draw.choice([None, "seconds", "date", "soon", "-1"]),
        max_active_jobs=slots,
        slots_refusal=draw.choice([400, 429]),
        queue_time=Span(min_s=0.0, max_s=draw.choice([0.0, 30.0])),
        job_time=Span(min_s=0.0, max_s=draw.choice([1.0, 120.0])),
        job_failure_rate=draw.choice([0.0, 0.0, 0.1]),
        latency=Span(min_s=0.0, max_s=draw.choice([0.0, 2.0, 40.0])),
        token_ttl_s=draw.choice([700.0, 2_000.0, 1e7]),
        faults=FaultPlan.of(*_late(draw, chunks), late_s=draw.choice([30.0, 240.0])),
    )
    kept = max(2, int(count * draw.choice([0.5, 1.0, 1.0, 1.0, 1.6])))
    credentials = (
        {"client_id": "simulator-client", "client_secret": Secret("simulator-secret")}
        if login
        else {"access_token": Secret(TOKEN)}
    )
    settings = Settings(
        base_url=BASE_URL,
        login_url=LOGIN_URL,
        rate=Rate(count=kept, period_s=_WINDOW_S) if limited else None,
        lockout_s=_WINDOW_S,
        pace=draw.choice([None, "default"]),
        on_unknown="hold",
        max_active_jobs=draw.choice([slots, slots, 2]),
        chunk_size=size,
        workers=draw.choice([1, 2, 4, 8]),
        accept=draw.choice(["json", "xml"]),
        request_timeout_s=draw.choice([60.0, 300.0]),
        **credentials,
    )
    return config, settings


def _late(draw: random.Random, chunks: int) -> list[str]:
    """Names submissions whose connection breaks and whose job appears minutes later."""
    numbers = draw.sample(range(1, max(chunks, 1) + 1), k=min(draw.choice([0, 0, 1, 3]), max(chunks, 1)))
    return [f"submit:reset_late@{number}" for number in sorted(numbers)]


def _files(draw: random.Random, *, ids: int) -> tuple[bytes, ...]:
    spread = draw.choice([1, 1, 3, 1_000_003])
    first = draw.choice([1, 5_000_001, 10**18])
    fresh = [b"%d" % (first + spread * number) for number in range(ids)]
    if draw.random() < 0.3:
        draw.shuffle(fresh)
    share = draw.choice([0.0, 0.0, 0.05, 0.3])
    tokens: list[bytes] = []
    for number, token in enumerate(fresh):
        tokens.append(token)
        while draw.random() < share:
            bad = draw.random() < 0.5
            tokens.append(draw.choice(_INVALID) if bad else fresh[draw.randint(0, number)])
    parts = draw.choice([1, 1, 2, 3])
    cuts = sorted(draw.randint(0, len(tokens)) for _ in range(parts - 1))
    edges = [0, *cuts, len(tokens)]
    return tuple(_text(draw, tokens[begin:end]) for begin, end in pairwise(edges))


def _text(draw: random.Random, tokens: Sequence[bytes]) -> bytes:
    separator = draw.choice([b"\n", b"\n", b"\n", b"\r\n", b",", b"\n\n", b" \n\t"])
    return separator.join(tokens) + draw.choice([b"", b"\n"])


def _endings(draw: random.Random, *, most: int, steps: int) -> tuple[Ending, ...]:
    return tuple(
        Ending(
            how=draw.choice([End.CRASH, End.CRASH, End.CRASH, End.DRAIN, End.STOP, End.CANCEL]),
            step=draw.choice([draw.randint(1, 40), draw.randint(1, steps)]),
            pause_s=draw.choice([0.0, 0.0, 2.0, 60.0, 400.0, 2 * _HOUR_S]),
            torn=draw.random(),
        )
        for _ in range(draw.randint(1, most))
    )


def _jumps(draw: random.Random, *, steps: int) -> tuple[Jump, ...]:
    return tuple(
        Jump(
            process=draw.randint(1, 3),
            step=draw.randint(1, steps),
            by_s=draw.choice([-1, 1]) * draw.choice([30.0, _HOUR_S]),
        )
        for _ in range(draw.randint(1, 3))
    )
