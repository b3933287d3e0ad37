"""What the input, the books of the service and the files of a run show when it has ended."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from bulkjobs.model import RunSummary
from bulkjobs.simulator import Service
from support.simulated import json_lines
from support.simulation.reference import Expected

__all__ = ["judge_end"]


def judge_end(expected: Expected, service: Service, run_dir: Path, summary: RunSummary) -> list[str]:
    """Gives what is wrong with the end of a run; nothing is taken from its ledger."""
    return [*_of_counts(expected, run_dir, summary), *_of_ids(expected, _bodies(service), run_dir)]


def _of_counts(expected: Expected, run_dir: Path, summary: RunSummary) -> list[str]:
    wrong = []
    ids = summary.ids
    if ids["read"] != expected.read or ids["read"] != sum(ids.values()) - ids["read"] or ids["pending"]:
        wrong.append(f"I1 of {expected.read} ids the summary tells {ids}")
    if (ids["invalid"], ids["duplicate"]) != (len(expected.invalid), expected.duplicate):
        wrong.append(f"I1 {len(expected.invalid)} ids are invalid and {expected.duplicate} duplicate: {ids}")
    if len(json_lines(run_dir / "invalid.jsonl")) != len(expected.invalid):
        wrong.append("I1 invalid.jsonl does not have a line for each invalid id")
    if json.loads((run_dir / "summary.json").read_bytes()) != summary.as_dict():
        wrong.append("I1 summary.json is not the summary")
    return wrong


def _of_ids(expected: Expected, bodies: dict[str, bytes], run_dir: Path) -> list[str]:
    """Looks at ids and not at chunks, which are a matter between the run and its ledger."""
    wrong = []
    records = json_lines(run_dir / "jobs.jsonl")
    paid = Counter(one for body in bodies.values() for one in body.split(b"\n"))
    twice = sum(count > 1 for count in paid.values())
    if twice:
        wrong.append(f"I4 {twice} ids are paid twice")
    held = {one for line in json_lines(run_dir / "held.jsonl") for one in _ids_of(expected, line)}
    told = Counter(held)
    for record in records:
        body = bodies.get(record["job_id"], b"?")
        told.update(body.split(b"\n"))
        if hashlib.sha256(body).hexdigest() != record["digest"]:
            wrong.append(f"I6 the record of chunk {record['chunk']} names a job of something else")
    for path in (run_dir / "refused").glob("chunk-*.txt"):
        told.update(path.read_bytes().split())
    given = Counter(expected.ids)
    if told != given:
        lost, more = (given - told).total(), (told - given).total()
        wrong.append(f"I1 {lost} ids are lost, {more} are told of that should not be")
    named = {record["job_id"] for record in records}
    silent = [
        job for job, body in bodies.items() if job not in named and not held.issuperset(body.split(b"\n"))
    ]
    if silent:
        wrong.append(f"I1 jobs {silent[:5]} exist, and nothing that the run has written tells of them")
    return wrong


def _bodies(service: Service) -> dict[str, bytes]:
    """Reads the books of the service: what it made jobs of."""
    books = service._books
    return {job_id: books.body(job_id) or b"" for job_id, job in books._jobs.items() if not job.foreign}


def _ids_of(expected: Expected, line: dict[str, Any]) -> list[bytes]:
    """Gives the ids of a held chunk: those from its first to its last in the order of the input."""
    first, last = line["first_id"].encode(), line["last_id"].encode()
    return expected.ids[expected.ids.index(first) : expected.ids.index(last) + 1]
