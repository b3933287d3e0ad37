"""The entry point `bulkjobs`, and `python -m bulkjobs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bulkjobs.cli.streams import OutputError, hold_numbers, say, settle, tell
from bulkjobs.exits import Exit

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code.

    Args:
        argv: the arguments after the program's name; None takes the process's own.
    """
    hold_numbers()
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return Exit.SIGINT
    except (OSError, OutputError) as error:
        # Commands keep their own errors: this is help that cannot be shown, or modules that cannot be loaded.
        tell(f"bulkjobs: {error}")
        return Exit.STORAGE
    finally:
        settle()


def _main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        # Answered before typer, rich and aiohttp are imported, which take half a second.
        from bulkjobs import __version__  # noqa: PLC0415

        say(f"bulkjobs {__version__}\n")
        return Exit.ACCEPTED
    from bulkjobs.cli.app import run  # noqa: PLC0415 - as above

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
