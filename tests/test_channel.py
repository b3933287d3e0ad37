"""The bounded hand-over: order, bounds, ends, cancellation."""

import asyncio

import pytest

from bulkjobs.channel import Channel, ChannelClosed


async def collect(channel):
    return [item async for item in channel]


async def test_items_arrive_in_order_and_the_loop_ends_with_the_channel():
    channel = Channel(2)
    async with asyncio.TaskGroup() as group:
        taken = group.create_task(collect(channel))
        for n in range(10):
            await channel.send(n)
        channel.close()
    assert taken.result() == list(range(10))


async def test_a_full_channel_makes_the_producer_wait():
    channel = Channel(2)
    sender = asyncio.create_task(_send_all(channel, 3))
    await asyncio.sleep(0)
    assert (len(channel), sender.done()) == (2, False)
    assert await anext(channel) == 0
    await sender
    assert [await anext(channel), await anext(channel)] == [1, 2]


async def test_what_must_not_be_lost_goes_into_a_full_channel_and_the_next_producer_waits_longer():
    channel = Channel(1)
    channel.put("a")
    channel.put("b")
    waiting = asyncio.create_task(channel.room())
    assert await anext(channel) == "a"
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await anext(channel) == "b"
    await waiting
    channel.close()
    await channel.room()
    with pytest.raises(ChannelClosed):
        channel.put("c")


async def test_each_item_goes_to_one_consumer():
    channel = Channel(3)
    async with asyncio.TaskGroup() as group:
        takers = [group.create_task(collect(channel)) for _ in range(4)]
        await _send_all(channel, 100)
        channel.close()
    assert sorted(n for t in takers for n in t.result()) == list(range(100))


async def test_aborting_ends_both_sides_and_drops_what_waits():
    channel = Channel(1)
    await channel.send("kept by nobody")
    sender = asyncio.create_task(channel.send("too late"))
    await asyncio.sleep(0)
    channel.abort()
    with pytest.raises(ChannelClosed):
        await sender
    assert await collect(channel) == []


async def test_a_cancelled_consumer_takes_nothing_with_it():
    """The item that would have woken a cancelled consumer goes to the next one."""
    channel = Channel(1)
    first = asyncio.create_task(anext(channel))
    second = asyncio.create_task(anext(channel))
    await asyncio.sleep(0)
    sending = asyncio.create_task(channel.send("it"))
    first.cancel()
    await sending
    assert await second == "it"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_waits_can_be_taken_at_once():
    channel = Channel(3)
    await _send_all(channel, 3)
    assert channel.receive_waiting() == [0, 1, 2]
    assert channel.receive_waiting() == []


async def test_closing_lets_consumers_have_what_is_there():
    channel = Channel(5)
    await _send_all(channel, 3)
    channel.close()
    with pytest.raises(ChannelClosed):
        await channel.send(4)
    assert await collect(channel) == [0, 1, 2]


async def _send_all(channel, count):
    for n in range(count):
        await channel.send(n)
