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
    "fuzz": "hostile bytes against everything that reads them",
}

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or [""]
    if name not in ABOUT:
        sys.exit("\n".join(["There are:", *(f"  {each:<10} {about}" for each, about in ABOUT.items())]))
    if name in ("kills", "faults"):
        name, rest = "cli", [name, *rest]
    sys.exit(importlib.import_module(f"soak.{name}").main(rest))
