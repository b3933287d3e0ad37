"""The entry point `bulkjobs`, and `python -m bulkjobs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bulkjobs.cli.app import run
from bulkjobs.cli.streams import OutputError, hold_numbers, settle, tell
from bulkjobs.exits import Exit

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code.

    Args:
        argv: the arguments after the program's name; None takes the process's own.
    """
    hold_numbers()
    try:
        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return Exit.SIGINT
    except (OSError, OutputError) as error:
        # Commands keep their own errors: this is help that cannot be shown, or modules that cannot be loaded.
        tell(f"bulkjobs: {error}")
        return Exit.STORAGE
    finally:
        settle()


if __name__ == "__main__":
    sys.exit(main())
