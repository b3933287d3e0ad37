"""Makes the run of format 1 that stands beside this file, with the code of commit 4d84b42, the last that wrote it.

    git archive 4d84b42 | tar -x -C old
    PYTHONPATH=old python tests/ledgers/format-1/make.py FOLDER

Three sessions, each a process of its own, against that commit's simulated service: the command ended by SIGINT, the
command ended by SIGTERM in a lock-out's wake, and the library killed while a sink takes its first record for ever. The
service refuses what holds the id 4135; apart from that it is as it was. In the end the write-ahead log is folded
into the file, so that the ledger is one file here.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path

import bulkjobs.simulator.service as service_module
from bulkjobs.simulator import FaultPlan, Limit, ServiceConfig, SimulatorServer, Span
from bulkjobs.simulator.messages import Refusal

PORT = 8899
BASE_URL = f"http://127.0.0.1:{PORT}/api/v1"
BAD = b"4135"
WRITTEN_UTC = 1_767_225_600  # 2026-01-01: what the ledger has recorded of the source
FAULTS = ("submit:html_after@5", "submit:http502_before@9", "status:http500_before@4")

LIBRARY = f"""
import asyncio, bulkjobs

async def for_ever(record):
    await asyncio.Event().wait()

async def main():
    settings = bulkjobs.Settings(
        base_url={BASE_URL!r}, login_url={BASE_URL!r}, access_token=bulkjobs.settings.Secret("simulator-token"),
        rate=None, max_active_jobs=None, chunk_size=10, workers=2,
    )
    async with bulkjobs.Client(settings, run="run") as client:
        await client.run("ids.txt", sink=for_ever)

asyncio.run(main())
"""


def ids():
    """Gives 400 ids and among them the bad one, lines that are no ids, and ids that came before."""
    for number in range(4_001, 4_401):
        yield str(number)
        if number % 37 == 0:
            yield f"no id {number}"
        if number % 29 == 0:
            yield str(number - 11)


def refuse_the_bad_one(count_ids):
    def count(body, *, max_ids):
        if BAD in body.split(b"\n"):
            raise Refusal(
                400, "400-107", f"Please enter a valid number for contactId. Given value is {BAD!r}"
            )
        return count_ids(body, max_ids=max_ids)

    return count


async def session(server, folder, *arguments, until_jobs, end_with):
    environ = {**os.environ, "BULKJOBS_ACCESS_TOKEN": "simulator-token"}
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=folder, env=environ)
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
    service_module.count_ids = refuse_the_bad_one(service_module.count_ids)
    config = ServiceConfig(
        seed=1,
        rate=Limit(count=14, window_s=3.0),
        lockout_s=1.0,
        job_time=Span(min_s=0.05, max_s=0.2),
        latency=Span(min_s=0.1, max_s=0.2),
        faults=FaultPlan.of(*FAULTS),
    )
    command = [
        "-m",
        "bulkjobs",
        "submit",
        "ids.txt",
        "--run",
        "run",
        "--base-url",
        BASE_URL,
        "--rate",
        "none",
    ]
    command += ["--chunk-size", "10", "--workers", "2", "--lockout", "1s", "--poll", "300ms"]
    async with SimulatorServer(config, port=PORT) as server:
        codes = [
            await session(server, folder, *command, until_jobs=8, end_with=signal.SIGINT),
            await session(server, folder, *command, until_jobs=16, end_with=signal.SIGTERM),
            await session(server, folder, "-c", LIBRARY, until_jobs=21, end_with=signal.SIGKILL),
        ]
        print(codes, server.service.totals())
    database = sqlite3.connect(folder / "run" / "ledger.db")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for table in ("chunk", "job", "attempt", "request", "lockout", "session"):
        column = {"chunk": "state", "job": "state", "attempt": "verdict", "request": "kind"}.get(table, "1")
        print(table, database.execute(f"SELECT {column}, count(*) FROM {table} GROUP BY 1").fetchall())
    print(database.execute("SELECT * FROM sink").fetchall(), database.execute("SELECT * FROM run").fetchall())
    database.close()
    (folder / "run" / "ledger.lock").unlink(missing_ok=True)


asyncio.run(main(Path(sys.argv[1])))
