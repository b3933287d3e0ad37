"""The command, killed at a given byte on the wire: the places between a durable intent and a read answer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import pytest
from support.faults import FaultProxy
from support.simulated import TOKEN, Account

from bulkjobs.simulator import ServiceConfig, SimulatorServer

ROOT = Path(__file__).parent.parent
IDS = range(41_000_001, 41_000_041)
CHUNK = 10
BODY_BYTES = CHUNK * 9 - 1
SECOND = 2
"""The chunk whose POST is hit; with one worker the POSTs come in the order of the chunks."""


async def start(folder: Path, base_url: str) -> asyncio.subprocess.Process:
    command = ["submit", "ids.txt", "--chunk-size", str(CHUNK), "--workers", "1", "--json"]
    command += ["--rate", "none", "--max-active-jobs", "none", "--on-unknown", "hold", "--base-url", base_url]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkjobs",
        *command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "BULKJOBS_ACCESS_TOKEN": TOKEN},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "at_bytes", "jobs_of_the_chunk"),
    [
        ("body", 0, 0),
        ("body", BODY_BYTES // 2, 0),
        ("answer", 0, 1),
        ("answer", 40, 1),
    ],
    ids=["after the head", "in the body", "before the answer", "in the answer"],
)
async def test_a_chunk_killed_on_the_wire_is_held_and_every_other_one_is_sent_once(
    tmp_path: Path, where: str, at_bytes: int, jobs_of_the_chunk: int
) -> None:
    """Whether there is a job of it cannot be known from here, and differs between these places."""
    (tmp_path / "ids.txt").write_text("".join(f"{one}\n" for one in IDS))
    config = ServiceConfig(max_active_jobs=None)
    async with SimulatorServer(config) as server, FaultProxy(server.origin) as proxy:
        base_url = proxy.through(server.base_url)
        victim = await start(tmp_path, base_url)

        async def kill() -> None:
            victim.kill()
            await victim.wait()

        watch = proxy.when_body_passed if where == "body" else proxy.when_answer_passed
        watch(at_bytes, kill, post=SECOND, cut=True)
        await victim.communicate()
        assert victim.returncode == -9
        await proxy.quiet()
        again = await start(tmp_path, base_url)
        out, err = await again.communicate()
        summary = json.loads(out)
        account = Account.of(tmp_path / "ids.txt.run", server.service, time.time())
        assert account.check(IDS) == summary
    assert again.returncode == summary["exit_code"] == 4, err
    chunks = len(IDS) // CHUNK
    assert summary["chunks"] == {
        "total": chunks,
        "accepted": chunks - 1,
        "refused": 0,
        "held": 1,
        "pending": 0,
    }
    assert len(account.bodies) == chunks - 1 + jobs_of_the_chunk
    assert (len(proxy.posts), proxy.errors) == (chunks, [])
