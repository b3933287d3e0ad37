"""The entry point `bulkjobs`, and `python -m bulkjobs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code.

    Args:
        argv: the arguments after the program's name; None takes the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        # Answered before typer, rich and aiohttp are imported, which take half a second.
        from bulkjobs import __version__  # noqa: PLC0415

        sys.stdout.write(f"bulkjobs {__version__}\n")
        return 0
    try:
        from bulkjobs.cli.app import run  # noqa: PLC0415 - as above

        return run(arguments)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
