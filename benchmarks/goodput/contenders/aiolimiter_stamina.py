"""The two together, as a careful program has it: each attempt goes through the limiter, and failed ones come again.

Source: as for `aiolimiter_alone` and `stamina_backoff`.
"""

import asyncio
import sys
from collections.abc import Iterator

import aiohttp
import stamina
from aiolimiter import AsyncLimiter

from benchmarks.goodput.contenders.task import CONCURRENT, Task


async def work(
    session: aiohttp.ClientSession, limiter: AsyncLimiter, url: str, bodies: Iterator[str]
) -> None:
    """Submits bodies one after the other until there are none."""
    for body in bodies:
        try:
            async for attempt in stamina.retry_context(on=aiohttp.ClientError):
                with attempt:
                    async with limiter, session.post(url, data=body, raise_for_status=True):
                        pass
        except aiohttp.ClientError as error:
            print(f"failed: {error!r}", file=sys.stderr)


async def main(task: Task) -> None:
    """Submits all bodies."""
    limiter = AsyncLimiter(task.count, task.window_s)
    bodies = iter(task.bodies)
    async with aiohttp.ClientSession(headers=task.headers) as session:
        await asyncio.gather(*(work(session, limiter, task.url, bodies) for _ in range(CONCURRENT)))


asyncio.run(main(Task.of_command_line()))
