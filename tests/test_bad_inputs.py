"""Bad input, as a table: what becomes of it, from the source to the books of a simulated service on a real socket.

Each case goes through `Client.run` with chunks of two ids. Whatever the input is, there is no exception but the
ones that are documented, no body reaches the service that it would not call a list of ids, each id that was
accepted is one that the table names, and the counts add up.
"""

import asyncio
import gzip
import io
import json
import os
import zlib
from dataclasses import dataclass, field

import pyarrow.parquet
import pytest

from bulkjobs.client import Client
from bulkjobs.errors import SourceError
from bulkjobs.events import SourceProgress
from bulkjobs.ledger import read_run
from bulkjobs.settings import Secret, Settings
from bulkjobs.simulator import ServiceConfig, SimulatorServer
from bulkjobs.sources.stdin import StdinSource


@dataclass
class Outcome:
    """What one run came to."""

    summary: object
    sent: list
    """The ids that the service made jobs of, in any order of chunks."""
    malformed: int
    """Submissions that the service did not take for a list of ids."""
    invalid: list
    stop_reason: str | None
    events: list = field(default_factory=list)

    @property
    def counts(self):
        return {name: count for name, count in self.summary.ids.items() if count and name != "read"}


async def run(folder, *sources, on_event=None) -> Outcome:
    """Runs the sources to the end against a service that has no limits."""
    books = folder / "books"
    async with SimulatorServer(ServiceConfig(books=books)) as server:
        settings = Settings(
            base_url=server.base_url,
            login_url=server.login_url,
            access_token=Secret("simulator-token"),
            rate=None,
            max_active_jobs=None,
            chunk_size=2,
            workers=2,
        )
        observers = [on_event] if on_event else []
        async with Client(settings, run=folder / "run", observers=observers) as client:
            summary = await client.run(*sources)
        malformed = server.service.totals()["malformed_bodies"]
    report = folder / "run" / "invalid.jsonl"
    return Outcome(
        summary=summary,
        sent=sorted(int(text) for text in books.read_bytes().split()) if books.exists() else [],
        malformed=malformed,
        invalid=[json.loads(line) for line in report.read_bytes().splitlines()],
        stop_reason=read_run(folder / "run").stop_reason,
    )


def check(outcome: Outcome, sent, **counts):
    """Holds for every input."""
    ids = outcome.summary.ids
    assert outcome.malformed == 0
    assert outcome.sent == sorted(sent)
    assert outcome.counts == {name: count for name, count in counts.items() if count}
    assert ids["accepted"] == len(sent)
    assert ids["read"] == sum(count for name, count in ids.items() if name != "read")
    assert len(outcome.invalid) >= ids["invalid"]


def ok(*sent, invalid=0, duplicate=0):
    return list(sent), invalid, duplicate


UTF16 = "1\n2\n3\n"

TEXTS = {
    "empty": (b"", ok()),
    "only blanks": (b" \n\t\n  \n,, ,\n", ok()),
    "no final newline": (b"1\n2\n3", ok(1, 2, 3)),
    "CRLF": (b"1\r\n2\r\n3\r\n", ok(1, 2, 3)),
    "lone CR": (b"1\r2\r3", ok(invalid=1)),
    "mixed ends": (b"1\r\n2\n3,4\r\n\r\n", ok(1, 2, 3, 4)),
    "UTF-8 mark": (b"\xef\xbb\xbf1\n2\n", ok(1, 2)),
    "UTF-8 mark inside": (b"1\n\xef\xbb\xbf2\n", ok(1, invalid=1)),
    "UTF-16 LE": (b"\xff\xfe" + UTF16.encode("utf-16-le"), ok(invalid=4)),
    "UTF-16 BE": (b"\xfe\xff" + UTF16.encode("utf-16-be"), ok(invalid=3)),
    "Latin-1": (b"1\ncaf\xe9\n2\n", ok(1, 2, invalid=1)),
    "invalid UTF-8": (b"1\n\xc3\x28\xff\n2\n", ok(1, 2, invalid=1)),
    "NUL in a line": (b"1\n2\x003\n4\n", ok(1, 4, invalid=1)),
    "NULs only": (bytes(100), ok(invalid=1)),
    "U+2028 and U+0085": ("1\u20282\n3\u00854\n5\n".encode(), ok(5, invalid=2)),
    "vertical tab and form feed": (b"1\x0b2\n3\x0c\n4\n", ok(4, invalid=2)),
    "no-break and zero-width space": ("\u00a01\n2\u200b\n3\n".encode(), ok(3, invalid=2)),
    "tabs": (b"\t1\t\n2\t3\n", ok(1, invalid=1)),
    "other digits": ("\u0663\n\u00b2\n\uff11\n4\n".encode(), ok(4, invalid=3)),
    "underscore": (b"1_2\n3\n", ok(3, invalid=1)),
    "plus": (b"+5\n3\n", ok(3, invalid=1)),
    "minus": (b"-5\n3\n", ok(3, invalid=1)),
    "zero": (b"0\n00\n3\n", ok(3, invalid=2)),
    "leading zeros": (b"007\n7\n", ok(7, invalid=1)),
    "20 digits": (b"12345678901234567890\n3\n", ok(3, invalid=1)),
    "2^63 and 2^64": (b"9223372036854775808\n18446744073709551616\n", ok(2**63, invalid=1)),
    "exponent and point": (b"1e5\n1.0\n3\n", ok(3, invalid=2)),
    "adjacent duplicates": (b"1\n1\n1\n2\n", ok(1, 2, duplicate=2)),
    "header row": (b"contactId\n1\n2\n", ok(1, 2, invalid=1)),
    "unclosed quote": (b'"1\n2\n3\n', ok(2, 3, invalid=1)),
    "quoted column": (b'"1"\n"2"\n3\n', ok(3, invalid=2)),
    "short and long rows": (b"1,Ada\n2\n,\n3,,\n", ok(1, 2, 3, invalid=1)),
    "formula": (b"=1+1\n@1\n3\n", ok(3, invalid=2)),
    "list literal": (b"[1, 2, 3]\n", ok(2, invalid=2)),
    "JSON Lines": (b'{"contactId": 1}\n2\n', ok(2, invalid=1)),
    "semicolons": (b"1;2;3\n4\n", ok(4, invalid=1)),
    "HTML": (b"<html>\n<body>1</body>\n", ok(invalid=2)),
}


