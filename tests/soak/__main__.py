"""`python -m tests.soak`, from the folder of the repository."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does for the tests

from soak.cli import main

sys.exit(main())
