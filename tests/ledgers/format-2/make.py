"""Makes the run of format 2 that stands beside this file, with the code of commit 68897e5, the last that wrote it.

    git archive 68897e5 | tar -x -C old
    PYTHONPATH=old python tests/ledgers/format-2/make.py FOLDER

Sessions that are processes of their own, against that commit's simulated service: the command ended by SIGINT, held
chunks looked for on the server, one of them sent again at a person's risk and one adopted, the command ended by SIGTERM
in a lock-out's wake, and the library killed while a sink takes its first record for ever. The service refuses what holds
a bad id, which is why some chunks are divided. In the end the write-ahead log is folded into the file, so that the
ledger is one file here.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path

from bulkjobs.simulator import FaultPlan, Limit, ServiceConfig, SimulatorServer, Span

PORT = 8899
BASE_URL = f"http://127.0.0.1:{PORT}/api/v1"
WRITTEN_UTC = 1_767_225_600  # 2026-01-01: what the ledger has recorded of the source
FAULTS = (
    "submit:html_after@5",
    "submit:http502_before@9",
    "submit:reset_after@13",
    "submit:reset_after@37",
    "status:http500_before@4",
)

LIBRARY = f"""
import asyncio, bulkjobs

async def for_ever(record):
    await asyncio.Event().wait()

async def main():
    settings = bulkjobs.Settings(
        base_url={BASE_URL!r}, login_url={BASE_URL!r}, access_token=bulkjobs.settings.Secret("simulator-token"),
        rate=None, max_active_jobs=None, chunk_size=10, workers=2, bisect=True,
    )
    async with bulkjobs.Client(settings, run="run") as client:
        await client.run("ids.txt", sink=for_ever)

asyncio.run(main())
"""


def ids():
    """Gives 400 ids and among them two bad ones, lines that are no ids, and ids that came before."""
    for number in range(4_001, 4_401):
        yield str(number)
        if number % 37 == 0:
            yield f"no id {number}"
        if number % 29 == 0:
            yield str(number - 11)


async def session(server, folder, *arguments, until_jobs=None, end_with=None):
    environ = {**os.environ, "BULKJOBS_ACCESS_TOKEN": "simulator-token"}
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=folder, env=environ)
    if until_jobs is not None:
        while server.service.totals()["jobs"] < until_jobs:
            assert process.returncode is None, "it ended too early"
            await asyncio.sleep(0.01)
        process.send_signal(end_with)
    await process.wait()
    return process.returncode


async def main(folder: Path) -> None:
    folder.mkdir()
    (folder / "ids.txt").write_text("\n".join(ids()) + "\n")
    os.utime(folder / "ids.txt", (WRITTEN_UTC, WRITTEN_UTC))
    config = ServiceConfig(
        seed=1,
        rate=Limit(count=16, window_s=3.0),
        lockout_s=1.0,
        job_time=Span(min_s=0.05, max_s=0.2),
        latency=Span(min_s=0.1, max_s=0.2),
        bad_ids=("4035", "4135"),
        faults=FaultPlan.of(*FAULTS),
    )
    shared = [
        "--base-url",
        BASE_URL,
        "--rate",
        "none",
        "--workers",
        "2",
        "--lockout",
        "1s",
        "--poll",
        "300ms",
    ]
    shared += ["--chunk-size", "10", "--bisect", "--settle", "1s"]
    submit = ["-m", "bulkjobs", "submit", "ids.txt", "--run", "run", *shared]
    settle = ["-m", "bulkjobs", "reconcile", "run", *shared]
    held = folder / "run" / "held.jsonl"
    async with SimulatorServer(config, port=PORT) as server:
        codes = [await session(server, folder, *submit, until_jobs=14, end_with=signal.SIGINT)]
        first = [json.loads(line)["chunk"] for line in held.read_text().splitlines()]
        codes.append(await session(server, folder, *settle, "--resubmit", str(first[-1])))
        codes.append(await session(server, folder, *settle))
        codes.append(await session(server, folder, *submit, until_jobs=26, end_with=signal.SIGTERM))
        codes.append(await session(server, folder, "-c", LIBRARY, until_jobs=32, end_with=signal.SIGKILL))
        print(first, codes, server.service.totals())
    database = sqlite3.connect(folder / "run" / "ledger.db")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    columns = {"chunk": "state", "job": "state", "attempt": "verdict", "request": "kind", "settlement": "how"}
    for table in (*columns, "lockout", "session", "finding", "baseline"):
        column = columns.get(table, "1")
        print(table, database.execute(f"SELECT {column}, count(*) FROM {table} GROUP BY 1").fetchall())
    print(database.execute("SELECT * FROM sink").fetchall(), database.execute("SELECT * FROM run").fetchall())
    database.close()
    for name in ("ledger.lock", "ledger.reserve", "ledger.stamp"):
        (folder / "run" / name).unlink(missing_ok=True)


asyncio.run(main(Path(sys.argv[1])))
