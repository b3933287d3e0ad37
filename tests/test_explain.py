"""The explanation of one id: every place it stands in, and everything that became of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scripted import by_ids, doctor, run_with
from support.simulated import crash_image

from bulkjobs.__main__ import main
from bulkjobs.audit import Explanation, explain_id
from bulkjobs.audit.occurrences import Finder
from bulkjobs.chunking import Chunker
from bulkjobs.errors import ConfigError, SourceError
from bulkjobs.testing import answered, lost

PART = 1_000_000_001


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A run with everything in it.

    Chunk 1 (1 to 4), 2 (5 to 8) and 3 (9 to 12) are accepted, 4 (66 to 15) is refused, 5 (77 to 18) is held, 6 (99 to
    21) was split into two parts, the first of them into two again.
    """
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "a.txt").write_text("1\n2\nx\n2\n3\n4\n5\n6\n7\n8\n")
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"9\n10\n-5\n11\n12\n66\n13\n14\n15\n"))
    ids = [77, 16, "07", 17, 18, 99, 19, 20, 21, 5]
    run_with(folder / "run", folder / "a.txt", folder / "b.txt.gz", ids, answers=by_ids)
    return folder / "run"


def places(found: Explanation) -> list[tuple[str, int, str]]:
    return [
        (Path(one.source).name, one.line, found.role(index)) for index, one in enumerate(found.occurrences)
    ]


def fate(found: Explanation) -> Any:
    (only,) = found.fates
    return only


# --- where it stands ---


def test_an_accepted_id_has_its_chunk_its_attempt_its_job_and_its_record(mixed):
    """All that anybody may want to know of it."""
    found = explain_id(mixed, "7")
    assert (found.kind, found.in_run, found.count) == ("id", True, 1)
    assert places(found) == [("a.txt", 9, "first")]
    one = fate(found)
    assert (one.state, one.position, one.same) == ("accepted", 3, True)
    assert [chunk.ordinal for chunk in one.chain] == [2]
    assert [(attempt.attempt, attempt.verdict, attempt.status) for attempt in one.attempts] == [
        (1, "accepted", 200)
    ]
    assert one.job.job_id == "job-0-2"
    assert one.delivered
    assert one.records == [(str(mixed / "jobs.jsonl"), 2)]
    assert one.next == ""


def test_every_occurrence_is_named_and_the_first_counts(mixed):
    """Over all sources; a copy is a source like any other."""
    assert places(explain_id(mixed, "2")) == [("a.txt", 2, "first"), ("a.txt", 4, "duplicate")]
    assert places(explain_id(mixed, "5")) == [("a.txt", 7, "first"), ("iterable 3", 10, "duplicate")]
    assert fate(explain_id(mixed, "5")).chain[0].ordinal == 2


@pytest.mark.parametrize("number", [*range(1, 22), 66, 77, 99])
def test_each_id_is_found_where_it_is(mixed, number):
    """Its chunk holds it at the position that is told."""
    one = fate(explain_id(mixed, str(number)))
    order = [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 11, 12],
        [66, 13, 14, 15],
        [77, 16, 17, 18],
        [99, 19, 20, 21],
    ]
    expected = next((at, row.index(number) + 1) for at, row in enumerate(order, 1) if number in row)
    assert (one.chain[0].ordinal, one.position) == expected


@pytest.mark.parametrize(
    ("text", "source", "line", "reason"),
    [
        ("x", "a.txt", 3, "not a number"),
        ("-5", "b.txt.gz", 3, "signed number"),
        ("07", "iterable 3", 3, "leading zero"),
    ],
)
def test_a_text_that_is_no_id_is_looked_up_among_the_invalid(mixed, text, source, line, reason):
    """With the reason why it was not sent."""
    found = explain_id(mixed, text)
    assert (found.kind, found.reason) == ("invalid", reason)
    assert places(found) == [(source, line, "invalid")]
    assert found.fates == []


@pytest.mark.parametrize("text", ["123", "y", "10.0"])
def test_what_stands_in_no_source_is_not_in_the_run(mixed, text):
    """A part of an id is not that id."""
    found = explain_id(mixed, text)
    assert (found.kind, found.in_run, found.count, found.fates) == ("absent", False, 0, [])


