"""Plays a scenario: with the ledger's writer on the loop, with ledgers on files or in memory, and without a trace left."""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from unittest import mock

from bulkjobs.simulator import Service
from support.simulation.databases import OpenDatabases
from support.simulation.loop import LoopWriter, SimulationLoop
from support.simulation.process import End
from support.simulation.scenario import Scenario
from support.simulation.world import Outcome, World

__all__ = ["simulate"]

_MEMORY: Final = Path("/dev/shm")
"""A file system in memory, where there is one; folders in it are made with tempfile."""
_RESERVE_BYTES: Final = 4096
"""Of the room that a run keeps: no disk fills up here, and 16 MiB of memory for each process cost a tenth of all."""


def simulate(
    scenario: Scenario,
    *,
    on_files: bool = True,
    keep_trace: bool = False,
    to_the_end: bool = False,
    ask_judge: bool = False,
) -> Outcome:
    """Runs a scenario to its end, or to the first violation.

    Args:
        scenario: what to run.
        on_files: whether ledgers are files that each process opens, or stay open in memory (`databases`), which takes
            two thirds of the time and comes to the same trace. What the power takes is taken from files in any case.
        keep_trace: whether to keep the trace and not only its hash.
        to_the_end: whether to go on after a violation, so that the end can be judged too.
        ask_judge: whether to ask the judge too who knows nothing of simulations; he reads the file.
    """
    folder = Path(tempfile.mkdtemp(prefix="bulkjobs-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))
    if ask_judge:
        scenario = replace(scenario, config=replace(scenario.config, books=folder / "books"))
    on_files |= ask_judge or any(ending.how is End.POWER for ending in scenario.endings)
    try:
        with _garbage_kept(), _writer_on_the_loop(), _ledgers(on_files=on_files) as databases:
            return _played(scenario, folder, databases, keep_trace=keep_trace, to_the_end=to_the_end)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _played(
    scenario: Scenario, folder: Path, databases: OpenDatabases | None, *, keep_trace: bool, to_the_end: bool
) -> Outcome:
    with Service(scenario.config) as service:
        world = World(scenario, service, folder, databases, keep_trace=keep_trace, to_the_end=to_the_end)
        with asyncio.Runner(loop_factory=SimulationLoop) as runner:
            runner.run(world.run())
        return world.outcome()


@contextmanager
def _writer_on_the_loop() -> Iterator[None]:
    """Lets ledgers be written by the loop. The thread's own behaviour has tests of its own."""
    with (
        mock.patch("bulkjobs.ledger.ledger.Writer", LoopWriter),
        mock.patch("bulkjobs.ledger.reserve.RESERVE_BYTES", _RESERVE_BYTES),
        # These read the list of mounts, and write for `bulkjobs status`, which nobody asks here.
        mock.patch("bulkjobs.ledger.ledger.refuse_network_filesystem", _pass_over),
        mock.patch("bulkjobs.outlook.Outlook._write", _pass_over),
    ):
        yield


def _pass_over(*_: object) -> None:
    """Does nothing, instead of something that takes time and is looked at by nobody here."""


@contextmanager
def _ledgers(*, on_files: bool) -> Iterator[OpenDatabases | None]:
    if on_files:
        yield None
        return
    with closing(OpenDatabases()) as databases, mock.patch("bulkjobs.ledger.schema._opened", databases.open):
        yield databases


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Lets nothing be collected but what the simulation made: when the world says so, and when it is gone.

    To look again and again through what the modules hold takes as long as the ledger's work.
    """
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()  # what is left would be frozen as well, and stay for as long as there are simulations
        gc.enable()
        gc.unfreeze()
