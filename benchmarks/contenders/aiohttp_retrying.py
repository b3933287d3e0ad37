"""aiohttp-retry with its `ExponentialRetry`; eight tasks share the bodies."""

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from aiohttp_retry import ExponentialRetry, RetryClient

from benchmarks.contenders.usual_bodies import bodies


async def work(client: RetryClient, url: str, chunks: Iterator[str], out: TextIO) -> None:
    """Submits bodies one after the other until there are none."""
    for body in chunks:
        async with client.post(url, data=body, raise_for_status=True) as response:
            out.write(f"{(await response.json())['jobId']}\n")


async def main(path: str, size: int, url: str) -> None:
    """Submits all bodies."""
    headers = {"accessToken": os.environ["ACCESS_TOKEN"], "Content-Type": "text/plain"}
    options = ExponentialRetry(attempts=10, statuses={429})
    chunks = bodies(path, size)
    with open("jobs.txt", "w", encoding="utf-8") as out:  # noqa: PTH123, ASYNC230 - as everybody does
        async with RetryClient(headers=headers, retry_options=options) as client:
            await asyncio.gather(*(work(client, url, chunks, out) for _ in range(8)))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
