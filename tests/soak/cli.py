"""The command line of the soaks: `python -m tests.soak kills` and `python -m tests.soak faults`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from soak.faults import FaultsPlan, run_faults
from soak.kills import KillPlan, run_kills
from soak.town import Result

__all__ = ["main"]

_DESCRIPTION: Final = """Works on a run while it is killed and lied to, and judges it by the books of the service.
Prints a table, then the same as one line of JSON. The exit code is 1 if the promise was broken once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one soak and gives the exit code."""
    arguments = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=arguments.folder) as made:
        folder = Path(made)
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True)
            folder = arguments.keep.resolve()
        result = _run(arguments, folder)
    print(result.table(), file=sys.stderr)
    print(json.dumps(result.as_dict()))
    return 1 if result.violations else 0


def _run(arguments: argparse.Namespace, folder: Path) -> Result:
    if arguments.command == "kills":
        kills = KillPlan(
            cycles=arguments.cycles,
            ids=arguments.ids,
            seed=arguments.seed,
            chunk_ids=arguments.chunk_size,
            cold=arguments.cold,
            on_unknown=arguments.on_unknown,
        )
        return run_kills(kills, folder)
    faults = FaultsPlan(
        ids=arguments.ids,
        seed=arguments.seed,
        chunk_ids=arguments.chunk_size,
        every=arguments.every,
        kills=arguments.kills,
        on_unknown=arguments.on_unknown,
    )
    return run_faults(faults, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    kills = commands.add_parser("kills", help="SIGKILL at random moments on one growing ledger")
    kills.add_argument("--cycles", type=int, default=60, metavar="N")
    kills.add_argument("--ids", type=int, default=6_000, metavar="N", help="100 for each cycle is good")
    kills.add_argument("--chunk-size", type=int, default=10, metavar="N")
    kills.add_argument(
        "--cold", type=float, default=0.1, metavar="SHARE", help="of the sessions, started from nothing"
    )
    faults = commands.add_parser("faults", help="many ids through a service that breaks what it can")
    faults.add_argument("--ids", type=int, default=2_000_000, metavar="N")
    faults.add_argument("--chunk-size", type=int, default=10_000, metavar="N")
    faults.add_argument("--kills", type=int, default=5, metavar="N")
    faults.add_argument(
        "--every", type=int, default=50, metavar="N", help="one submission in N meets a fault"
    )
    for command in (kills, faults):
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--on-unknown", choices=("hold", "reconcile"), default="hold")
        command.add_argument("--folder", type=Path, metavar="DIR", help="where the files go meanwhile")
        command.add_argument(
            "--keep", type=Path, metavar="DIR", help="a new folder for the files, which stay"
        )
    return parser
