"""Runs one of the long tests by its name: `python -m tests.soak NAME …`, from the folder of the repository."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does for the tests

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or [""]
    if name not in ("controls", "fuzz", "simulate"):
        sys.exit("There are: controls, fuzz, simulate.")
    sys.exit(importlib.import_module(f"soak.{name}").main(rest))
