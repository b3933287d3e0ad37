"""The command against a service that refuses: real processes and sockets, and books that judge."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.fussy import FussyService
from support.simulated import TOKEN, Account, json_lines

from bulkjobs.exits import Exit
from bulkjobs.simulator import ServiceConfig, SimulatorServer, Span

ROOT = Path(__file__).parent.parent
FIRST_ID = 52_000_001
IDS = range(FIRST_ID, FIRST_ID + 100)
BAD = frozenset({FIRST_ID + 7, FIRST_ID + 61})

Serve = Callable[..., SimulatorServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Serve:
    (tmp_path / "ids.txt").write_text("".join(f"{one}\n" for one in IDS))

    def make(**rules: Any) -> SimulatorServer:
        monkeypatch.setattr("bulkjobs.simulator.server.Service", partial(FussyService, **rules))
        return SimulatorServer(ServiceConfig(job_time=Span(min_s=0.0, max_s=0.0)))

    return make


class Shell:
    """Gives commands in a folder, against a service."""

    def __init__(self, server: SimulatorServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.run_dir = folder / "ids.txt.run"

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "BULKJOBS_ACCESS_TOKEN": TOKEN,
            "BULKJOBS_BASE_URL": self._server.base_url,
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "bulkjobs", *arguments),
            cwd=self._folder,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        process = await self.start(*arguments, "--json")
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, json.loads(out), err.decode()

    async def submit(self, *options: str) -> tuple[int, dict[str, Any], str]:
        return await self.run(*self.command(*options))

    @staticmethod
    def command(*options: str) -> list[str]:
        free = ["--rate", "none", "--max-active-jobs", "none", "--workers", "3", "--on-unknown", "hold"]
        return ["submit", "ids.txt", "--chunk-size", "40", *free, *options]

    def check(self) -> None:
        Account.of(self.run_dir, self._server.service, time.time() + 1e9).check(IDS)

    @property
    def refused(self) -> dict[str, list[int]]:
        return {
            path.name: [int(one) for one in path.read_text().split()]
            for path in (self.run_dir / "refused").glob("chunk-*.txt")
        }


async def test_bisect_refuses_the_bad_ids_alone_and_the_same_command_again_sends_nothing(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(bad=BAD) as server:
        shell = Shell(server, tmp_path)
        code, summary, err = await shell.submit("--bisect")
        assert code == summary["exit_code"] == Exit.PARTS_REFUSED, err
        assert (summary["ids"]["accepted"], summary["ids"]["refused"]) == (98, 2)
        assert sorted(one for ids in shell.refused.values() for one in ids) == sorted(BAD)
        assert {line["file"] for line in json_lines(shell.run_dir / "refused" / "reasons.jsonl")} == set(
            shell.refused
        )
        assert min(shell.refused) > "chunk-1000000000.txt"
        assert "goes out in 2 parts: HTTP 400. The server says: 400-187 Company id is not valid." in err
        shell.check()
        requests = summary["requests"]["submit"]
        again, summary, _ = await shell.submit("--bisect")
        assert (again, summary["requests"]["submit"]) == (Exit.PARTS_REFUSED, requests)


async def test_without_bisect_whole_chunks_are_refused_to_be_fed_again_with_it(
    serve: Serve, tmp_path: Path
) -> None:
    """The files under `refused` are sources of another run."""
    async with serve(bad=BAD) as server:
        shell = Shell(server, tmp_path)
        code, summary, _ = await shell.submit()
        assert (code, summary["ids"]["refused"]) == (Exit.PARTS_REFUSED, 80)
        files = [f"ids.txt.run/refused/{name}" for name in sorted(shell.refused)]
        assert [Path(one).name for one in files] == ["chunk-00000001.txt", "chunk-00000002.txt"]
        more = ("--rate", "none", "--max-active-jobs", "none", "--on-unknown", "hold")
        code, summary, _ = await shell.run("submit", *files, "--run", "again.run", "--bisect", *more)
        assert (code, summary["ids"]["accepted"], summary["ids"]["refused"]) == (Exit.PARTS_REFUSED, 78, 2)


async def test_a_body_that_is_too_large_goes_out_in_parts_unasked(serve: Serve, tmp_path: Path) -> None:
    async with serve(most_bytes=200) as server:
        shell = Shell(server, tmp_path)
        code, summary, err = await shell.submit()
        assert (code, summary["ids"]["accepted"]) == (Exit.ACCEPTED, 100)
        assert "goes out in 2 parts: HTTP 413. The body is too large." in err
        assert {record["ids"] for record in json_lines(shell.run_dir / "jobs.jsonl")} == {20}
        shell.check()


async def test_killed_in_the_middle_of_bisecting_the_same_command_goes_on(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(bad=frozenset(IDS[::9])) as server:
        shell = Shell(server, tmp_path)
        process = await shell.start(*shell.command("--bisect"))
        while server.service.totals()["jobs"] < 5:
            assert process.returncode is None
            await asyncio.sleep(0.002)
        process.kill()
        await process.communicate()
        code, summary, err = await shell.submit("--bisect")
        assert code == (Exit.HELD if summary["ids"]["held"] else Exit.PARTS_REFUSED), err
        assert summary["ids"]["pending"] == 0
        assert summary["chunks"]["held"] <= 3
        shell.check()