@pytest.mark.parametrize("case", TEXTS)
async def test_text_of_any_kind_has_a_defined_result(tmp_path, case):
    text, (sent, invalid, duplicate) = TEXTS[case]
    (tmp_path / "ids.txt").write_bytes(text)
    outcome = await run(tmp_path, tmp_path / "ids.txt")
    check(outcome, sent, accepted=len(sent), invalid=invalid, duplicate=duplicate)
    assert len(outcome.invalid) == invalid
    assert outcome.summary.exit_code == (3 if invalid else 0)


@pytest.mark.parametrize("case", ["CRLF", "UTF-16 LE", "NUL in a line", "short and long rows"])
async def test_packed_text_has_the_same_result(tmp_path, case):
    text, (sent, invalid, duplicate) = TEXTS[case]
    (tmp_path / "ids.txt").write_bytes(gzip.compress(text))
    check(
        await run(tmp_path, tmp_path / "ids.txt"),
        sent,
        accepted=len(sent),
        invalid=invalid,
        duplicate=duplicate,
    )


async def test_duplicates_far_apart_and_across_files_are_found(tmp_path):
    many = b"".join(b"%d\n" % n for n in range(10, 60))
    (tmp_path / "a.txt").write_bytes(b"1\n" + many + b"1\n2\n")
    (tmp_path / "b.txt").write_bytes(b"2\n3\n1")
    outcome = await run(tmp_path, tmp_path / "a.txt", tmp_path / "b.txt")
    check(outcome, [1, 2, 3, *range(10, 60)], accepted=53, duplicate=3)


