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

from benchmarks.contenders.usual_bodies import bodies


async def worker(
    session: aiohttp.ClientSession, limiter: AsyncLimiter, url: str, chunks: Iterator[str], out: TextIO
) -> None:
    """Posts one chunk after the other."""
    for body in chunks:
        async with limiter, session.post(url, data=body) as response:
            response.raise_for_status()
            answer = await response.json()
            out.write(f"{answer['jobId']}\n")


async def main(path: str, size: int, url: str) -> None:
    """Posts them all."""
    headers = {"accessToken": os.environ["ACCESS_TOKEN"], "Content-Type": "text/plain"}
    limiter = AsyncLimiter(100_000, 1)  # more than there are: it is never waited for
    chunks = bodies(path, size)
    with open("jobs.txt", "w", encoding="utf-8") as out:  # noqa: PTH123, ASYNC230 - as everybody does
        async with aiohttp.ClientSession(headers=headers) as session:
            await asyncio.gather(*(worker(session, limiter, url, chunks, out) for _ in range(8)))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
