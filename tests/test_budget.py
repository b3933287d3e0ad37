"""The budget: never a share too many, and none withheld that fits."""

from __future__ import annotations

import asyncio
import random

import pytest

from bulkjobs.budget import Budget, CapReached
from bulkjobs.testing import run_virtual


def test_without_a_cap_everything_fits():
    async def main():
        budget = Budget()
        for _ in range(3):
            assert await budget.reserve(10**12) is not None

    run_virtual(main())


def test_what_was_spent_before_counts():
    async def main():
        with pytest.raises(CapReached) as reached:
            await Budget(100, spent=91).reserve(10)
        return reached.value

    reached = run_virtual(main())
    assert (reached.cap, reached.spent) == (100, 91)


def test_a_share_may_fill_the_cap_to_the_last_id():
    async def main():
        budget = Budget(100, spent=90)
        share = await budget.reserve(10)
        assert share is not None
        with share:
            share.spent()
        with pytest.raises(CapReached):
            await budget.reserve(1)

    run_virtual(main())


@pytest.mark.parametrize("spent", [True, False])
def test_who_fits_only_if_something_comes_back_waits_to_see(spent):
    async def main():
        budget = Budget(10)
        share = await budget.reserve(6)
        assert share is not None
        waiting = asyncio.create_task(budget.reserve(5))
        await asyncio.sleep(1)
        assert not waiting.done()
        with share:
            if spent:
                share.spent()
        return await asyncio.gather(waiting, return_exceptions=True)

    (came,) = run_virtual(main())
    assert isinstance(came, CapReached) is spent


def test_what_ended_in_an_error_may_have_been_sent():
    async def main():
        budget = Budget(10)
        share = await budget.reserve(6)
        assert share is not None
        with pytest.raises(OSError, match="disk"), share:
            raise OSError("disk")
        with pytest.raises(CapReached):
            await budget.reserve(5)

    run_virtual(main())


def test_a_closed_budget_gives_nothing_to_those_who_wait_and_those_who_come():
    async def main():
        budget = Budget(10)
        assert await budget.reserve(6)
        waiting = asyncio.create_task(budget.reserve(5))
        await asyncio.sleep(1)
        budget.close()
        return await waiting, await budget.reserve(1)

    assert run_virtual(main()) == (None, None)


@pytest.mark.parametrize("seed", range(20))
def test_workers_together_spend_what_fits_and_never_more(seed):
    """All chunks are of one size, so exactly as many are spent as fit into the cap."""
    draw = random.Random(seed)

    async def main():
        cap, size = draw.randint(1, 200), draw.randint(1, 30)
        budget, spent, out = Budget(cap), 0, 0

        async def work():
            nonlocal spent, out
            while True:
                try:
                    share = await budget.reserve(size)
                except CapReached:
                    return
                assert share is not None
                with share:
                    out += size
                    assert spent + out <= cap
                    await asyncio.sleep(draw.random())
                    out -= size
                    if draw.random() < 0.4:
                        share.spent()
                        spent += size

        await asyncio.gather(*(work() for _ in range(8)))
        assert spent == cap // size * size, f"seed {seed}"

    run_virtual(main())
