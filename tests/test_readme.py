"""The README against the code: what it shows runs, and its tables are those of the program."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import shlex
import sys
from pathlib import Path

import click
import pytest

from bulkjobs.cli.app import app
from bulkjobs.exits import Exit
from bulkjobs.model import JobRecord, RunSummary
from bulkjobs.observers.figures import METRICS, labels_of
from bulkjobs.settings import OPTIONS
from bulkjobs.simulator import FaultPlan, ServiceConfig, SimulatorServer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])

DEMO = "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/bulkjobs demo"
TESTS = 'python3 -m venv .venv && .venv/bin/pip install -q -e ".[test]" && .venv/bin/pytest -q'


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """Gives the cells of the first table under a heading, without its two head lines."""
    section = re.split(r"^#+ ", README.partition(f" {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    ]


def named(cells: list[str]) -> list[str]:
    """Gives everything that stands in backticks in the first cells."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def shell_lines() -> list[tuple[str, str]]:
    return [
        (str(page.relative_to(ROOT)), line)
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"), "sh")
        for line in block.splitlines()
    ]


def commands() -> list[list[str]]:
    """Gives the words of every call of bulkjobs that a page shows in a shell block."""
    found = []
    for _, line in shell_lines():
        for part in re.split(r"&&|\|", line.partition(" #")[0]):
            words = shlex.split(part)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and words[0].rpartition("/")[2] == "bulkjobs":
                found.append(words[1:])
    return found


def test_the_first_commands_are_the_demonstration_and_the_tests():
    assert [block.strip() for block in blocks(README, "sh")[:2]] == [DEMO, TESTS]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_shown_is_one_that_the_program_takes(words):
    """The command exists, and so does each of its options, with a value of the right form."""
    command = app.get_command(click.Context(app), words[0])
    with command.make_context(words[0], words[1:]) as context:
        given = {option.field: context.params.get(option.field) for option in OPTIONS}
    for option in OPTIONS:
        if given[option.field] not in (None, [], ()):
            option.read(given[option.field], option.name)


@pytest.mark.parametrize("words", [line for _, line in shell_lines() if "-m benchmarks." in line])
def test_every_benchmark_shown_exists(words):
    module = re.search(r"-m (benchmarks\.\w+)", words)[1]
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_the_subcommands_shown_are_all_there_are():
    """What the program can do is in the README, and nothing else."""
    assert {words[0] for words in commands()} == set(app.list_commands(click.Context(app)))


def test_the_configuration_table_is_the_table_of_options():
    """Each option with its metavar, its environment name and its default, in the same order."""
    expected = []
    for option in OPTIONS:
        names = [f"{option.name} {option.metavar}" if option.metavar else option.name]
        names += [option.off] if option.off else []
        expected.append(
            (", ".join(f"`{name}`" for name in names), f"`{option.environ}`", f"`{option.default}`")
        )
    assert [tuple(row[:3]) for row in rows("Configuration")] == expected


def test_the_exit_codes_are_all_there():
    assert sorted(int(row[0]) for row in rows("Exit codes")) == sorted(Exit)


@pytest.mark.parametrize(("heading", "value"), [("Job records", JobRecord), ("Summary", RunSummary)])
def test_the_tables_of_fields_name_each_field_once_and_in_order(heading, value):
    assert named([row[0] for row in rows(heading)]) == [field.name for field in dataclasses.fields(value)]


def test_the_table_of_metrics_is_that_of_the_program():
    expected = [
        [
            f"`{metric.name}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in labels_of(metric)),
            metric.about,
        ]
        for metric in METRICS
    ]
    assert rows("Metrics") == expected


async def run(argv: list[str], server: SimulatorServer, folder: Path) -> tuple[int, str, str]:
    """Runs Python in a folder against a simulated service; gives exit code, stdout and stderr."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("BULKJOBS_")}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "BULKJOBS_ACCESS_TOKEN": "simulator-token",
        "BULKJOBS_BASE_URL": server.base_url,
        "BULKJOBS_MAX_ACTIVE_JOBS": "none",  # jobs take minutes
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *argv,
        cwd=folder,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_example_of_a_stream_runs_as_it_stands(tmp_path):
    (tmp_path / "ids.txt").write_text("".join(f"{n}\n" for n in range(1, 15_001)))
    async with SimulatorServer() as server:
        code, out, err = await run(["-c", blocks(README, "python")[0]], server, tmp_path)
        assert (code, err) == (0, "")
        assert server.service.totals()["ids"] == 15_000
    first, second, summary = out.splitlines()
    assert sorted(line.split()[1] for line in (first, second)) == ["10000", "5000"]
    assert summary.startswith("RunSummary(")
    assert len((tmp_path / "contacts.run" / "jobs.jsonl").read_text().splitlines()) == 2


async def test_the_example_of_a_summary_runs_as_it_stands_and_again(tmp_path):
    """The second time the run is finished: nothing is sent, and it ends as before."""
    example = ["-c", blocks(README, "python")[1]]
    async with SimulatorServer() as server:
        code, out, err = await run(example, server, tmp_path)
        assert (code, err) == (0, "")
        again, out_again, _ = await run(example, server, tmp_path)
        totals = server.service.totals()
    *records, ids = out.splitlines()
    assert [line[:8] for line in sorted(records)] == ["chunk 1 ", "chunk 2 ", "chunk 3 "]
    assert "'accepted': 25000" in ids
    assert (again, out_again.splitlines()) == (0, [ids])
    assert (totals["jobs"], totals["ids"]) == (3, 25_000)


async def test_the_example_of_live_control_runs_as_it_stands(tmp_path):
    async with SimulatorServer() as server:
        code, out, err = await run(["-c", blocks(README, "python")[2]], server, tmp_path)
    assert (code, out, err) == (0, "2 workers from now on\n", "")


async def test_the_ids_of_a_held_chunk_are_found_as_the_guarantee_says(tmp_path):
    """Line and count lead to the ids, and the digest confirms them."""
    (tmp_path / "ids.txt").write_text("".join(f"{n}\n" for n in range(100, 120)))
    plan = FaultPlan.of("submit:reset_before@2")
    async with SimulatorServer(ServiceConfig(faults=plan)) as server:
        argv = ["-m", "bulkjobs", "submit", "ids.txt", "--chunk-size", "5", "--workers", "1", "--quiet"]
        argv += ["--on-unknown", "hold"]
        code, _, _ = await run(argv, server, tmp_path)
    assert code == Exit.HELD
    held = json.loads((tmp_path / "ids.txt.run" / "held.jsonl").read_text())
    assert (held["ids"], held["line"]) == (5, 6)
    block = next(
        block
        for block in blocks((ROOT / "docs" / "guarantee.md").read_text(encoding="utf-8"), "sh")
        if "sha256sum" in block
    )
    shell = "\n".join(line for line in block.splitlines() if not line.startswith("bulkjobs"))
    process = await asyncio.create_subprocess_shell(shell, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().split()[0] == held["digest"]
    assert (tmp_path / "again.txt").read_text().split() == ["105", "106", "107", "108", "109"]
