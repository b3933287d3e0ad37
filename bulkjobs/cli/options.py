"""What commands share: their arguments and options, made of the one table in `settings`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import click

from bulkjobs.cli.session import exiting
from bulkjobs.settings import OPTIONS, Option

__all__ = ["AS_JSON", "EPILOG", "FOLDER", "RUN", "with_options"]

EPILOG: Final = (
    "Each option may also stand in the environment, --rate as BULKJOBS_RATE, or in bulkjobs.toml, as rate. "
    "The access token comes from BULKJOBS_ACCESS_TOKEN, or BULKJOBS_CLIENT_ID and BULKJOBS_CLIENT_SECRET."
)

Given = dict[str, object]
"""What stood on the command line, by field name; text is not read yet."""

RUN: Final = click.argument("run", metavar="RUN", type=Path, help="The run directory.")
FOLDER: Final = click.option(
    "--folder", metavar="DIR", type=Path, help="Where relative names of sources begin. [the current folder]"
)
AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def with_options(*, without: Collection[str] = ()) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Gives a command the shared options; those that were given come to it as `given`.

    Args:
        without: fields of options that mean nothing to this command.
    """
    shared = [option for option in OPTIONS if option.field not in without]
    names = {option.field for option in shared}

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def call(**arguments: Any) -> int:
            given: Given = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in arguments.items()
                if name in names and value not in (None, ())
            }
            own = {name: value for name, value in arguments.items() if name not in names}
            return exiting(lambda: command(**own, given=given))

        declared: Callable[..., int] = call
        for option in reversed(shared):
            declared = _declared(option)(declared)
        return declared

    return decorate


def _declared(option: Option) -> Callable[[Callable[..., int]], Callable[..., int]]:
    names = (f"{option.name}/{option.off}" if option.off else option.name, option.field)
    about = f"{option.help} [{option.default}]"
    if option.metavar is None:
        return click.option(*names, is_flag=True, default=None, help=about)
    return click.option(*names, metavar=option.metavar, multiple=option.repeatable, help=about)
