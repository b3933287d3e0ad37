"""`bulkjobs simulate`: the simulated service as a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bulkjobs.simulator import ServiceConfig

__all__ = ["simulate"]


_Host = Annotated[str, typer.Option(help="Address to listen on.")]
_Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
_Rate = Annotated[str, typer.Option(metavar="N/WINDOW", help="Requests the account may make, or none.")]
_Lockout = Annotated[str, typer.Option(metavar="TIME", help="How long exceeding it locks the account.")]
_LockoutExtends = Annotated[
    bool, typer.Option("--lockout-extends", help="A request during the lock-out starts it again.")
]
_RetryAfter = Annotated[
    str,
    typer.Option(metavar="FORM", help="Retry-After of a throttle: none, seconds, date, or a text (a lie)."),
]
_MaxActiveJobs = Annotated[str, typer.Option(metavar="N", help="Jobs that may be open at a time, or none.")]
_QueueTime = Annotated[str, typer.Option(metavar="A..B", help="From acceptance to processing.")]
_JobTime = Annotated[str, typer.Option(metavar="A..B", help="From processing to the end.")]
_JobFailures = Annotated[float, typer.Option(metavar="SHARE", help="Share of jobs that fail, 0 to 1.")]
_Quota = Annotated[str, typer.Option(metavar="N", help="Ids that may be processed in all, or none.")]
_Token = Annotated[str, typer.Option(help="An access token that is always good.")]
_ClientId = Annotated[str, typer.Option(help="Client id for the login.")]
_ClientSecret = Annotated[str, typer.Option(help="Client secret for the login.")]
_TokenTtl = Annotated[str, typer.Option(metavar="TIME", help="How long a token of the login is good.")]
_Latency = Annotated[str, typer.Option(metavar="A..B", help="From a request to its answer.")]
_Fault = Annotated[
    list[str] | None,
    typer.Option(metavar="RULE", help="[KIND:]NAME=RATE or KIND:NAME@NUMBER, e.g. submit:reset_after=0.01."),
]
_Speed = Annotated[float, typer.Option(help="Simulated seconds in one real second.")]
_Seed = Annotated[int, typer.Option(help="Job ids, durations and faults follow from it.")]
_Books = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Keep the accepted bodies here, an index in FILE.jsonl.")
]
_RunFor = Annotated[str | None, typer.Option("--for", metavar="TIME", help="End after this real time.")]


def simulate(
    *,
    host: _Host = "127.0.0.1",
    port: _Port = 0,
    rate: _Rate = "1000/5m",
    lockout: _Lockout = "5m",
    lockout_extends: _LockoutExtends = False,
    retry_after: _RetryAfter = "none",
    max_active_jobs: _MaxActiveJobs = "2",
    queue_time: _QueueTime = "1s..10s",
    job_time: _JobTime = "1m..3m",
    job_failures: _JobFailures = 0.0,
    quota: _Quota = "none",
    token: _Token = "simulator-token",  # noqa: S107 - for tests
    client_id: _ClientId = "simulator-client",
    client_secret: _ClientSecret = "simulator-secret",  # noqa: S107 - for tests
    token_ttl: _TokenTtl = "365d",  # noqa: S107 - a length of time
    latency: _Latency = "0s",
    fault: _Fault = None,
    speed: _Speed = 1.0,
    seed: _Seed = 0,
    books: _Books = None,
    run_for: _RunFor = None,
) -> None:
    """Runs a simulated service that behaves as the vendor's does, until it is interrupted.

    Prints one line of JSON when it is ready: base_url, login_url, books_url and token. All times but --for
    are simulated seconds. What happened can be read at books_url.
    """
    from bulkjobs.errors import ConfigError  # noqa: PLC0415 - the help text needs none of this
    from bulkjobs.simulator import FaultPlan, ServiceConfig  # noqa: PLC0415
    from bulkjobs.simulator.spelling import read_count, read_duration, read_rate, read_span  # noqa: PLC0415

    try:
        config = ServiceConfig(
            seed=seed,
            tokens=(token,),
            client_id=client_id,
            client_secret=client_secret,
            token_ttl_s=read_duration(token_ttl),
            rate=read_rate(rate),
            lockout_s=read_duration(lockout),
            lockout_extends=lockout_extends,
            retry_after=None if retry_after == "none" else retry_after,
            max_active_jobs=read_count(max_active_jobs),
            quota_ids=read_count(quota),
            queue_time=read_span(queue_time),
            job_time=read_span(job_time),
            job_failure_rate=job_failures,
            latency=read_span(latency),
            faults=FaultPlan.of(*(fault or ())),
            books=books,
        )
        run_s = read_duration(run_for) if run_for else None
        _run(_serve(config, host=host, port=port, speed=speed, run_s=run_s))
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


async def _serve(config: ServiceConfig, *, host: str, port: int, speed: float, run_s: float | None) -> None:
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
    async with SimulatorServer(config, host=host, port=port, speed=speed) as server:
        ready = {
            "base_url": server.base_url,
            "login_url": server.login_url,
            "books_url": server.books_url,
            "token": config.tokens[0],
        }
        typer.echo(json.dumps(ready))
        await ended.wait()
