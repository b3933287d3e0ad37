"""aiohttp behind an `AsyncLimiter` of the account's limit; what is refused is reported and left.

Source: https://aiolimiter.readthedocs.io/, "Usage": a limiter of so many requests in so many seconds, entered
before each request, and all tasks gathered.
"""

import asyncio
import sys

import aiohttp
from aiolimiter import AsyncLimiter

from benchmarks.goodput.contenders.task import Task


async def main(task: Task) -> None:
    """Submits all bodies."""
    limiter = AsyncLimiter(task.count, task.window_s)

    async def submit(session: aiohttp.ClientSession, body: str) -> None:
        async with limiter:
            try:
                async with session.post(task.url, data=body, raise_for_status=True):
                    pass
            except aiohttp.ClientError as error:
                print(f"failed: {error!r}", file=sys.stderr)

    async with aiohttp.ClientSession(headers=task.headers) as session:
        await asyncio.gather(*(submit(session, body) for body in task.bodies))


asyncio.run(main(Task.of_command_line()))
