"""The options that commands share, made into typer parameters from the one table in `settings`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any

import typer

from bulkjobs.cli.session import exiting
from bulkjobs.settings import OPTIONS, Option

__all__ = ["EPILOG", "with_options"]

EPILOG = (
    "Each option may also stand in the environment, --rate as BULKJOBS_RATE, or in bulkjobs.toml, as rate. "
    "The access token comes from BULKJOBS_ACCESS_TOKEN, or BULKJOBS_CLIENT_ID and BULKJOBS_CLIENT_SECRET."
)

Given = dict[str, object]
"""What stood on the command line, by field name; text is not read yet."""


def with_options(command: Callable[..., int], *, without: Collection[str] = ()) -> Callable[..., None]:
    """Gives a command the shared options.

    Args:
        command: takes its own parameters, then `given`; returns the exit code.
        without: fields of options that mean nothing to this command.

    Returns:
        What typer calls: with the command's own parameters and one for each option.
    """
    shared = [option for option in OPTIONS if option.field not in without]
    names = {option.field for option in shared}

    def call(**arguments: Any) -> None:
        given: Given = {
            name: value for name, value in arguments.items() if name in names and value not in (None, [])
        }
        own = {name: value for name, value in arguments.items() if name not in names}
        exiting(lambda: command(**own, given=given))

    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "given"]
    call.__signature__ = inspect.Signature([*own, *map(_parameter, shared)])  # type: ignore[attr-defined]  # what inspect reads first
    call.__name__, call.__doc__ = command.__name__, command.__doc__
    return call


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = str
    if option.metavar is None:
        kind = bool
    elif option.repeatable:
        kind = list[str]
    declared = f"{option.name}/{option.off}" if option.off else option.name
    about = typer.Option(
        declared, metavar=option.metavar, help=f"{option.help} [{option.default}]", show_default=False
    )
    return inspect.Parameter(
        option.field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, about]
    )
