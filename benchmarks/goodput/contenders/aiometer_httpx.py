"""httpx under aiometer, with the limit as requests a second; what is refused is reported and left.

Source: https://github.com/florimondmanca/aiometer, README: `amap` over the requests with `max_at_once` and
`max_per_second`.
"""

import asyncio
import functools
import sys

import aiometer
import httpx

from benchmarks.goodput.contenders.task import CONCURRENT, Task


async def submit(client: httpx.AsyncClient, url: str, body: str) -> None:
    """Submits one body."""
    try:
        response = await client.post(url, content=body)
        response.raise_for_status()
    except httpx.HTTPError as error:
        print(f"failed: {error!r}", file=sys.stderr)


async def main(task: Task) -> None:
    """Submits all bodies."""
    async with (
        httpx.AsyncClient(headers=task.headers) as client,
        aiometer.amap(
            functools.partial(submit, client, task.url),
            task.bodies,
            max_at_once=CONCURRENT,
            max_per_second=task.count / task.window_s,
        ) as results,
    ):
        async for _ in results:
            pass


asyncio.run(main(Task.of_command_line()))
