"""The workers of a session: more of them, fewer of them, and nothing lost on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from bulkjobs.channel import Channel
from bulkjobs.errors import ConfigError
from bulkjobs.pool import Pool, require_files


class Work:
    """Is work on items that end when a test lets them."""

    def __init__(self) -> None:
        self.items: Channel[int] = Channel(1_000)
        self.gates: dict[int, asyncio.Event] = {}
        self.done: list[int] = []
        self.most = 0

    async def worker(self, items: AsyncIterator[int]) -> None:
        async for item in items:
            gate = self.gates[item] = asyncio.Event()
            self.most = max(self.most, len(self.gates))
            await gate.wait()
            del self.gates[item]
            self.done.append(item)

    async def give(self, *items: int) -> None:
        for item in items:
            await self.items.send(item)
        await settled()

    async def let_end(self, *items: int) -> None:
        for item in items:
            self.gates[item].set()
        await settled()

    @property
    def in_hand(self) -> list[int]:
        return sorted(self.gates)


async def settled() -> None:
    """Lets every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def work():
    return Work()


async def test_as_many_items_are_in_hand_as_there_are_workers(work):
    async with asyncio.TaskGroup() as group:
        group.create_task(Pool(3).run(work.worker, work.items))
        await work.give(1, 2, 3, 4, 5)
        assert work.in_hand == [1, 2, 3]
        work.items.close()
        await work.let_end(1, 2, 3)
        await work.let_end(4, 5)
    assert sorted(work.done) == [1, 2, 3, 4, 5]


async def test_more_workers_begin_at_once(work):
    pool = Pool(1)
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run(work.worker, work.items))
        await work.give(1, 2, 3, 4)
        pool.resize(3)
        await settled()
        assert work.in_hand == [1, 2, 3]
        assert pool.size == 3
        work.items.abort()
        await work.let_end(1, 2, 3)


async def test_a_busy_worker_that_is_taken_away_finishes_its_item_first_and_takes_no_other(work):
    pool = Pool(3)
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run(work.worker, work.items))
        await work.give(1, 2, 3, 4, 5)
        pool.resize(1)
        await settled()
        assert work.in_hand == [1, 2, 3]
        await work.let_end(1, 2, 3)
        assert sorted(work.done) == [1, 2, 3]
        assert work.in_hand == [4]
        work.items.close()
        await work.let_end(4)
        await work.let_end(5)
    assert sorted(work.done) == [1, 2, 3, 4, 5]


async def test_idle_workers_are_taken_away_before_busy_ones_and_at_once(work):
    pool = Pool(4)
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run(work.worker, work.items))
        await work.give(1)
        pool.resize(1)
        await work.give(2, 3)
        assert work.in_hand == [1]
        work.items.close()
        await work.let_end(1)
        await work.let_end(2)
        await work.let_end(3)
    assert work.done == [1, 2, 3]


async def test_an_item_that_was_sent_in_the_same_moment_goes_to_a_worker_that_stays(work):
    """The idle worker was woken for it and is taken away before it runs."""
    pool = Pool(2)
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run(work.worker, work.items))
        await settled()
        await work.items.send(1)
        pool.resize(1)
        await settled()
        assert work.in_hand == [1]
        work.items.close()
        await work.let_end(1)
    assert work.done == [1]


async def test_a_worker_that_was_to_leave_stays_when_it_is_wanted_again(work):
    pool = Pool(2)
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run(work.worker, work.items))
        await work.give(1, 2, 3, 4, 5)
        pool.resize(1)
        pool.resize(2)
        await settled()
        assert work.in_hand == [1, 2]
        await work.let_end(1, 2)
        assert work.in_hand == [3, 4]
        work.items.abort()
        await work.let_end(3, 4)
    assert work.most == 2


async def test_a_size_given_between_two_runs_holds_for_the_next(work):
    pool = Pool(1)
    pool.resize(2)
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run(work.worker, work.items))
        await work.give(1, 2, 3)
        assert work.in_hand == [1, 2]
        work.items.abort()
        await work.let_end(1, 2)
    pool.resize(5)  # nobody is woken for it
    assert pool.size == 5


async def test_a_size_that_comes_when_the_last_worker_has_ended_wakes_nobody(work):
    pool = Pool(2)
    running = asyncio.create_task(pool.run(work.worker, work.items))
    await settled()
    work.items.close()
    for _ in range(6):  # in whichever step the end is
        await asyncio.sleep(0)
        pool.resize(3)
        pool.resize(2)
    await running
    assert work.done == []


async def test_cancelling_breaks_off_every_item_and_the_run_ends(work):
    pool = Pool(2)
    running = asyncio.create_task(pool.run(work.worker, work.items))
    await work.give(1, 2, 3)
    pool.cancel()
    await running
    assert work.done == []


async def test_what_breaks_one_worker_ends_all(work):
    async def broken(items):
        async for item in items:
            raise ValueError(item)

    with pytest.raises(ExceptionGroup) as told:
        async with asyncio.TaskGroup() as group:
            group.create_task(Pool(2).run(broken, work.items))
            await work.items.send(7)
    assert told.group_contains(ValueError, match="7")


async def test_a_size_that_comes_while_the_workers_are_broken_off_adds_none(work):
    pool = Pool(1)
    broken_off, may_end = asyncio.Event(), asyncio.Event()

    async def slow_to_end(items):
        work.most += 1
        try:
            async for _ in items:
                pass
        finally:
            broken_off.set()
            await may_end.wait()

    running = asyncio.create_task(pool.run(slow_to_end, work.items))
    await settled()
    running.cancel()
    await broken_off.wait()
    pool.resize(3)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert work.most == 1


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_the_sizes_each_item_is_done_once(work, seed):
    chance = random.Random(seed)
    pool = Pool(chance.randint(1, 8))
    given = list(range(200))
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run(work.worker, work.items))
        left = list(given)
        while left or work.gates:
            move = chance.random()
            if move < 0.4 and left:
                await work.items.send(left.pop(0))
            elif move < 0.8 and work.gates:
                work.gates[chance.choice(list(work.gates))].set()
            else:
                pool.resize(chance.randint(1, 8))
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            if not left:
                work.items.close()
    assert sorted(work.done) == given, f"seed {seed}"


def test_more_workers_than_files_may_be_open_are_refused(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (100, 4096))
    require_files(68)
    with pytest.raises(ConfigError, match="69 workers may have 101 files and connections open, but only 100"):
        require_files(69)
