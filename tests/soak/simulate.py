"""Runs simulations by seed: one to look at, or many to find one worth looking at.

python -m tests.soak simulate --seed 42 --trace
python -m tests.soak simulate --seeds 1..5000
python -m tests.soak simulate --seeds 1..50000 --brief
python -m tests.soak simulate --seeds 1..100 --long --chunks 5000
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

from support.simulation import Outcome, Scenario, long_scenario_of, scenario_of, simulate

__all__ = ["main", "replay_command", "run_seeds"]

_ON_FILES_EVERY: Final = 10
"""One seed in so many has its ledgers on files, which each process opens anew; the others take two thirds of that."""


def replay_command(seed: int, *, brief: bool = False, chunks: int | None = None) -> str:
    """Gives the one command that plays a seed again."""
    kind = " --brief" if brief else "" if chunks is None else f" --long --chunks {chunks}"
    return f"python -m tests.soak simulate --seed {seed}{kind} --trace"


def run_seeds(
    seeds: Sequence[int],
    *,
    brief: bool = False,
    chunks: int | None = None,
    for_s: float = float("inf"),
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Runs seeds one after the other and says of each violation how to see it again.

    Args:
        seeds: in this order.
        brief: for the shortest runs, of which most go into a minute.
        chunks: None for short runs with much going wrong; else the length of long ones.
        for_s: begins no further seed after so many seconds of real time.
        say: takes the messages.
    """
    make = _maker(brief=brief, chunks=chunks)
    begun = time.monotonic()
    outcomes = []
    for seed in seeds:
        if time.monotonic() - begun > for_s:
            break
        outcome = simulate(make(seed), on_files=seed % _ON_FILES_EVERY == 0)
        outcomes.append(outcome)
        for violation in outcome.violations:
            say(f"seed {seed}: {violation}\n    {replay_command(seed, brief=brief, chunks=chunks)}")
    return outcomes


def _maker(*, brief: bool, chunks: int | None) -> Callable[[int], Scenario]:
    return partial(scenario_of, brief=brief) if chunks is None else partial(long_scenario_of, chunks=chunks)


def main(argv: Sequence[str]) -> int:
    """Runs what the arguments name; 0 if nothing was violated."""
    arguments = _arguments(argv)
    chunks = arguments.chunks if arguments.long else None
    if arguments.seed is not None:
        return _one(arguments.seed, brief=arguments.brief, chunks=chunks, trace=arguments.trace)
    begun = time.monotonic()
    run = partial(run_seeds, brief=arguments.brief, chunks=chunks, for_s=arguments.for_s)
    with ProcessPoolExecutor(arguments.processes) as pool:
        # Dealt out one by one, so that each process has as many of each kind.
        shares = [arguments.seeds[nth :: arguments.processes] for nth in range(arguments.processes)]
        outcomes = [outcome for share in pool.map(run, shares) for outcome in share]
    used = os.times()
    print(_summary(outcomes, time.monotonic() - begun, used.children_user + used.children_system))
    return int(any(outcome.violations for outcome in outcomes))


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak simulate")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="plays this one")
    which.add_argument("--seeds", type=_range, metavar="A..B", help="plays all from A to B")
    parser.add_argument("--trace", action="store_true", help="shows each step of --seed")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--brief", action="store_true", help="runs of at most 8 chunks")
    length.add_argument("--long", action="store_true", help="runs of hours and few faults")
    parser.add_argument("--chunks", type=int, default=1_500, help="length of a long run")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="at once (default: one for each core)"
    )
    parser.add_argument(
        "--for", dest="for_s", type=float, default=float("inf"), help="stops after so many seconds"
    )
    return parser.parse_args(argv)


def _range(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last) + 1)


def _one(seed: int, *, brief: bool, chunks: int | None, trace: bool) -> int:
    scenario = _maker(brief=brief, chunks=chunks)(seed)
    outcome = simulate(scenario, keep_trace=trace)
    for line in outcome.trace:
        print(line)
    if trace:
        print(scenario.settings, scenario.config, scenario.endings, scenario.jumps, sep="\n")
    for violation in outcome.violations:
        print(f"VIOLATION {violation}")
    print(f"seed {seed}: {len(outcome.violations)} violations, trace {outcome.trace_hash}")
    return int(bool(outcome.violations))


def _summary(outcomes: Sequence[Outcome], elapsed_s: float, cpu_s: float) -> str:
    seen: Counter[str] = Counter()
    for outcome in outcomes:
        seen += outcome.seen
    chunks = sum(outcome.chunks for outcome in outcomes)
    bad = [outcome.seed for outcome in outcomes if outcome.violations]
    faults = sum(count for name, count in seen.items() if name.startswith("fault "))
    processes = sum(outcome.processes for outcome in outcomes)
    hours = sum(outcome.virtual_s for outcome in outcomes) / 3_600
    return "\n".join(
        (
            f"{len(outcomes)} seeds, {chunks} chunks, {processes} processes, {hours:.0f} virtual hours, {faults} faults",
            *(f"    {name}: {count}" for name, count in sorted(seen.items())),
            f"{elapsed_s:.1f} s, {cpu_s:.1f} s of one core",
            f"here: {60 * len(outcomes) / elapsed_s:.0f} schedules a minute",
            f"a core: {60 * len(outcomes) / cpu_s:.0f} schedules and {60 * chunks / cpu_s:.0f} chunks a minute",
            f"violations: {len(bad)} {bad[:20] or ''}",
        )
    )
