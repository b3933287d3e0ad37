"""The ledger's record of what people told a run to do while it worked."""

from __future__ import annotations

import pytest

from bulkjobs.errors import InternalError
from bulkjobs.ledger import Ledger, read_run
from bulkjobs.ledger.inspection import inspecting

IDENTITY = {"endpoint": "contacts"}


class HandClock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def utc(self):
        self.now += 1.0
        return self.now


@pytest.fixture
async def ledger(tmp_path):
    async with await Ledger.open(tmp_path / "run", clock=HandClock()) as ledger:
        await ledger.create_run(IDENTITY)
        yield ledger


async def test_each_command_is_on_record_with_its_session_time_value_and_origin(ledger, tmp_path):
    await ledger.begin_session()
    await ledger.record_control("rate", "900/5m", "control, uid 1000, pid 4242")
    await ledger.record_control("pause", None, "control")
    with inspecting(tmp_path / "run") as now:
        first, second = now.controls()
    assert (first.number, first.session, first.command, first.value) == (1, 1, "rate", "900/5m")
    assert first.origin == "control, uid 1000, pid 4242"
    assert (second.number, second.session, second.command, second.value) == (2, 1, "pause", None)
    assert first.at_utc < second.at_utc


async def test_without_a_session_there_is_nobody_to_command(ledger):
    with pytest.raises(InternalError, match="No session is open"):
        await ledger.record_control("pause", None, "control")


@pytest.mark.parametrize(
    ("commands", "paused"),
    [
        ([], False),
        (["pause"], True),
        (["pause", "workers", "rate"], True),
        (["pause", "resume"], False),
        (["pause", "resume", "pause"], True),
        (["pause", "drain"], False),
    ],
)
async def test_an_onlooker_sees_whether_the_run_is_paused(ledger, tmp_path, commands, paused):
    await ledger.begin_session()
    for command in commands:
        await ledger.record_control(command, None, "control")
    pause = read_run(tmp_path / "run").paused_by
    assert (pause is not None) is paused


async def test_a_session_that_follows_a_paused_one_is_not_paused(tmp_path):
    async with await Ledger.open(tmp_path / "run", clock=HandClock()) as ledger:
        await ledger.create_run(IDENTITY)
        await ledger.begin_session()
        await ledger.record_control("pause", None, "control")
    assert read_run(tmp_path / "run").paused_by is None  # nobody works on it
    async with await Ledger.open(tmp_path / "run", clock=HandClock()) as ledger:
        await ledger.begin_session()
        assert read_run(tmp_path / "run").paused_by is None
