"""The life of a chunk is a table, and everything about it follows from the table."""

import itertools

import pytest

from bulkjobs.errors import InternalError
from bulkjobs.lifecycle import TRANSITIONS, check_transition, mermaid
from bulkjobs.model import ChunkState


def reachable(start: ChunkState) -> set[ChunkState]:
    found, edge = {start}, {start}
    while edge:
        edge = {after for before, after in TRANSITIONS if before in edge} - found
        found |= edge
    return found


def test_every_state_can_be_reached_from_planned():
    """No chunk is ever in a state that planning cannot lead to."""
    assert reachable(ChunkState.PLANNED) == set(ChunkState)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(ChunkState, repeat=2)))
def test_a_move_is_legal_exactly_when_it_stands_in_the_table(before, after):
    """What is not written down is refused, staying put included."""
    if (before, after) in TRANSITIONS:
        check_transition(before, after)
    else:
        with pytest.raises(InternalError, match=f"from {before.value} to {after.value}"):
            check_transition(before, after)


def test_bytes_leave_only_from_a_planned_chunk():
    """Nothing that may have been applied can be sent again without becoming planned first."""
    assert {before for before, after in TRANSITIONS if after is ChunkState.SENDING} == {ChunkState.PLANNED}


def test_an_accepted_chunk_is_never_sent_again():
    """The server has made a job of it, and a second one would be paid for."""
    assert reachable(ChunkState.ACCEPTED) == {ChunkState.ACCEPTED, ChunkState.DELIVERED}


def test_a_delivered_or_refused_chunk_stays_what_it_is():
    """Both are ends."""
    ends = set(ChunkState) - {before for before, _ in TRANSITIONS}
    assert {ChunkState.DELIVERED, ChunkState.REFUSED} <= ends


def test_the_diagram_shows_every_move_with_its_cause_and_nothing_else():
    """The docs draw what the code does."""
    head, begin, *lines = mermaid().splitlines()
    assert (head, begin.strip()) == ("stateDiagram-v2", "[*] --> planned")
    ends = {line.strip() for line in lines if line.endswith("[*]")}
    moves = {line.strip() for line in lines} - ends
    assert moves == {f"{before} --> {after}: {cause}" for (before, after), cause in TRANSITIONS.items()}
    assert ends == {
        f"{state} --> [*]" for state in ChunkState if state not in {before for before, _ in TRANSITIONS}
    }
