"""`bulkjobs simulate`: the simulated service as a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bulkjobs.cli.service import configured, with_service_options

if TYPE_CHECKING:
    from bulkjobs.simulator import ServiceConfig, Span

__all__ = ["simulate"]


_Host = Annotated[str, typer.Option(help="Address to listen on.")]
_Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
_Token = Annotated[str, typer.Option(help="An access token that is always good.")]
_Fault = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="[KIND:]NAME=RATE, KIND:NAME@NUMBER or KIND:NAME@FIRST-LAST, e.g. submit:reset_after=0.01.",
    ),
]
_Late = Annotated[str, typer.Option(metavar="TIME", help="How long after a _late fault its job appears.")]
_Slow = Annotated[str, typer.Option(metavar="TIME", help="How much later a slow_after answer comes.")]
_Speed = Annotated[float, typer.Option(help="Simulated seconds in one real second.")]
_Transit = Annotated[
    str, typer.Option(metavar="A..B", help="From the client to the service, before a request is counted.")
]
_Books = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keep the accepted bodies here, an index in FILE.jsonl, every submission in FILE.posts.jsonl.",
    ),
]
_BooksSync = Annotated[
    bool, typer.Option("--books-sync", help="Each entry of the books is on the disk before the reply.")
]
_RunFor = Annotated[str | None, typer.Option("--for", metavar="TIME", help="End after this real time.")]


@with_service_options
def simulate(
    *,
    host: _Host = "127.0.0.1",
    port: _Port = 0,
    token: _Token = "simulator-token",  # noqa: S107 - for tests
    fault: _Fault = None,
    late: _Late = "4m",
    slow: _Slow = "2m",
    speed: _Speed = 1.0,
    transit: _Transit = "0s",
    books: _Books = None,
    books_sync: _BooksSync = False,
    run_for: _RunFor = None,
    given: Mapping[str, Any],
) -> None:
    """Runs a simulated service that behaves as the vendor's does, until it is interrupted.

    Prints one line of JSON when it is ready: base_url, login_url, books_url and token. All times but --for
    are simulated seconds. What happened can be read at books_url.
    """
    from bulkjobs.errors import ConfigError  # noqa: PLC0415 - the help text needs none of this
    from bulkjobs.simulator import FaultPlan  # noqa: PLC0415
    from bulkjobs.simulator.spelling import read_duration, read_span  # noqa: PLC0415

    try:
        faults = FaultPlan.of(*(fault or ()), late_s=read_duration(late), slow_s=read_duration(slow))
        config = configured(given, tokens=(token,), faults=faults, books=books, books_sync=books_sync)
        run_s = read_duration(run_for) if run_for else None
        on_the_way = read_span(transit)
        _run(_serve(config, host=host, port=port, speed=speed, transit=on_the_way, run_s=run_s))
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def _run(main: Coroutine[None, None, None]) -> None:
    import asyncio  # noqa: PLC0415 - as above

    try:
        import uvloop  # noqa: PLC0415 - where it exists
    except ImportError:
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)


async def _serve(
    config: ServiceConfig, *, host: str, port: int, speed: float, transit: Span, run_s: float | None
) -> None:
    import asyncio  # noqa: PLC0415 - as above
    import json  # noqa: PLC0415
    import signal  # noqa: PLC0415

    from bulkjobs.simulator import SimulatorServer  # noqa: PLC0415

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if run_s is not None:
        loop.call_later(run_s, ended.set)
    async with SimulatorServer(config, host=host, port=port, speed=speed, transit=transit) as server:
        ready = {
            "base_url": server.base_url,
            "login_url": server.login_url,
            "books_url": server.books_url,
            "token": config.tokens[0],
        }
        typer.echo(json.dumps(ready))
        await ended.wait()
