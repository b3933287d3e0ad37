"""httpx under aiometer: `amap` over the bodies, eight at once, as its README shows."""

import asyncio
import functools
import os
import sys

import aiometer
import httpx

from benchmarks.contenders.usual_bodies import bodies


async def submit(client: httpx.AsyncClient, url: str, body: str) -> str:
    """Submits one body and gives the job's id."""
    response = await client.post(url, content=body)
    response.raise_for_status()
    return str(response.json()["jobId"])


async def main(path: str, size: int, url: str) -> None:
    """Submits all bodies."""
    headers = {"accessToken": os.environ["ACCESS_TOKEN"], "Content-Type": "text/plain"}
    with open("jobs.txt", "w", encoding="utf-8") as out:  # noqa: PTH123, ASYNC230 - as everybody does
        async with (
            httpx.AsyncClient(headers=headers) as client,
            # aiometer takes a list, so all bodies are in memory.
            aiometer.amap(
                functools.partial(submit, client, url), list(bodies(path, size)), max_at_once=8
            ) as results,
        ):
            async for job in results:
                out.write(f"{job}\n")


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
