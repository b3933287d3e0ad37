"""Ids of which nobody knows what they say: from the source to the results, for the endpoint that takes them."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asking import JOB, JSON, NOON, ask, content, listed, rows, steady, submit
from support.simulated import BASE_URL, LOGIN_URL, TOKEN, json_lines
from support.world import SimulatedWorld

from bulkjobs.__main__ import main
from bulkjobs.audit import audit_run, explain_id
from bulkjobs.audit.occurrences import Finder
from bulkjobs.chunking import Chunker
from bulkjobs.endpoints import ENDPOINTS
from bulkjobs.errors import SinkError
from bulkjobs.events import ChunkSettled
from bulkjobs.ids import IdForm, fault_of
from bulkjobs.settings import OPTIONS, Secret, Settings
from bulkjobs.simulator import FaultPlan, Service, ServiceConfig, Span
from bulkjobs.sources import open_sources
from bulkjobs.wire.answer import MalformedAnswer
from bulkjobs.wire.results import parse_results

TARGET_JOB = "/api/v1/target/contact/job"
PATIENCE_S = 30.0


def opaque(number: int) -> str:
    """Gives the id with a number: 64 characters, and every tenth begins with a dash."""
    digest = hashlib.blake2b(str(number).encode(), digest_size=48).digest()
    text = base64.urlsafe_b64encode(digest).decode()
    return text if number % 10 else f"-{text[1:]}"


def lines(ids: Sequence[str]) -> str:
    return "".join(f"{one}\n" for one in ids)


# --- what is one ---


@pytest.mark.parametrize(
    "text", [opaque(1), opaque(10), "_" * 32, "-" * 64, "0" * 64, "a" * 40, "true" * 8, opaque(1).swapcase()]
)
def test_a_long_word_is_an_id(text):
    """Also one of digits alone, if it is longer than any integer id."""
    assert fault_of(text.encode(), IdForm.OPAQUE) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a" * 65, "more than 64 characters"),
        ("a" * 31, "fewer than 32 characters"),
        ("contactId", "the name of a column"),
        ("NULL", "fewer than 32 characters"),
        ("8802619", "an id of another endpoint"),
        ("9" * 19, "an id of another endpoint"),
        (f"{'a' * 40}=", "a character other than"),
        (f"{'a' * 40}é", "a character other than"),
        ("é" * 64, "a character other than"),
        (f'"{"a" * 40}"', "a character other than"),
        (f"{'a' * 32} {'a' * 31}", "blank inside"),
        (f"{'a' * 32}\r{'a' * 31}", "carriage return"),
        (f"{'a' * 32}\x00", "NUL byte"),
        ("(null)", "its value is null"),
    ],
)
def test_anything_else_is_refused_with_a_reason(text, reason):
    assert reason in (fault_of(text.encode(), IdForm.OPAQUE) or "")


@pytest.mark.parametrize("length", [31, 32, 41, 64, 65])
def test_every_byte_counts_wherever_it_stands(length):
    """The extension looks at eight bytes at a time, and at some of them twice."""
    edges = {byte + step for byte in b"09azAZ_-" for step in (-1, 0, 1)} - set(b",")
    bytes_tried = sorted(edges | {byte + 128 for byte in edges} | {0, 1, 127, 128, 255})
    texts = [
        b"q" * at + bytes([byte]) + b"q" * (length - at - 1) for at in range(length) for byte in bytes_tried
    ]
    chunker = Chunker(1, dedupe=False, form=IdForm.OPAQUE)
    chunker.begin("s")
    kept = [chunk.body for chunk in chunker.feed(b"\n".join(texts) + b"\n").chunks]
    assert kept == [text for text in texts if fault_of(text, IdForm.OPAQUE) is None]
    assert bool(kept) == (32 <= length <= 64)


ONE = opaque(7)
TOKENS = st.sampled_from(
    [
        ONE,
        ONE.swapcase(),
        ONE[:32],
        f" {ONE}",
        f"{ONE}\t",
        f"x{ONE[1:]}",
        f"{ONE}x",
        "1",
        "id",
        "",
        f"{ONE}\r",
        "é" * 40,
    ]
)
SEPARATORS = st.sampled_from(["\n", ",", ", ", "\r\n", "\n\n"])


@given(st.lists(st.tuples(TOKENS, SEPARATORS), max_size=30), st.lists(st.integers(1, 90), max_size=20))
def test_any_text_in_any_blocks_gives_what_a_plain_reading_gives(pieces, cuts):
    """Ids, lines, duplicates; and the search for one id finds it where the chunker does."""
    data = "".join(token + separator for token, separator in pieces).encode()
    blocks, at = [], 0
    for size in cuts:
        blocks.append(data[at : at + size])
        at += size
    blocks = [*filter(None, blocks), data[at:]]
    kept, chunkers, finder, found = [], [], Finder(ONE.encode()), []
    for dedupe in (False, True):
        chunker = Chunker(1, dedupe=dedupe, form=IdForm.OPAQUE)
        chunker.begin("s")
        kept.append([chunk for block in blocks for chunk in chunker.feed(block).chunks])
        kept[-1] += chunker.end().chunks
        chunkers.append(chunker)
    for block in blocks:
        found += finder.feed(block)
    found += finder.end()
    plainly = [
        (number, token)
        for number, line in enumerate(data.replace(b"\r\n", b"\n").split(b"\n"), 1)
        for part in line.split(b",")
        if re.fullmatch(rb"[A-Za-z0-9_-]{32,64}", token := part.strip(b" \t"))
    ]
    assert [(chunk.line, chunk.body) for chunk in kept[0]] == plainly
    assert [chunk.body for chunk in kept[1]] == list(dict.fromkeys(token for _, token in plainly))
    assert chunkers[1].totals.duplicate == len(kept[0]) - len(kept[1])
    assert found == [number for number, token in plainly if token == ONE.encode()]


def test_a_set_that_cannot_be_read_back_ends_the_run_as_a_full_disk_does(tmp_path):
    """It does not take an id for new because nobody can tell."""
    chunker = Chunker(
        1, dedupe=True, form=IdForm.OPAQUE, file=lambda: os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    )
    chunker.begin("s")
    text = lines([f"{number:064d}" for number in range(20_000)]).encode()
    assert len(chunker.feed(text).chunks) == 20_000
    with pytest.raises(SinkError, match="run directory"):
        chunker.feed(text)


# --- the endpoint ---


def test_the_help_names_every_endpoint():
    (option,) = [option for option in OPTIONS if option.field == "endpoint"]
    assert all(name in option.help for name in ENDPOINTS)


# --- what the service makes of them ---


def post(service: Service, body: str, path: str = TARGET_JOB) -> Any:
    return ask(
        service, "POST", path, NOON, headers={**JSON, "content-type": "text/plain"}, body=body.encode()
    )


@pytest.mark.parametrize(
    "body",
    ["", "1", "a" * 31, "a" * 65, f"{ONE},{opaque(8)}", f"{ONE}\n", f"{ONE}\n\n{ONE}", f"{ONE}\r\n{ONE}", f" {ONE}", f"{ONE}é"],
)  # fmt: skip
def test_a_body_that_is_not_plainly_opaque_ids_is_refused(body):
    with Service() as service:
        assert post(service, body).status == 400
        assert service.totals()["jobs"] == 0


def test_a_job_of_opaque_ids_is_one_of_its_own_kind():
    with Service(steady(queue_s=0, job_s=0)) as service:
        answer = content(post(service, f"{ONE}\n{opaque(8)}"))
        job_id = answer["jobId"]
        assert answer == {"jobId": job_id, "status": "accepted", "type": "targetContactDetails"}
        assert content(ask(service, "GET", f"{TARGET_JOB}/{job_id}", NOON)) == {
            "jobId": job_id, "status": "finished", "type": "targetContactDetails", "totalProcessed": 2
        }  # fmt: skip
        assert ask(service, "GET", f"{JOB}/{job_id}", NOON).status == 404
        assert [row["jobType"] for row in rows(service)] == ["targetContactDetails"]
        xml = ask(service, "GET", f"{TARGET_JOB}/{job_id}", NOON, headers={"accesstoken": TOKEN}).body
        assert b"<BulkJobStatus>" in xml
        file = ask(service, "GET", f"{TARGET_JOB}/{job_id}/results", NOON).body
        assert parse_results(file, IdForm.OPAQUE) == {ONE.encode(), opaque(8).encode()}


def test_jobs_of_both_kinds_stand_in_one_list_and_hide_together():
    for hides, shown in ((False, 2), (True, 0)):
        with Service(ServiceConfig(list_hides_type=hides)) as service:
            assert {submit(service, NOON).status, post(service, ONE).status} == {200}
            assert len(listed(service)) == shown


# --- what results hold ---


@pytest.mark.parametrize(
    "file",
    [
        f"contactId,name\n{ONE},Ada\n{opaque(8)},Bob\n",
        f"contactId,id,name\n11,{ONE},Ada\n22,{opaque(8)},Bob\n",
        f"ID,Contact Id\n{ONE},11\n,\n{opaque(8)},\n",
    ],
)
def test_opaque_ids_are_found_also_beside_integer_ones(file):
    """An integer id is what the contact is called once it was paid for."""
    assert parse_results(file.encode(), IdForm.OPAQUE) == {ONE.encode(), opaque(8).encode()}


@pytest.mark.parametrize(
    "file", ["contactId\n11\n", f"name\n{ONE}\n", f"contactId\n{ONE}x\n", f"id\n{ONE}\nAda\n"]
)
def test_results_without_opaque_ids_prove_nothing(file):
    with pytest.raises(MalformedAnswer):
        parse_results(file.encode(), IdForm.OPAQUE)


def test_an_opaque_id_is_none_where_integer_ids_are_expected():
    with pytest.raises(MalformedAnswer):
        parse_results(f"contactId,id\n{ONE},11\n".encode())


# --- runs ---

SETTINGS = Settings(
    base_url=BASE_URL,
    login_url=LOGIN_URL,
    access_token=Secret(TOKEN),
    endpoint="target-contacts",
    rate=None,
    pace=None,
    max_active_jobs=None,
    chunk_size=10,
    workers=2,
)


class World(SimulatedWorld):
    """Is one of opaque ids."""

    def __init__(
        self, tmp_path: Path, *faults: str, text: str, settings: Settings = SETTINGS, **service: Any
    ) -> None:
        config = ServiceConfig(faults=FaultPlan.of(*faults), job_time=Span(min_s=30.0, max_s=90.0), **service)
        super().__init__(tmp_path, config, chunks=0, settings=settings)
        self.source.write_text(text)

    def submit(self, **more: Any) -> dict[str, int]:
        summary = self.go(self.engine(**more).run())
        assert audit_run(self.run_dir).differences == []
        ids: dict[str, int] = summary.ids
        return ids

    @property
    def sent(self) -> list[str]:
        """Is every id that a job of ours was made of, in the order of the jobs."""
        return [one.decode() for body in self.account.bodies.values() for one in body.split(b"\n")]


@pytest.mark.parametrize("shape", ["file", "link"])
def test_a_lost_answer_is_settled_by_the_opaque_ids_in_the_results(tmp_path, shape):
    """Among jobs of others of the same kind and size, which have some of the ids in common."""
    ids = [opaque(number) for number in range(60)]
    others = {"foreign_per_submit": 1.0, "foreign_shared": 4, "results_shape": shape}
    with World(tmp_path, "submit:reset_after@3", "submit:reset_before@5", text=lines(ids), **others) as world:
        counts = world.submit()
        assert (counts["accepted"], counts["held"]) == (60, 0)
        assert sorted(world.sent) == sorted(ids)
        reasons = {told.job_id is not None: told.reason for told in world.seen(ChunkSettled)}
        assert "exactly these ids" in reasons[True]
        assert "hold no job that could be its" in reasons[False]


def test_two_ids_that_differ_in_their_case_are_two(tmp_path):
    ids = [opaque(number) for number in range(15)]
    swapped = [one.swapcase() for one in ids]
    with World(tmp_path, text=lines([*ids, *ids, *swapped, *swapped])) as world:
        assert world.submit() == {
            "read": 60, "invalid": 0, "duplicate": 30, "accepted": 30, "refused": 0, "held": 0, "pending": 0
        }  # fmt: skip
        assert world.sent == ids + swapped
        found = explain_id(world.run_dir, swapped[3])
        assert [(one.line, found.role(n)) for n, one in enumerate(found.occurrences)] == [
            (34, "first"),
            (49, "duplicate"),
        ]
        assert (found.fates[0].chain[0].ordinal, found.fates[0].position) == (2, 9)


def test_a_bad_id_is_found_among_good_ones_and_a_large_chunk_is_divided(tmp_path):
    ids = [opaque(number) for number in range(30)]
    wrong = {"bad_ids": ids[17], "max_body_bytes": 400}
    with World(tmp_path, text=lines(ids), settings=replace(SETTINGS, bisect=True), **wrong) as world:
        assert world.submit()["refused"] == 1
        assert sorted(world.sent) == sorted({*ids} - {ids[17]})
        assert [path.read_text() for path in (world.run_dir / "refused").glob("*.txt")] == [ids[17] + "\n"]
        assert explain_id(world.run_dir, ids[17]).fates[0].state == "refused"


# --- where they come from ---


def as_csv(folder: Path, values: Sequence[object]) -> str:
    with (folder / "ids.csv").open("w") as file:
        csv.writer(file).writerows([("name", "id"), *(("Ada", value) for value in values)])
    return str(folder / "ids.csv")


def as_parquet(folder: Path, values: Sequence[object]) -> str:
    texts = [None if value is None else str(value) for value in values]
    pq.write_table(pa.table({"name": ["Ada"] * len(texts), "id": texts}), folder / "ids.parquet")
    return str(folder / "ids.parquet")


def as_numbers(folder: Path, values: Sequence[object]) -> str:
    numbers = [len(str(value)) for value in values]
    pq.write_table(pa.table({"id": numbers}), folder / "numbers.parquet")
    return str(folder / "numbers.parquet")


def as_sqlite(folder: Path, values: Sequence[object]) -> str:
    with closing(sqlite3.connect(folder / "ids.db")) as database, database:
        database.execute("CREATE TABLE contacts (id)")
        database.executemany("INSERT INTO contacts VALUES (?)", [(value,) for value in values])
    return f"sqlite:{folder / 'ids.db'}"


@pytest.mark.parametrize(
    ("make", "more", "counts"),
    [
        (as_csv, {"column": "id"}, (25, 3, 1)),
        (as_parquet, {"column": "id"}, (25, 3, 1)),
        (as_sqlite, {"query": "SELECT id FROM contacts ORDER BY rowid"}, (25, 3, 1)),
        (as_numbers, {"column": "id"}, (0, 29, 0)),
    ],
)
def test_they_come_from_columns_of_text_and_a_number_is_none(tmp_path, make, more, counts):
    values = [opaque(0), 8802619, None, *(opaque(number) for number in range(25)), 64 * 10**17]
    with World(tmp_path, text="") as world:
        sources = open_sources([make(tmp_path, values)], **more)
        ids = world.submit(sources=sources, **more)
    assert (ids["accepted"], ids["invalid"], ids["duplicate"]) == counts


def test_ids_on_one_line_are_no_head_of_a_table(tmp_path):
    """Which begins with letters too, but not with so many."""
    ids = [f"a{opaque(number)[1:]}" for number in range(20)]
    with World(tmp_path, text=",".join(ids)) as world:
        assert world.submit()["accepted"] == 20
        assert world.sent == ids


# --- the command, in processes of their own ---


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"It took more than {PATIENCE_S} s until {what}."
        time.sleep(0.003)


def test_killed_and_begun_again_every_id_is_accounted_for(tmp_path, monkeypatch, capsys):
    """With duplicates far apart, and all that a list of such ids may hold besides."""
    seed = 5
    draw = random.Random(seed)
    ids = [opaque(number) for number in range(400)]
    bad = ["contactId", "8802619", "a" * 65, "é" * 40, ids[0] + "=", "NULL"]
    repeated = draw.sample(ids, 50)
    (tmp_path / "ids.txt").write_text(lines([bad[0], *ids, *bad[1:], *repeated]))
    bodies = ["\n".join(ids[first : first + 10]) for first in range(0, 400, 10)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", TOKEN)
    python = [sys.executable, "-m", "bulkjobs"]
    service = [
        *python,
        "simulate",
        "--rate",
        "none",
        "--max-active-jobs",
        "none",
        "--books",
        "books",
        "--for",
        "60s",
    ]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [*service, "--latency", "10ms..40ms", "--token", TOKEN], env=environ, stdout=subprocess.PIPE
    ) as simulator:
        assert simulator.stdout is not None
        base_url = json.loads(simulator.stdout.readline())["base_url"]
        submission = [
            "submit",
            "ids.txt",
            "--endpoint",
            "target-contacts",
            "--base-url",
            base_url,
            "--workers",
            "2",
        ]
        submission += [
            "--rate",
            "none",
            "--max-active-jobs",
            "none",
            "--chunk-size",
            "10",
            "--on-unknown",
            "hold",
        ]
        with subprocess.Popen([*python, *submission, "--quiet"], env=environ) as killed:
            until(lambda: len(json_lines(tmp_path / "books.jsonl")) >= 8, "there are 8 jobs")
            killed.kill()
        assert main(["audit", "ids.txt.run"]) == 0
        code = main([*submission, "--json"])
        simulator.terminate()
    held = json_lines(tmp_path / "ids.txt.run" / "held.jsonl")
    records = json_lines(tmp_path / "ids.txt.run" / "jobs.jsonl")
    out = capsys.readouterr().out
    print(f"seed {seed}: {len(held)} held, {len(records)} accepted")
    assert code == (4 if held else 3)
    counts = json.loads(out.splitlines()[-1])["ids"]
    assert (counts["read"], counts["invalid"], counts["duplicate"], counts["pending"]) == (456, 6, 50, 0)
    text, index = (tmp_path / "books").read_bytes(), json_lines(tmp_path / "books.jsonl")
    made = {job["jobId"]: text[job["position"] :][: job["length"]].decode() for job in index}
    assert len(set(made.values())) == len(made), "a chunk was paid for twice"
    assert [made[record["job_id"]] for record in records] == [bodies[one["chunk"] - 1] for one in records]
    assert sorted(one["chunk"] for one in (*records, *held)) == list(range(1, 41))

    dash = next(one for one in repeated if one.startswith("-"))
    assert main(["audit", "ids.txt.run"]) == 0
    capsys.readouterr()
    assert main(["explain", "ids.txt.run", dash, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["role"] for one in found["occurrences"]] == ["first", "duplicate"]
    assert found["fates"][0]["chunk"]["chunk"] == ids.index(dash) // 10 + 1
    for absent in (opaque(401), opaque(410)):
        assert main(["explain", "--json", "ids.txt.run", absent]) == 3
    assert main(["explain", "ids.txt.run", "contactId"]) == 0
