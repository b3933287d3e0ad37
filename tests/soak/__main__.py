"""Runs one of the long tests by its name: `python -m tests.soak NAME …`, from the folder of the repository."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does for the tests

ABOUT = {
    "kills": "SIGKILL at random moments on one growing ledger",
    "faults": "many ids through a service that breaks what it can",
    "simulate": "engine and service in one process on a virtual clock, by seed",
    "controls": "engines broken on purpose, each of which must be found out",
    "power-loss": "the power goes behind every call of a session, and what the disk may hold is opened again",
    "disk-faults": "every call to the disk fails once, of a session on a real file system",
    "strict": "the limit as a real server counts it, in real time, with slow answers and kills",
    "scenarios": "thirty days against each server described in tests/scenarios, as a table",
    "fuzz": "hostile bytes against everything that reads them",
}

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or [""]
    if name not in ABOUT:
        sys.exit("\n".join(["There are:", *(f"  {each:<10} {about}" for each, about in ABOUT.items())]))
    if name in ("kills", "faults"):
        name, rest = "cli", [name, *rest]
    sys.exit(importlib.import_module(f"soak.{name.replace('-', '_')}").main(rest))
