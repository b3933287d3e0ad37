"""The commands, gathered."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import import_module
from typing import Final, cast

import click

from bulkjobs import __version__
from bulkjobs.cli.streams import LOG_FORMAT, say, tell
from bulkjobs.exits import Exit

__all__ = ["app", "run"]

_COMMANDS: Final = {
    "submit": "submit",
    "resume": "submit",
    "reconcile": "reconcile",
    "status": "status",
    "control": "control",
    "audit": "audit",
    "explain": "explain",
    "simulate": "simulate",
    "demo": "demo",
}
"""The module of each command, in the order of the help. Only that of the one that is given is loaded."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in _COMMANDS:
            return None
        return cast("click.Command", getattr(import_module(f"bulkjobs.cli.{_COMMANDS[cmd_name]}"), cmd_name))


def _version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        say(f"bulkjobs {__version__}\n")
        context.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def app() -> None:
    """Submits millions of ids to an asynchronous, billed bulk-job API and accounts for every one."""


def run(arguments: Sequence[str]) -> int:
    """Runs one command and gives its exit code; wrong usage is 2."""
    LOG_FORMAT.set("text")  # until the options say otherwise
    try:
        code = app(args=list(arguments), prog_name="bulkjobs", standalone_mode=False)
    except click.UsageError as error:
        # Told by ourselves: it repeats arguments, and a pattern of the shell may put any file name among them.
        text = io.StringIO()
        error.show(file=text)
        tell(*text.getvalue().splitlines())
        return Exit.USAGE
    except click.Abort:
        return Exit.BUG
    except BrokenPipeError:  # help, of which a reader wanted only the beginning
        return Exit.BUG
    return code if isinstance(code, int) else Exit.ACCEPTED
