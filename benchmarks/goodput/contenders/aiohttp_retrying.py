"""aiohttp-retry with its `ExponentialRetry`, from 0.2 seconds doubling to 30; server errors come again by default.

Source: https://github.com/inyutin/aiohttp_retry, README. A throttle has to be named among the statuses. Its default
of three attempts would give up within a second, so it gets ten, as stamina has by default. Eight workers share the
bodies.
"""

import asyncio
import sys
from collections.abc import Iterator

import aiohttp
from aiohttp_retry import ExponentialRetry, RetryClient

from benchmarks.goodput.contenders.task import CONCURRENT, Task


async def work(client: RetryClient, url: str, bodies: Iterator[str]) -> None:
    """Submits bodies one after the other until there are none."""
    for body in bodies:
        try:
            async with client.post(url, data=body, raise_for_status=True):
                pass
        except aiohttp.ClientError as error:
            print(f"failed: {error!r}", file=sys.stderr)


async def main(task: Task) -> None:
    """Submits all bodies."""
    options = ExponentialRetry(attempts=10, statuses={429})
    bodies = iter(task.bodies)
    async with RetryClient(headers=task.headers, retry_options=options) as client:
        await asyncio.gather(*(work(client, task.url, bodies) for _ in range(CONCURRENT)))


asyncio.run(main(Task.of_command_line()))