def test_an_id_that_stands_there_very_often_is_counted(tmp_path):
    """And named no more than a thousand times."""
    (tmp_path / "ids.txt").write_text("1\n" * 1_500 + "2\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    found = explain_id(tmp_path / "run", "1")
    assert (found.count, len(found.occurrences)) == (1_500, 1_000)


def test_without_dedupe_each_occurrence_has_a_fate_of_its_own(tmp_path):
    """Each was sent, and each is paid for."""
    (tmp_path / "ids.txt").write_text("1\n2\n1\n3\n1\n4\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt", dedupe=False)
    found = explain_id(tmp_path / "run", "1")
    assert places(found) == [("ids.txt", 1, "id"), ("ids.txt", 3, "id"), ("ids.txt", 5, "id")]
    assert [(one.chain[0].ordinal, one.position) for one in found.fates] == [(1, 1), (1, 3), (2, 1)]


def test_a_chunk_among_duplicates_of_far_earlier_ids_is_found_all_the_same(tmp_path):
    """Then everything before it is cut once more."""
    lines = [*range(1, 41), *(n for pair in zip(range(1, 41), range(41, 81), strict=True) for n in pair)]
    (tmp_path / "ids.txt").write_text("".join(f"{n}\n" for n in lines))
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    for number in (1, 40, 41, 43, 80):
        one = fate(explain_id(tmp_path / "run", str(number)))
        assert (one.chain[0].ordinal, one.position) == ((number - 1) // 4 + 1, (number - 1) % 4 + 1)


def test_several_chunks_on_one_line_are_told_apart(tmp_path):
    """As in a list with commas."""
    (tmp_path / "ids.txt").write_text(", ".join(map(str, range(1, 31))))
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    for number in range(1, 31):
        one = fate(explain_id(tmp_path / "run", str(number)))
        assert (one.chain[0].ordinal, one.position) == ((number - 1) // 4 + 1, (number - 1) % 4 + 1)


def test_a_source_that_stands_twice_is_searched_twice(tmp_path):
    """The second time it has only duplicates."""
    (tmp_path / "ids.txt").write_text("1\n2\n3\n4\n5\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt", tmp_path / "ids.txt")
    found = explain_id(tmp_path / "run", "5")
    assert places(found) == [("ids.txt", 5, "first"), ("ids.txt", 5, "duplicate")]
    assert (fate(found).chain[0].ordinal, fate(found).position) == (2, 1)


TOKENS = st.sampled_from(
    ["12", "1", "123", " 12", "12 ", "12\t", "x12", "012", "1 2", "", "12\r", "\ufeff12", "9" * 20]
)
SEPARATORS = st.sampled_from(["\n", ",", ", ", "\r\n", "\n\n", " ,"])


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.tuples(TOKENS, SEPARATORS), max_size=30),
    end=st.sampled_from(["", "12", "12\r", " 12", "1"]),
    start=st.sampled_from(["", "\ufeff"]),
    cuts=st.lists(st.integers(1, 60), max_size=20),
)
def test_an_id_is_found_exactly_where_the_chunker_finds_it(pieces, end, start, cuts):
    """Whatever stands around it and wherever a block happens to end."""
    data = (start + "".join(token + separator for token, separator in pieces) + end).encode()
    blocks, at = [], 0
    for size in cuts:
        blocks.append(data[at : at + size])
        at += size
    blocks.append(data[at:])
    chunker, finder = Chunker(1, dedupe=False), Finder(b"12")
    chunker.begin("s")
    chunks, lines = [], []
    for block in filter(None, blocks):
        chunks += chunker.feed(block).chunks
        lines += finder.feed(block)
    chunks += chunker.end().chunks
    lines += finder.end()
    assert lines == [chunk.line for chunk in chunks if chunk.body == b"12"]


@pytest.mark.parametrize("blanks", [b" " * 200_000, b"\t" * 70_000])
@pytest.mark.parametrize(
    "around", [(b"", b"\n12"), (b"12", b"\n"), (b"12", b"\r\n"), (b"12", b"3\n12\n"), (b"", b"12")]
)
def test_blanks_without_end_hide_no_id(blanks, around):
    """The rest of a block that is kept stays small, and right."""
    data = around[0] + blanks + around[1]
    chunker, finder = Chunker(1, dedupe=False), Finder(b"12")
    chunker.begin("s")
    chunks, lines = [], []
    for begin in range(0, len(data), 50_000):
        chunks += chunker.feed(data[begin : begin + 50_000]).chunks
        lines += finder.feed(data[begin : begin + 50_000])
    chunks += chunker.end().chunks
    lines += finder.end()
    assert lines == [chunk.line for chunk in chunks if chunk.body == b"12"]


# --- what became of it ---


def test_a_refused_id_has_the_servers_reason_and_the_file_of_its_chunk(mixed):
    """So that it can be mended and fed again."""
    one = fate(explain_id(mixed, "14"))
    assert one.state == "refused"
    assert "Illegal values" in one.why
    assert str(mixed / "refused" / "chunk-00000004.txt") in one.next


def test_a_held_id_has_its_evidence_and_what_a_person_can_do(mixed):
    """Nobody can know, and it is never sent again by itself."""
    one = fate(explain_id(mixed, "17"))
    assert one.state == "held"
    assert "Nobody can know" in one.why
    assert f"bulkjobs reconcile {mixed}" in one.next
    assert [(attempt.verdict, attempt.error) for attempt in one.attempts] == [("unknown", "TimeoutError")]
    assert one.job is None


def test_a_held_id_that_could_not_be_settled_says_why(mixed, tmp_path):
    """As the session found that tried."""
    shutil.copytree(mixed, tmp_path / "run")
    doctor(tmp_path / "run", "INSERT INTO finding (chunk, at_utc, reason) VALUES (5, 0, 'two jobs fit.')")
    assert fate(explain_id(tmp_path / "run", "17")).why.endswith("It could not be settled: two jobs fit.")


def test_an_id_of_a_split_chunk_has_every_part_it_went_through(mixed):
    """And the attempts of each."""
    one = fate(explain_id(mixed, "19"))
    assert [chunk.ordinal for chunk in one.chain] == [6, PART, PART + 3]
    assert (one.state, one.position) == ("accepted", 2)
    assert [(attempt.chunk, attempt.verdict) for attempt in one.attempts] == [
        (6, "not_applied"),
        (PART, "not_applied"),
        (PART + 3, "accepted"),
    ]
    assert [chunk.ordinal for chunk in fate(explain_id(mixed, "21")).chain] == [6, PART + 1]


def test_a_chunk_that_was_tried_again_has_all_its_attempts(tmp_path):
    """With what each has shown."""
    answers = iter([answered(429, retry_after="7"), lost("refused", phase=0), None])
    (tmp_path / "ids.txt").write_text("1\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt", answers=lambda _: next(answers))
    one = fate(explain_id(tmp_path / "run", "1"))
    assert [attempt.attempt for attempt in one.attempts] == list(range(1, len(one.attempts) + 1))
    assert one.attempts[0].retry_after == "7"
    assert one.attempts[0].cause == "throttled"


def test_a_pending_id_of_a_run_that_stopped_says_why_and_how_to_go_on(tmp_path):
    """The quota, a lock-out, a crash: what it is stands there."""
    (tmp_path / "ids.txt").write_text("".join(f"{n}\n" for n in range(1, 101)))
    quota = answered(400, b'{"errorNumber": "400-153", "message": "Insufficient transaction quota."}')
    run_with(tmp_path / "run", tmp_path / "ids.txt", answers=lambda ids: None if 1 in ids else quota)
    one = fate(explain_id(tmp_path / "run", "5"))
    assert one.state == "pending"
    assert "sent again" in one.why
    assert "exit code 5" in one.why
    assert one.next == f"Go on with: bulkjobs resume {tmp_path / 'run'}"
    later = fate(explain_id(tmp_path / "run", "100"))
    assert later.chain == []
    assert "has not read so far yet" in later.why


def test_a_pending_id_says_until_when_the_account_is_locked_out(tmp_path):
    """Nothing is sent before that."""
    (tmp_path / "ids.txt").write_text("1\n2\n3\n4\n5\n")
    quota = answered(400, b'{"message": "Insufficient transaction quota."}')
    run_with(tmp_path / "run", tmp_path / "ids.txt", answers=lambda ids: None if 1 in ids else quota)
    doctor(
        tmp_path / "run", "INSERT INTO lockout (began_utc, until_utc, reason) VALUES (1, 4102444800.0, '429')"
    )
    assert "locked out until 2100-01-01" in fate(explain_id(tmp_path / "run", "5")).why


def look_while_running(tmp_path: Path, at: int, look: Any) -> Any:
    seen: list[Any] = []
    count = 0

    async def leaving(_ids: list[int]) -> None:
        nonlocal count
        count += 1
        if count == at:
            seen.append(await asyncio.to_thread(look))

    (tmp_path / "ids.txt").write_text("".join(f"{n}\n" for n in range(1, 401)))
    run_with(tmp_path / "run", tmp_path / "ids.txt", leaving=leaving)
    return seen[0]


def test_an_id_of_a_run_that_goes_on_is_explained_as_it_is(tmp_path):
    """Sent, being sent, waiting for its turn, or not read yet."""

    def look() -> list[Any]:
        return [fate(explain_id(tmp_path / "run", text)) for text in ("1", "9", "13", "400")]

    done, sending, waiting, unread = look_while_running(tmp_path, 3, look)
    assert done.state == "accepted"
    assert sending.why == "Its chunk is being sent at this moment."
    assert sending.attempts[0].verdict is None
    assert (waiting.why, waiting.next) == ("It has not been sent yet. It waits for its turn.", "")
    assert (unread.chain, unread.why) == ([], "The run has not read so far yet.")


def test_an_id_in_flight_when_the_process_died_will_be_held(tmp_path):
    """Which is said before it is."""
    look_while_running(tmp_path, 3, lambda: crash_image(tmp_path / "run", tmp_path / "image"))
    one = fate(explain_id(tmp_path / "image", "9"))
    assert (one.state, one.why) == ("pending", "Its chunk was being sent when the process died.")
    assert "will be held" in one.next


def test_a_settlement_is_told_beside_the_attempt_it_is_about(mixed, tmp_path, capsys):
    """With who decided, how and why."""
    shutil.copytree(mixed, tmp_path / "run")
    doctor(
        tmp_path / "run",
        "INSERT INTO settlement (chunk, attempt, at_utc, how, job_id, reason, by)"
        " VALUES (5, 1, 0, 'resubmitted', NULL, 'nobody knows', 'person')",
        "UPDATE chunk SET state = 'planned', duplicate_risk = 1 WHERE ordinal = 5",
    )
    assert main(["explain", str(tmp_path / "run"), "17"]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^settled +1970-01-01T00:00:00.000Z by person: resubmitted\. nobody knows$", out, re.MULTILINE
    )
    assert "may be paid for twice" in out


def test_a_source_that_changed_is_told(tmp_path):
    """What is said then is about the source as it is now."""
    (tmp_path / "ids.txt").write_text("1\n2\n3\n4\n5\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text("1\n2\n7\n4\n5\n")
    found = explain_id(tmp_path / "run", "7")
    assert not fate(found).same
    assert "bulkjobs audit" in found.notes[0]


# --- the command ---


def test_the_command_ends_with_0_for_what_is_in_the_run_and_with_3_for_what_is_not(mixed, capsys):
    """A script can ask."""
    assert main(["explain", str(mixed), "7"]) == 0
    assert main(["explain", str(mixed), "x"]) == 0
    assert main(["explain", str(mixed), "--", "-5"]) == 0
    assert main(["explain", str(mixed), "123"]) == 3
    assert "not in this run" in capsys.readouterr().out


def test_the_command_shows_rows_for_people(mixed, capsys):
    """In the form of `status`."""
    assert main(["explain", str(mixed), "19"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^stands in  iterable 3 line 7: the first, which counts$", out, re.MULTILINE)
    assert re.search(r"^state      accepted\. ", out, re.MULTILINE)
    assert re.search(r"^chunk      6, split: 4 ids .* number 2 of them$", out, re.MULTILINE)
    assert len(re.findall(r"^attempt ", out, re.MULTILINE)) == 3
    assert re.search(r"^           answer: HTTP 413", out, re.MULTILINE)
    assert re.search(r"^record     delivered: .*jobs\.jsonl line \d+$", out, re.MULTILINE)


def test_the_command_gives_one_json_object(mixed, capsys):
    """With all there is."""
    assert main(["explain", "--json", str(mixed), "17"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kind"] == "id"
    (one,) = shown["fates"]
    assert (one["state"], one["chunk"]["chunk"], one["chunk"]["position"]) == ("held", 5, 3)
    assert one["attempts"][0]["phase"] == "body_sent"
    assert main(["explain", "--json", str(mixed), "19"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["fates"]
    assert [part["chunk"] for part in one["parts"]] == [PART, PART + 3]
    assert one["job"]["attempt"] == 1


def test_nothing_that_the_server_said_can_move_the_cursor(tmp_path, capsys):
    """Nor what stands in a source."""
    (tmp_path / "ids.txt").write_text("1\n\x1b[2J\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt", answers=lambda _: answered(500, b"\x1b[31mred\nstate"))
    assert main(["explain", str(tmp_path / "run"), "1"]) == 0
    assert main(["explain", str(tmp_path / "run"), "\x1b[2J"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[31mred\\nstate" in out


def test_what_cannot_be_explained_is_exit_code_2(mixed, tmp_path, capsys):
    """No run, no id, no source."""
    assert main(["explain", str(tmp_path), "1"]) == 2
    assert main(["explain", str(mixed), " "]) == 2
    with pytest.raises(ConfigError, match="Name the id"):
        explain_id(mixed, "")
    (tmp_path / "ids.txt").write_text("1\n")
    run_with(tmp_path / "run", tmp_path / "ids.txt")
    (tmp_path / "ids.txt").unlink()
    assert main(["explain", str(tmp_path / "run"), "1"]) == 2
    assert "ids.txt" in capsys.readouterr().err
    with pytest.raises(SourceError):
        explain_id(tmp_path / "run", "1")
