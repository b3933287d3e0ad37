"""`bulkjobs simulate`: the simulated service as a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bulkjobs.cli.service import configured, with_service_options
from bulkjobs.exits import Exit

if TYPE_CHECKING:
    from bulkjobs.simulator import ServiceConfig, Span

__all__ = ["simulate"]


@click.command(context_settings={"show_default": True})
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; 0 takes a free one."
)
@click.option("--token", default="simulator-token", help="An access token that is always good.")
@click.option(
    "--fault",
    metavar="RULE",
    multiple=True,
    help="[KIND:]NAME=RATE, KIND:NAME@NUMBER or KIND:NAME@FIRST-LAST, e.g. submit:reset_after=0.01.",
)
@click.option("--late", metavar="TIME", default="4m", help="How long after a _late fault its job appears.")
@click.option("--slow", metavar="TIME", default="2m", help="How much later a slow_after answer comes.")
@click.option("--speed", default=1.0, help="Simulated seconds in one real second.")
@click.option(
    "--transit",
    metavar="A..B",
    default="0s",
    help="From the client to the service, before a request is counted.",
)
@click.option(
    "--books",
    metavar="FILE",
    type=Path,
    help="Keep the accepted bodies here, an index in FILE.jsonl, every submission in FILE.posts.jsonl.",
)
@click.option("--books-sync", is_flag=True, help="Each entry of the books is on the disk before the reply.")
@click.option("--for", "run_for", metavar="TIME", help="End after this real time.")
@with_service_options
def simulate(
    *,
    host: str,
    port: int,
    token: str,
    fault: Sequence[str],
    late: str,
    slow: str,
    speed: float,
    transit: str,
    books: Path | None,
    books_sync: bool,
    run_for: str | None,
    given: Mapping[str, Any],
) -> int:
    """Runs a simulated service that behaves as the vendor's does, until it is interrupted.

    Prints one line of JSON when it is ready: base_url, login_url, books_url and token. All times but --for
    are simulated seconds. What happened can be read at books_url.
    """
    from bulkjobs.errors import ConfigError  # noqa: PLC0415 - the help text needs none of this
    from bulkjobs.simulator import FaultPlan  # noqa: PLC0415
    from bulkjobs.simulator.spelling import read_duration, read_span  # noqa: PLC0415

    try:
        faults = FaultPlan.of(*fault, late_s=read_duration(late), slow_s=read_duration(slow))
        config = configured(given, tokens=(token,), faults=faults, books=books, books_sync=books_sync)
        run_s = read_duration(run_for) if run_for else None
        on_the_way = read_span(transit)
        _run(_serve(config, host=host, port=port, speed=speed, transit=on_the_way, run_s=run_s))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None
    return Exit.ACCEPTED


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
        click.echo(json.dumps(ready))
        await ended.wait()
