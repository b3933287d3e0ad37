"""aiohttp with stamina's exponential backoff and jitter, as it is by default: ten attempts within 45 seconds.

Source: https://stamina.hynek.me/, "Tutorial": retries on the client's errors, refused statuses raised as such.
Eight workers share the bodies.
"""

import asyncio
import sys
from collections.abc import Iterator

import aiohttp
import stamina

from benchmarks.goodput.contenders.task import CONCURRENT, Task


async def work(session: aiohttp.ClientSession, url: str, bodies: Iterator[str]) -> None:
    """Submits bodies one after the other until there are none."""
    for body in bodies:
        try:
            async for attempt in stamina.retry_context(on=aiohttp.ClientError):
                with attempt:
                    async with session.post(url, data=body, raise_for_status=True):
                        pass
        except aiohttp.ClientError as error:
            print(f"failed: {error!r}", file=sys.stderr)


async def main(task: Task) -> None:
    """Submits all bodies."""
    bodies = iter(task.bodies)
    async with aiohttp.ClientSession(headers=task.headers) as session:
        await asyncio.gather(*(work(session, task.url, bodies) for _ in range(CONCURRENT)))


asyncio.run(main(Task.of_command_line()))
