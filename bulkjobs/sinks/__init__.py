"""Where job records go: one module a kind, all behind `ports.Sink`."""

from __future__ import annotations

from pathlib import Path

from bulkjobs.errors import ConfigError
from bulkjobs.ports import Sink
from bulkjobs.settings.values import guarded
from bulkjobs.sinks.callback import CallbackSink, TakesRecord
from bulkjobs.sinks.jsonl import JsonLinesSink, StdoutSink

__all__ = ["SinkLike", "TakesRecord", "open_sink"]

SinkLike = str | Path | TakesRecord | Sink
"""`-`, a path ending in `.jsonl`, an async callable that takes a record, or a sink of one's own."""


def open_sink(given: SinkLike) -> Sink:
    """Turns what a caller names into a sink, unopened.

    Raises:
        ConfigError: it names no kind of sink.
    """
    if isinstance(given, str) and given == "-":
        return StdoutSink()
    if isinstance(given, str | Path):
        if str(given).endswith(".jsonl") and "://" not in str(given):
            return JsonLinesSink(Path(given))
        raise ConfigError(
            f"--sink {guarded(str(given))} is not known. It may be - (standard output) or a file.jsonl."
        )
    if isinstance(given, Sink):
        return given
    if callable(given):
        return CallbackSink(given)
    raise ConfigError(f"A {type(given).__name__} is no sink: give -, a file.jsonl or an async function.")