async def test_a_line_of_a_gibibyte_is_one_invalid_id(tmp_path):
    """In bounded memory: it is a sparse file, and nobody holds more than a block of it."""
    with (tmp_path / "ids.txt").open("wb") as file:
        file.write(b"1\n")
        file.truncate(2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n2\n")
    outcome = await run(tmp_path, tmp_path / "ids.txt")
    check(outcome, [1, 2], accepted=2, invalid=1)
    assert len(outcome.invalid[0]["text"]) <= 200


# Containers

IDS = b"1\n2\n3\n4\n5\n"
PACKED = gzip.compress(IDS)
BOMB = gzip.compress(b"1\n" * 35 * 2**20)


def damaged() -> bytes:
    data = bytearray(PACKED)
    data[-6] ^= 0xFF
    return bytes(data)


def parquet(**columns: list) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


CONTAINERS = {
    "truncated gzip": (PACKED[:-4], [1, 2, 3, 4], "the gzip data ends early"),
    "bad check sum": (damaged(), [], "the gzip data is damaged"),
    "garbage behind": (PACKED + b"5\n6\n7\n8\n", [1, 2, 3, 4], "the gzip data "),
    "bomb": (BOMB, [], "this is no list of ids"),
    "gzip signature only": (b"\x1f\x8b", [], "the gzip data ends early"),
    "Parquet, damaged": (parquet(id=[1, 2])[:-40] + bytes(40), [], "the Parquet data is damaged"),
    "Parquet, truncated": (parquet(id=[1, 2])[:-6], [], "the Parquet data is damaged"),
    "Parquet, without the column": (parquet(name=["Ada"], employees=[250]), [], "--column"),
    "Parquet, float ids": (parquet(id=[1.0, 2.0]), [], "has the type double"),
    # Its columns cannot be told apart yet, and the second one would be paid for.
    "CSV with columns": (
        b"id,employees\r\n1,250\r\n2,99\r\n",
        [],
        "is a table: its first line is id,employees.",
    ),
    "CSV with columns, packed": (gzip.compress(b"id,employees\n1,250\n"), [], "is a table"),
    "CSV without the column": (b"name,city\nAda,Paris\n", [], "is a table: its first line is name,city."),
    "ZIP": (b"PK\x03\x04" + IDS, [], "is a ZIP archive"),
    "zstd, damaged": (b"\x28\xb5\x2f\xfd" + IDS, [], "the zstd data is damaged"),
}


@pytest.mark.parametrize("case", CONTAINERS)
async def test_a_container_that_breaks_off_ends_with_2_and_what_came_before_stays_valid(tmp_path, case):
    """Only whole chunks of what came before are sent: nobody knows whether the last id is a whole one."""
    content, sent, said = CONTAINERS[case]
    (tmp_path / "ids.txt").write_bytes(content)
    outcome = await run(tmp_path, tmp_path / "ids.txt")
    check(outcome, sent, accepted=len(sent), duplicate=outcome.summary.ids["duplicate"])
    assert outcome.summary.exit_code == 2
    assert said in outcome.stop_reason
    assert "ids.txt" in outcome.stop_reason


async def test_a_name_does_not_decide_what_a_file_is(tmp_path):
    (tmp_path / "a.txt").write_bytes(PACKED)
    (tmp_path / "b.gz").write_bytes(b"6\n7\n")
    outcome = await run(tmp_path, tmp_path / "a.txt", tmp_path / "b.gz")
    check(outcome, range(1, 8), accepted=7)
    assert outcome.summary.exit_code == 0


@pytest.mark.parametrize("change", ["append", "truncate"])
async def test_a_file_that_changes_during_the_run_ends_with_2(tmp_path, change):
    """Its mark, size and time, is compared when its end is reached; what was sent stays valid."""
    path = tmp_path / "ids.txt"
    path.write_bytes(b"1\n" * 5_000_000)

    def meddle(event):
        if isinstance(event, SourceProgress) and event.position_bytes < 3_000_000:
            with path.open("ab") as file:
                file.write(b"2\n") if change == "append" else file.truncate(10)

    outcome = await run(tmp_path, path, on_event=meddle)
    assert outcome.summary.exit_code == 2
    assert outcome.malformed == 0
    assert outcome.sent in ([], [1, 2])
    assert "changed while it was read" in outcome.stop_reason


def folder(path):
    path.mkdir()


def unreadable(path):
    path.write_bytes(IDS)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")


@pytest.mark.parametrize(
    "make", [folder, os.mkfifo, lambda _: None, unreadable], ids=["folder", "FIFO", "missing", "unreadable"]
)
async def test_what_is_no_readable_file_is_refused_before_there_is_a_run(tmp_path, make):
    make(tmp_path / "ids.txt")
    with pytest.raises(SourceError, match="ids.txt"):
        await run(tmp_path, tmp_path / "ids.txt")
    assert not (tmp_path / "run").exists()


# Objects


async def test_objects_that_are_no_ids_are_reported_by_their_position(tmp_path):
    items = [True, 1, None, 2.0, "3", b"4", "5,6", -7, 2**64, "", " 8 ", "\ud800", object]
    outcome = await run(tmp_path, items)
    check(outcome, [1, 3, 4, 8], accepted=4, invalid=8)
    assert [line["line"] for line in outcome.invalid] == [1, 3, 4, 7, 8, 9, 12, 13]


async def test_a_slow_stream_of_bytes_cut_anywhere_is_one_text(tmp_path):
    """Standard input in pieces, gzip cut in its middle: the socket sees the same ids."""
    reading, writing = os.pipe()
    squeeze = zlib.compressobj(wbits=31)
    stored = squeeze.compress(IDS) + squeeze.flush()

    async def write():
        for at in range(len(stored)):
            os.write(writing, stored[at : at + 1])
            await asyncio.sleep(0)
        os.close(writing)

    writer = asyncio.create_task(write())
    outcome = await run(tmp_path, StdinSource(reading))
    await writer
    os.close(reading)
    check(outcome, range(1, 6), accepted=5)
