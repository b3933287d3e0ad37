"""The file of metrics, in the text format of Prometheus: for the node exporter, or whatever else collects files.

Each series carries the id of its run, so that the files of several runs can be collected together. The file is
replaced as a whole, at once when a wait begins, before anybody waits, and else every few seconds while something
happens. It accounts for nothing, so it is written without a sync, and a failure to write it ends no run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from bulkjobs.errors import ConfigError
from bulkjobs.events import (
    Controlled,
    Event,
    LockedOut,
    LockoutEnded,
    ReconcileWaits,
    RunFinished,
    RunStarted,
    SessionOpened,
    SlotsFull,
    Stopping,
    SubmitsPaused,
    SubmitsResumed,
)
from bulkjobs.observers.figures import METRICS, Figures, Metric, labels_of
from bulkjobs.ports import Clock

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["MetricsObserver"]

_EVERY_S: Final = 5.0
"""Collectors look every fifteen seconds or more seldom."""
_AT_ONCE: Final = (
    RunStarted,
    SessionOpened,
    LockedOut,
    LockoutEnded,
    SubmitsPaused,
    SubmitsResumed,
    ReconcileWaits,
    Controlled,
    Stopping,
    RunFinished,
)
_OURS: Final = b"# HELP bulkjobs_"
"""What a file of metrics begins with."""


class MetricsObserver:
    """Keeps a file of metrics. Implements `events.Observer`.

    Use it in a `with` statement, so that the file says that the session is over even if it broke.
    """

    def __init__(self, path: Path, *, endpoint: str, clock: Clock, warn: Callable[[str], object]) -> None:
        """Makes an observer; nothing is written before the run has begun.

        Args:
            path: the file. One that exists must hold metrics of bulkjobs or nothing; its mode is kept, that of a new
                one is 0600.
            endpoint: kind of bulk job.
            clock: wall clock.
            warn: told once, if the file cannot be written.

        Raises:
            ConfigError: prometheus_client is not installed, or the file holds something else.
        """
        try:
            from prometheus_client import CollectorRegistry  # noqa: PLC0415 - an extra, and slow to import
            from prometheus_client.exposition import generate_latest  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                "--metrics needs prometheus_client, which is not installed. Install it with "
                "`pip install prometheus_client`, or bulkjobs with its extra `metrics`."
            ) from None
        _check_ours(path)
        self._path = path
        self._clock = clock
        self._warn: Callable[[str], object] | None = warn
        self._figures = Figures(endpoint=endpoint)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._text = generate_latest
        self._write_utc = 0.0
        self._later: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._figures.running:
            self._figures.running = False
            self._write()
        self._stop_timer()

    def __call__(self, event: Event, /) -> None:
        """Takes an event into account, and writes the file if it is time to."""
        now_utc, waited = self._clock.utc(), self._figures.totals.wait
        self._figures.add(event, now_utc)
        if self._figures.run_id is None:
            return
        # On a fast server the slots may be full at every submit; what was told need not be told again.
        at_once = isinstance(event, _AT_ONCE) or (isinstance(event, SlotsFull) and waited != "slot")
        if at_once or not now_utc < self._write_utc <= now_utc + _EVERY_S:  # also when the clock was set back
            self._write()
        elif self._later is None:
            self._set_timer(self._write_utc - now_utc)

    def collect(self) -> Iterator[Family]:
        """Gives the metrics as they are now. Implements `prometheus_client.registry.Collector`."""
        now_utc = self._clock.utc()
        for metric in METRICS:
            yield _family(metric, self._figures, now_utc)

    def _set_timer(self, wait_s: float) -> None:
        """Lets the last event before a long silence be seen."""
        with contextlib.suppress(RuntimeError):  # events are played without a loop
            self._later = asyncio.get_running_loop().call_later(wait_s, self._write)

    def _stop_timer(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _write(self) -> None:
        self._stop_timer()
        self._write_utc = self._clock.utc() + _EVERY_S
        try:
            _replace(self._path, self._text(self._registry))
        except OSError as error:
            if self._warn is not None:
                self._warn(
                    f"The metrics cannot be written to {self._path}: {error.strerror or error}. The run goes on "
                    "all the same."
                )
                self._warn = None


def _family(metric: Metric, figures: Figures, now_utc: float) -> Family:
    """Makes what the library writes of a metric. One without a value has its head alone."""
    from prometheus_client.metrics_core import (  # noqa: PLC0415 - as above
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    value = metric.value(figures, now_utc)
    run = ["run_id"] if metric.kind == "histogram" else ["run_id", *labels_of(metric)]
    run_id = figures.run_id or ""
    if metric.kind == "histogram":
        assert isinstance(value, dict)
        histogram = HistogramMetricFamily(metric.name, metric.about, labels=run)
        histogram.add_metric([run_id], list(value.items()), figures.history.answer_s)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.about, labels=run)
    if isinstance(value, int | float):
        family.add_metric([run_id], value)
    elif value is not None:
        for words, number in value.items():
            family.add_metric([run_id, *((words,) if isinstance(words, str) else words)], number)
    return family


def _check_ours(path: Path) -> None:
    """Passes a path at which a file may be replaced: a slip of the hand must not cost a source or a device.

    Raises:
        ConfigError: it may not.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ConfigError(f"{path} is no regular file; --metrics may be one, or a name that is free.")
        with path.open("rb") as file:
            head = file.read(len(_OURS))
    except FileNotFoundError:
        return
    except OSError as error:
        if path.is_file():
            raise ConfigError(f"{path} (--metrics) cannot be read: {error.strerror}.") from error
        return  # what is in the way is told when the file cannot be written
    if head not in (b"", _OURS):
        raise ConfigError(f"{path} holds something else than metrics; give --metrics a file of its own.")


def _replace(path: Path, content: bytes) -> None:
    """Puts a file in the place of another. Collectors pass over the temporary one, which has no suffix of theirs."""
    try:
        mode = stat.S_IMODE(path.lstat().st_mode) & 0o666
    except FileNotFoundError:
        mode = 0o600
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
            os.fchmod(file.fileno(), mode)
            file.write(content)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
