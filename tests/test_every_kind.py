"""A run from each kind of source: submitted, resumed, audited and explained."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from support import scripted
from support.simulated import Account, SimulatedTransport, json_lines

import bulkjobs
from bulkjobs import Client, ConfigError, Settings, checkpoint
from bulkjobs.audit import audit_run, explain_id
from bulkjobs.checkpoint import Checkpoints
from bulkjobs.chunking import Chunker
from bulkjobs.halt import Halt
from bulkjobs.reading import InvalidReport, Reading
from bulkjobs.simulator import Service, ServiceConfig, Span
from bulkjobs.sources import FileSource
from bulkjobs.testing import VirtualClock, run_virtual

IDS = range(700_001, 700_026)
LINES = b"".join(b"%d\n" % one for one in IDS)
BAD_LINE = 12
"""A text that is none stands there, in place of an id."""

SETTINGS = replace(scripted.SETTINGS, chunk_size=10, workers=2)


def rows() -> list[str]:
    return ["x12" if line == BAD_LINE else str(one) for line, one in enumerate(IDS, 1)]


def text() -> bytes:
    return "".join(f"{one}\n" for one in rows()).encode()


def table(delimiter: str) -> bytes:
    """Has its names in place of the first id, so that lines are the same."""
    lines = [delimiter.join(("name", "id")), *(delimiter.join(('"Ada"', f'"{one}"')) for one in rows()[1:])]
    return "\r\n".join(lines).encode()


def parquet(path: Path) -> None:
    pq.write_table(pa.table({"name": ["Ada"] * len(IDS), "id": rows()}), path, row_group_size=10)


WRITE: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_bytes(text()),
    "gzip": lambda path: path.write_bytes(gzip.compress(text())),
    "zstd": lambda path: path.write_bytes(zstd.compress(text())),
    "bzip2": lambda path: path.write_bytes(bz2.compress(text())),
    "xz": lambda path: path.write_bytes(lzma.compress(text())),
    "CSV": lambda path: path.write_bytes(table(",")),
    "TSV, compressed": lambda path: path.write_bytes(gzip.compress(table("\t"))),
    "Parquet": parquet,
}
TABLES = {"CSV", "TSV, compressed", "Parquet"}


@pytest.fixture
def service():
    with Service(
        ServiceConfig(latency=Span(min_s=0.001, max_s=0.002), job_time=Span(min_s=0.0, max_s=0.0))
    ) as it:
        yield it


def submit(service: Service, run: Path, *sources: Path, settings: Settings) -> bulkjobs.RunSummary:
    async def main() -> bulkjobs.RunSummary:
        clock = VirtualClock()
        transport = SimulatedTransport(service, clock=clock)
        async with Client(settings, run=run, transport=transport, clock=clock) as client:
            return await client.run(*sources)

    return run_virtual(main())


@pytest.mark.parametrize("kind", WRITE)
def test_a_run_is_submitted_resumed_audited_and_explained(kind, tmp_path: Path, service):
    """In two sessions; the second opens what the first recorded."""
    path, run = tmp_path / "ids", tmp_path / "run"
    WRITE[kind](path)
    settings = replace(SETTINGS, column="id" if kind in TABLES else None)
    assert submit(service, run, path, settings=replace(settings, spend_cap=10)).ids["accepted"] == 10
    submit(service, run, settings=settings)

    first = 2 if kind in TABLES - {"Parquet"} else 1
    expected = [one for line, one in enumerate(IDS, 1) if line >= first and line != BAD_LINE]
    Account.of(run, service, 1e11).check(expected)
    assert [(one["line"], one["text"]) for one in json_lines(run / "invalid.jsonl")] == [(BAD_LINE, "x12")]
    assert audit_run(run).agrees
    explained = explain_id(run, str(IDS[20]))
    assert [(place.source, place.line) for place in explained.occurrences] == [(str(path), 21)]
    assert explain_id(run, "x12").kind == "invalid"


def test_a_folder_of_all_kinds_is_one_run(tmp_path: Path, service):
    folder, run = tmp_path / "in", tmp_path / "run"
    folder.mkdir()
    for number, kind in enumerate(WRITE.keys() - TABLES):
        WRITE[kind](folder / f"{number}")
    summary = submit(service, run, folder, settings=SETTINGS)
    assert summary.ids["accepted"] == len(IDS) - 1
    assert summary.ids["duplicate"] == 4 * (len(IDS) - 1)
    assert audit_run(run).agrees
    (folder / "late").write_bytes(b"5\n")
    with pytest.raises(
        ConfigError, match=r"and 2 more, not .* and 3 more: \S*in/late is new\. Give the same"
    ):
        submit(service, run, folder, settings=SETTINGS)


def test_another_column_is_another_run(tmp_path: Path, service):
    """And a run that was begun before there were columns had none."""
    path, run = tmp_path / "ids", tmp_path / "run"
    path.write_bytes(b"id,other\n5,6\n")
    submit(service, run, path, settings=replace(SETTINGS, column="id"))
    for column in ("other", 1, None):
        with pytest.raises(ConfigError, match="was begun with column 'id', not"):
            submit(service, run, path, settings=replace(SETTINGS, column=column))
    assert json.loads((run / "summary.json").read_text())["ids"]["accepted"] == 1


MANY = range(10**7, 10**7 + 400_000)


def many(kind: str, path: Path) -> int | None:
    """Writes several blocks of a kind that can be read on, with an invalid id near the end; gives the column."""
    ids = [*map(str, MANY[:-1]), "x"]
    if kind == "text":
        path.write_text("\n".join(ids))
    elif kind == "CSV":
        path.write_text("".join(f'"a\nb",{one}\n' for one in ids))
    else:
        pq.write_table(pa.table({"name": ["Ada"] * len(ids), "id": ids}), path, row_group_size=150_000)
    return None if kind == "text" else 2


@pytest.mark.parametrize("kind", ["text", "CSV", "Parquet"])
async def test_what_can_be_read_on_is_read_on_where_it_was(kind, tmp_path: Path):
    """The chunks and the report are those of a reading without an interruption, and not all was read again."""
    path, passed = tmp_path / "ids", 370  # in the last block
    column = many(kind, path)

    async def read(
        folder: Path, *, last: int = 0, stop: int = 0
    ) -> tuple[list[tuple[object, ...]], str | None]:
        report = InvalidReport(tmp_path / f"{folder.name}.jsonl")
        reading = Reading(
            [FileSource(path, column=column)],
            Chunker(1_000, dedupe=True),
            halt=Halt(),
            emit=lambda _event: None,
            broke_off=lambda _position: None,
            checkpoints=Checkpoints(folder),
        )
        start, chunks = reading.start(last, report), []
        with closing(report):
            async with aclosing(reading.chunks(report, start)) as cut:
                async for chunk in cut:
                    chunks.append((chunk.ordinal, chunk.digest, chunk.line, chunk.tally))
                    if chunk.ordinal == stop:
                        break
                else:
                    report.finish()
        return chunks, None if start is None else start.mark

    with mock.patch.multiple(checkpoint, _LEAST_BYTES=0, _READ_PER_WRITTEN=0):
        whole, _ = await read(tmp_path / "whole")
        before, _ = await read(tmp_path / "parts", stop=passed)
        behind, mark = await read(tmp_path / "parts", last=passed)
    assert mark is not None
    assert before == whole[:passed]
    assert behind == whole[behind[0][0] - 1 :]
    assert 1 < behind[0][0] <= passed + 1
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes() != b""
