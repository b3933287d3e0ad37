"""A bare loop of aiohttp on uvloop that posts one ready body again and again: the fourth argument says how often."""

import asyncio
import os
import sys
from collections.abc import Iterator
from itertools import islice

import aiohttp
import uvloop


async def worker(session: aiohttp.ClientSession, url: str, body: bytes, left: Iterator[int]) -> None:
    """Posts the body until it was posted often enough."""
    headers = {"accessToken": os.environ["ACCESS_TOKEN"], "Content-Type": "text/plain"}
    for _ in left:
        async with session.post(url, data=body, headers=headers) as response:
            await response.read()


async def main(path: str, size: int, url: str, times: int) -> None:
    """Posts the first chunk so many times."""
    with open(path, "rb") as file:  # noqa: PTH123, ASYNC230 - once, before anything else
        body = b"".join(islice(file, size)).rstrip(b"\n")
    left = iter(range(times))
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(worker(session, url, body, left) for _ in range(8)))


uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
