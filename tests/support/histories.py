"""Histories of sessions, computed and not run: what an account does to chunks, as the events a session would tell.

Only what decides how fast chunks go is here: a window, lock-outs, slots with jobs of some length, answers of some
length, workers, other users. It shares nothing with bulkjobs but the events.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, replace
from typing import Final

from bulkjobs.events import (
    ChunkAccepted,
    ChunkPlanned,
    Event,
    JobChanged,
    LockedOut,
    LockoutEnded,
    SessionOpened,
    SourceProgress,
)
from bulkjobs.model import JobRecord, JobState

__all__ = ["BEGAN_UTC", "World", "any_world", "told"]

BEGAN_UTC: Final = 1_768_478_400.0
_IDS: Final = 10_000
_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Describes an account and a run."""

    seed: int
    chunks: int
    limit: int | None = None
    window_s: float = 300.0
    slots: int | None = None
    job_s: float = 60.0
    job_spread: float = 0.3
    """Of the logarithm of a job's length."""
    answer_s: float = 0.5
    workers: int = 8
    poll_s: float = 5.0
    lockout_every_s: float = math.inf
    others: float = 0.0
    """Share of the window that others take, in all windows alike."""
    sized: bool = True
    """The input has a size; else it is read as a pipe is."""


def any_world(seed: int) -> World:
    """Draws an account and a run, of which some take a minute and others weeks."""
    draw = random.Random(f"world {seed}")
    world = World(
        seed=seed,
        chunks=round(10 ** draw.uniform(1.3, 3.3)),
        answer_s=10 ** draw.uniform(-1.5, 1),
        workers=draw.choice([1, 4, 8, 32]),
        others=draw.choice([0.0, 0.0, 0.2]),
    )
    if draw.random() < 0.7:
        world = replace(world, limit=round(10 ** draw.uniform(1, 3)))
    if draw.random() < 0.6:
        world = replace(
            world,
            slots=draw.choice([1, 2, 2, 5]),
            job_s=10 ** draw.uniform(0, 4),
            job_spread=draw.uniform(0, 1),
        )
    if draw.random() < 0.25:
        world = replace(world, lockout_every_s=10 ** draw.uniform(3.3, 5))
    return world


def told(world: World) -> tuple[list[tuple[float, Event]], float]:
    """Computes a session.

    Returns:
        What it tells, by Unix seconds and in order; and when the last chunk was accepted.
    """
    draw = random.Random(f"session {world.seed}")
    events: list[tuple[float, Event]] = [(BEGAN_UTC, _opened(world))]
    free_at = [BEGAN_UTC] * world.workers
    tokens = None if world.limit is None else [BEGAN_UTC] * max(1, round(world.limit * (1 - world.others)))
    slots = None if world.slots is None else [BEGAN_UTC] * world.slots
    locks_at = (
        BEGAN_UTC + draw.expovariate(1 / world.lockout_every_s)
        if world.lockout_every_s < math.inf
        else math.inf
    )
    paced_at = end = BEGAN_UTC
    pace_s = 0.0 if world.limit is None else 1 / max(10.0, 4 * world.limit / world.window_s)
    for number in range(1, world.chunks + 1):
        starts = max(heapq.heappop(free_at), paced_at)
        events.append((starts, _read(world, number)))
        events.append((starts, ChunkPlanned(chunk=number, ids=_IDS)))
        if tokens is not None:
            starts = max(starts, heapq.heappop(tokens))
        if slots is not None:
            starts = max(starts, heapq.heappop(slots))
        while starts >= locks_at:
            over = locks_at + 309
            events.append((locks_at, LockedOut(until_utc=over, wait_s=309, reason="")))
            events.append((max(over, starts), LockoutEnded()))
            starts = max(starts, over)
            locks_at = max(over, starts) + draw.expovariate(1 / world.lockout_every_s)
        answered = starts + world.answer_s * draw.uniform(0.5, 1.5)
        paced_at, end = starts + pace_s, max(end, answered)
        heapq.heappush(free_at, answered)
        if tokens is not None:
            heapq.heappush(tokens, answered + world.window_s)
        events.append((answered, _accepted(number, answered - starts)))
        if slots is not None:
            ends = answered + world.job_s * math.exp(world.job_spread * draw.gauss(0, 1))
            seen = ends + draw.uniform(0, world.poll_s)
            heapq.heappush(slots, seen)
            change = JobChanged(job_id=f"j{number}", state=JobState.FINISHED, word="finished")
            events.append((seen, change))
    return sorted(events, key=lambda told: told[0]), end


def _opened(world: World) -> SessionOpened:
    return SessionOpened(
        requests=world.limit,
        window_s=None if world.limit is None else world.window_s,
        slots=world.slots,
        workers=world.workers,
        resumed=False,
        settled_ids=0,
        planned_ids=None,
    )


def _read(world: World, chunk: int) -> SourceProgress:
    """Blocks are a bit longer than chunks; the last one ends the input."""
    ids = min(chunk * _IDS + 15_000, world.chunks * _IDS)
    size = world.chunks * _IDS * _ID_BYTES
    return SourceProgress(
        source="ids.txt",
        position_bytes=ids * _ID_BYTES,
        size_bytes=size if world.sized else None,
        read=ids,
        invalid=0,
        duplicate=0,
        finished=ids == world.chunks * _IDS,
        run_position_bytes=ids * _ID_BYTES,
        run_size_bytes=size if world.sized else None,
    )


def _accepted(chunk: int, elapsed_s: float) -> ChunkAccepted:
    record = JobRecord(
        run_id="r", chunk=chunk, digest="", job_id=f"j{chunk}", status="accepted", type="contacts",
        endpoint="contacts", ids=_IDS, first_id="1", last_id="2", source="ids.txt", attempt=1, accepted_at="",
    )  # fmt: skip
    return ChunkAccepted(record=record, elapsed_s=elapsed_s)
