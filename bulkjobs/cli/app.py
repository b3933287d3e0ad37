"""The commands, gathered."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from bulkjobs import __version__
from bulkjobs.cli.audit import audit
from bulkjobs.cli.control import EPILOG as CONTROL_EPILOG
from bulkjobs.cli.control import control
from bulkjobs.cli.demo import demo
from bulkjobs.cli.explain import explain
from bulkjobs.cli.options import EPILOG, with_options
from bulkjobs.cli.reconcile import reconcile
from bulkjobs.cli.simulate import simulate
from bulkjobs.cli.status import status
from bulkjobs.cli.streams import LOG_FORMAT, tell
from bulkjobs.cli.submit import resume, submit
from bulkjobs.exits import Exit

__all__ = ["app", "run"]

_WRONG_USAGE: Final[Any] = typer.BadParameter.__base__
"""The base of everything that is wrong with arguments, for which typer has no name."""

app = typer.Typer(
    name="bulkjobs",
    no_args_is_help=True,
    # Tracebacks are ours to keep; see session.py.
    pretty_exceptions_enable=False,
    # Help without boxes can be searched, piped and compared.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bulkjobs {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Submits millions of ids to an asynchronous, billed bulk-job API and accounts for every one."""


app.command(epilog=EPILOG)(with_options(submit))
app.command(epilog=EPILOG)(with_options(resume, without={"run"}))
app.command(epilog=EPILOG)(with_options(reconcile, without={"run"}))
app.command()(status)
app.command(epilog=CONTROL_EPILOG)(control)
app.command()(audit)
app.command()(explain)
app.command()(simulate)
app.command()(demo)


def run(arguments: Sequence[str]) -> int:
    """Runs one command and gives its exit code; wrong usage is 2."""
    LOG_FORMAT.set("text")  # until the options say otherwise
    try:
        code = app(args=list(arguments), prog_name="bulkjobs", standalone_mode=False)
    except _WRONG_USAGE as error:
        # Told by ourselves: it repeats arguments, and a pattern of the shell may put any file name among them.
        text = io.StringIO()
        error.show(file=text)
        tell(*text.getvalue().splitlines())
        return Exit.USAGE
    except typer.Abort:
        return Exit.BUG
    except BrokenPipeError:  # help, of which a reader wanted only the beginning
        return Exit.BUG
    return code if isinstance(code, int) else Exit.ACCEPTED
