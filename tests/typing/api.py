"""What users write, checked by mypy and never run: a change of the public types shows here first."""

from collections.abc import AsyncIterator
from pathlib import Path

import bulkjobs
from bulkjobs.events import Event


async def ids() -> AsyncIterator[int]:
    yield 225


async def take(record: bulkjobs.JobRecord) -> None:
    print(record.job_id, record.as_dict())


def watch(event: Event) -> None:
    print(event)


async def streams() -> bulkjobs.RunSummary | None:
    settings = bulkjobs.Settings(rate=bulkjobs.Rate(count=50, period_s=2), access_token=bulkjobs.Secret("t"))
    async with bulkjobs.Client(settings, run="contacts.run", observers=[watch]) as client:
        async for record in client.submit(Path("ids.txt.gz"), ["13496440", 8802619, b"225"], ids()):
            await take(record)
        return client.summary


async def runs() -> int:
    async with bulkjobs.Client() as client:
        summary = await client.run("ids.txt", sink=["jobs.jsonl", take])
        paused: bool = (await client.control("pause")).paused
        print(paused, await client.control("rate", "600/5m"), (await client.control("workers", 2)).workers)
        client.drain("enough", exit_code=bulkjobs.Exit.SIGTERM)
        return summary.ids["accepted"] + summary.exit_code
