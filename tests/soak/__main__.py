"""Runs one of the long tests by its name: `python -m tests.soak NAME …`."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or [""]
    if not name.isidentifier():
        sys.exit(__doc__)
    sys.exit(importlib.import_module(f"tests.soak.{name}").main(rest))
