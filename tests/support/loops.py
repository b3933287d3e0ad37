"""Runs a test on asyncio's loop and on uvloop, which differ in how connections end."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

__all__ = ["on_both_loops"]


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes a coroutine test two tests. What a loop reports to its exception handler fails them."""

    @functools.wraps(test)
    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            problems: list[dict[str, Any]] = []
            runner.get_loop().set_exception_handler(lambda _loop, context: problems.append(context))
            runner.run(test(**arguments))
        assert problems == []

    parameters = [
        inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY),
        *inspect.signature(test).parameters.values(),
    ]
    signature = inspect.Signature(
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    vars(run)["__signature__"] = signature  # pytest reads the parameters from it,
    del run.__wrapped__  # and would otherwise look at those of the coroutine
    mark = pytest.mark.parametrize(
        "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    marked: Callable[..., None] = mark(run)
    return marked
