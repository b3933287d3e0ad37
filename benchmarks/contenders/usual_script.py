"""The usual script: lines of a file, joined, posted by a few tasks with aiohttp under an aiolimiter.

It checks nothing, knows no duplicates and keeps no journal but a file of job ids.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import aiohttp
from aiolimiter import AsyncLimiter

HEADERS = {
    "accessToken": os.environ["ACCESS_TOKEN"],
    "Content-Type": "text/plain",
    "Accept": "application/json",
}


def bodies(path: str, size: int) -> Iterator[str]:
    """Gives the lines of a file in chunks."""
    chunk: list[str] = []
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the usual script
        for line in file:
            chunk.append(line.strip())
            if len(chunk) == size:
                yield "\n".join(chunk)
                chunk = []
    if chunk:
        yield "\n".join(chunk)


async def worker(
    session: aiohttp.ClientSession, limiter: AsyncLimiter, url: str, chunks: Iterator[str], out: TextIO
) -> None:
    """Posts one chunk after the other."""
    for body in chunks:
        async with limiter, session.post(url, data=body, headers=HEADERS) as response:
            response.raise_for_status()
            answer = await response.json()
            out.write(f"{answer['jobId']}\n")


async def main(path: str, size: int, url: str) -> None:
    """Posts them all."""
    limiter = AsyncLimiter(100_000, 1)
    chunks = bodies(path, size)
    with open("jobs.txt", "w", encoding="utf-8") as out:  # noqa: PTH123, ASYNC230 - the usual script
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(worker(session, limiter, url, chunks, out) for _ in range(8)))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
