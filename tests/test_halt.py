"""The switch that ends sending."""

import asyncio

import pytest

from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.testing import run_virtual


@pytest.fixture
def halt():
    return Halt()


def test_a_new_switch_has_nothing_to_say(halt):
    assert (halt.pulled, halt.codes, halt.reasons) == (False, [], None)


def test_pulling_tells_the_listeners_the_reason(halt):
    told = []
    halt.on_pull(told.append)
    halt.pull(Exit.STOPPED, "No quota is left.")
    assert (halt.pulled, halt.codes, told) == (True, [Exit.STOPPED], ["No quota is left."])


def test_every_reason_is_remembered_and_told_once(halt):
    """Eight workers that meet the same refusal are one reason."""
    told = []
    halt.on_pull(told.append)
    for _ in range(8):
        halt.pull(Exit.STOPPED, "No quota is left.")
    halt.pull(Exit.STORAGE, "The disk is full.")
    assert told == ["No quota is left.", "The disk is full."]
    assert halt.codes == [Exit.STOPPED, Exit.STORAGE]
    assert halt.reasons == "No quota is left. The disk is full."


def test_a_note_changes_the_exit_code_and_ends_nothing(halt):
    told = []
    halt.on_pull(told.append)
    halt.note(Exit.USAGE, "a.txt cannot be read.")
    halt.note(Exit.USAGE, "a.txt cannot be read.")
    assert (halt.pulled, halt.codes, told) == (False, [Exit.USAGE], [])


def test_a_reason_that_was_only_noted_can_still_pull(halt):
    told = []
    halt.on_pull(told.append)
    halt.note(Exit.STORAGE, "The disk is full.")
    halt.pull(Exit.STORAGE, "The disk is full.")
    assert (halt.pulled, halt.codes, told) == (True, [Exit.STORAGE], ["The disk is full."])


def test_a_pause_lasts_as_long_as_it_should(halt):
    async def main():
        began = asyncio.get_running_loop().time()
        whole = await halt.pause(60.0)
        return whole, asyncio.get_running_loop().time() - began

    assert run_virtual(main()) == (True, pytest.approx(60.0))


def test_pulling_ends_every_pause_at_once(halt):
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(5.0, halt.pull, Exit.SIGINT, "stopped")
        pauses = await asyncio.gather(halt.pause(60.0), halt.pause(3600.0), halt.pause(1.0))
        return pauses, loop.time(), await halt.pause(60.0), loop.time()

    pauses, first, later, second = run_virtual(main())
    assert (pauses, later) == ([False, False, True], False)
    assert first == pytest.approx(5.0)
    assert second == pytest.approx(5.0)
