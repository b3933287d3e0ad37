"""The command: `python -m benchmarks.goodput`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.data import DataSpec, write
from benchmarks.goodput.account import VARIANTS, Account, optimum_s
from benchmarks.goodput.books import Story, WrongBooks
from benchmarks.goodput.contest import Contest, Result, run
from benchmarks.goodput.picture import Panel, can_draw, draw
from benchmarks.goodput.roster import ROSTER
from benchmarks.goodput.summary import summary, table
from bulkjobs.errors import ConfigError
from bulkjobs.simulator.spelling import read_count, read_duration, read_rate, read_span

_OURS: Final = "bulkjobs"
_SMOKE: Final = (
    *("--ids", "600", "--chunk-ids", "50", "--rate", "5/0.5s", "--lockout", "0.5s", "--rounds", "1"),
    *("--contenders", f"{_OURS},aiolimiter", "--time-limit", "60s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Is what the command line asks for."""

    account: Account
    ids: int
    chunk_ids: int
    contenders: tuple[str, ...]
    variants: tuple[str, ...]
    rounds: int
    seed: int
    limit_s: float
    out: Path | None

    @property
    def optimum(self) -> list[tuple[float, int]]:
        """Is the curve that nobody can beat: seconds, and ids accepted by then."""
        chunks = -(-self.ids // self.chunk_ids)
        times = optimum_s(self.account, chunks)
        return [(at, min(self.ids, (number + 1) * self.chunk_ids)) for number, at in enumerate(times)]


Stories = dict[str, list[Story]]
"""By the name of the contender."""


def compare(plan: Plan, variant: str, folder: Path, lines: list[dict[str, Any]]) -> Stories:
    """Lets everybody run in every round, each round begun by another one, and adds a line for each run.

    Raises:
        WrongBooks: the service holds what it should not.
    """
    contest = Contest(
        account=plan.account,
        variant=VARIANTS[variant],
        ids=folder / "ids.txt",
        chunk_ids=plan.chunk_ids,
        limit_s=plan.limit_s,
    )
    stories: Stories = {name: [] for name in plan.contenders}
    for number in range(plan.rounds):
        first = number % len(plan.contenders)
        for name in plan.contenders[first:] + plan.contenders[:first]:
            place = folder / variant / f"{number}-{name}"
            result = run(contest, ROSTER[name], place, plan.seed + number)
            if name == _OURS:
                _check_ours(variant, result)
            stories[name].append(result.story)
            lines.append(_run_line(variant, number, name, result, plan.optimum[-1][0]))
            said = {key: value for key, value in lines[-1].items() if key not in {"kind", "curve"}}
            sys.stderr.write(json.dumps(said) + "\n")
    return stories


def _check_ours(variant: str, result: Result) -> None:
    """Holds this engine, unless the time limit ended it, to what it promises; how long it took is never judged."""
    story = result.story
    found = {
        "ids paid twice": story.paid_twice,
        "ids never accepted": story.never_accepted,
        "lock-outs with the limit known": 0 if VARIANTS[variant].told > 1 else len(story.lockouts),
        "exit code": result.exit_code,
    }
    if result.exit_code is not None and any(found.values()):
        raise WrongBooks(f"bulkjobs broke its promise: {json.dumps(found)}")


def _run_line(variant: str, number: int, name: str, result: Result, optimum: float) -> dict[str, Any]:
    story = result.story
    return {
        "kind": "run",
        "variant": variant,
        "round": number + 1,
        "contender": name,
        "exit_code": result.exit_code,
        "process_s": round(result.process_s, 3),
        "finished_s": story.finished_s and round(story.finished_s, 3),
        "share_of_optimum": round(story.share_of_optimum(optimum), 4),
        "accepted": story.accepted,
        "paid_twice": story.paid_twice,
        "never_accepted": story.never_accepted,
        "lockouts": [round(at, 3) for at in story.lockouts],
        "requests": story.requests,
        "throttled": story.throttled,
        "wasted": story.wasted,
        "fullest_window": story.fullest_window,
        "curve": [(round(at, 3), ids) for at, ids in story.curve],
    }


def _about(plan: Plan) -> dict[str, Any]:
    return {
        "kind": "about",
        "benchmark": "goodput",
        "ids": plan.ids,
        "chunk_ids": plan.chunk_ids,
        "account": asdict(plan.account),
        "optimum_s": plan.optimum[-1][0],
        "rounds": plan.rounds,
        "seed": plan.seed,
        "time_limit_s": plan.limit_s,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "versions": {name: ROSTER[name].versions() for name in plan.contenders},
    }


def _work(plan: Plan) -> str:
    """Runs all variants, writes the files that were asked for and gives the tables."""
    lines: list[dict[str, Any]] = [_about(plan)]
    panels: list[Panel] = []
    tables: list[str] = []
    optimum = plan.optimum[-1][0]
    with tempfile.TemporaryDirectory(prefix="bulkjobs-goodput-") as name:
        folder = Path(name)
        write(DataSpec(ids=plan.ids, seed=plan.seed), folder / "ids.txt")
        for variant in plan.variants:
            stories = compare(plan, variant, folder, lines)
            titled = {ROSTER[name].title: found for name, found in stories.items()}
            title = VARIANTS[variant].title
            tables.append(
                f"{title.capitalize()}; the optimum is {optimum:.1f} s:\n\n{table(titled, optimum)}"
            )
            panels.append(Panel(title=title, optimum=plan.optimum, stories=titled))
            lines += [
                {"kind": "summary", "variant": variant, "contender": name, **summary(found, optimum)}
                for name, found in stories.items()
            ]
    text = "\n".join(tables)
    if plan.out is not None:
        (plan.out / "goodput.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (plan.out / "goodput.md").write_text(text)
        if can_draw():
            draw(panels, plan.out / "goodput.png")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.goodput",
        description="Compares how much of an account's limit different programs turn into accepted ids.",
    )
    add = parser.add_argument
    add("--ids", type=int, default=7_000, help="ids to submit [7_000]")
    add("--chunk-ids", type=int, default=100, help="ids in a request [100]")
    add("--rate", type=read_rate, default="20/2s", help="requests that the service allows [20/2s]")
    add("--lockout", type=read_duration, default="2s", help="lock-out after one too many [2s]")
    add("--transit", type=read_span, default="0s..40ms", help="way to the service [0s..40ms]")
    add("--latency", type=read_span, default="10ms..40ms", help="from there to the answer [10ms..40ms]")
    add("--max-active-jobs", type=read_count, default="none", help="slots of the account [none]")
    add("--job-time", type=read_duration, default="1s", help="how long a job holds its slot [1s]")
    add("--contenders", default=",".join(ROSTER), help=f"some of {','.join(ROSTER)} [all]")
    add("--variants", default="exact", help=f"some of {','.join(VARIANTS)} [exact]")
    add("--rounds", type=int, default=3)
    add("--seed", type=int, default=1, help="of ids, latencies and faults [1]")
    add("--time-limit", type=read_duration, default="40s", help="for each contender in each round [40s]")
    add("--out", type=Path, metavar="DIR", help="write goodput.jsonl, goodput.md and goodput.png there")
    add("--smoke", action="store_true", help="a few seconds: does it work at all?")
    return parser


def _plan(arguments: Sequence[str]) -> Plan:
    parser = _parser()
    try:
        given = parser.parse_args([*_SMOKE, *arguments] if "--smoke" in arguments else arguments)
        names, variants = given.contenders.split(","), given.variants.split(",")
        if unknown := ({*names} - ROSTER.keys()) | ({*variants} - VARIANTS.keys()):
            parser.error(f"There is no contender and no variant {min(unknown)!r}.")
        if given.rate is None or min(given.ids, given.chunk_ids, given.rounds) < 1:
            parser.error("There must be a rate, and at least one id, one id in a request and one round.")
    except ConfigError as error:
        parser.error(str(error))
    return Plan(
        account=Account(
            count=given.rate.count,
            window_s=given.rate.window_s,
            lockout_s=given.lockout,
            transit_s=(given.transit.min_s, given.transit.max_s),
            latency_s=(given.latency.min_s, given.latency.max_s),
            slots=given.max_active_jobs,
            job_s=given.job_time,
        ),
        ids=given.ids,
        chunk_ids=given.chunk_ids,
        contenders=tuple(name for name in names if _present(name)),
        variants=tuple(variants),
        rounds=given.rounds,
        seed=given.seed,
        limit_s=given.time_limit,
        out=given.out,
    )


def _present(name: str) -> bool:
    missing = ROSTER[name].missing()
    if missing is not None:
        sys.stderr.write(f"{name} is left out: {missing} is not installed (see the extra `benchmarks`).\n")
    return missing is None


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares what the command line asks for and prints the tables; 1 when this engine broke a promise."""
    plan = _plan(sys.argv[1:] if arguments is None else arguments)
    if plan.out is not None:
        plan.out.mkdir(parents=True, exist_ok=True)
        if not can_draw():
            sys.stderr.write(
                "There will be no picture: matplotlib is not installed (the extra `benchmarks`).\n"
            )
    try:
        print(_work(plan), end="")
    except WrongBooks as wrong:
        sys.stderr.write(f"wrong result: {wrong}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
