"""The display on a terminal: what was read, what became of it, how fast, and what is waited for.

Events only change figures; the display is drawn from them a few times a second by rich's own thread, so a
thousand chunks a second cost no more than one, and a countdown goes on while nothing happens.
"""

from __future__ import annotations

import contextlib
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from bulkjobs.events import Event
from bulkjobs.observers.totals import Totals, clock_time, eta_text, one_line
from bulkjobs.planning import History, eta
from bulkjobs.ports import Clock

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["ProgressObserver", "state_line"]

_DRAWS_PER_S: Final = 4.0
_RATE_OVER_S: Final = 30.0
"""Long enough to be steady over a lock-out's edges, short enough to show that something changed."""


def state_line(totals: Totals, now_utc: float) -> str:
    """Says what goes on, such as `locked out until 14:05:10 (12 s)`."""
    text, until_utc = one_line(totals.waits_for), totals.waits_until_utc
    if until_utc is not None:
        text += f" until {clock_time(until_utc)} ({max(until_utc - now_utc, 0):.0f} s)"
    return f"paused by `bulkjobs control`; {text}" if totals.paused else text


class ProgressObserver:
    """Shows a run on a terminal while it goes on. Lines written to it stand above the display.

    Use it in a `with` statement, which gives the terminal back whatever happens.
    """

    def __init__(self, console: Console, *, clock: Clock) -> None:
        """Makes a display on a rich console, which should be a terminal's stderr."""
        self._console = console
        self._clock = clock
        self._totals = Totals()
        self._history = History()
        self._samples: deque[tuple[float, int]] = deque()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live  # noqa: PLC0415 - rich takes a tenth of a second to import

        # Records of `--sink -` must reach the real stdout, so only stderr is drawn into the display.
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=_DRAWS_PER_S,
            redirect_stdout=False,
        )
        with contextlib.suppress(OSError):  # a terminal that is gone ends no run
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):  # as above
                self._live.stop()
            self._live = None

    def __call__(self, event: Event, /) -> None:
        """Takes an event into account; draws nothing."""
        self._totals.add(event)
        self._history.add(event, self._clock.utc())

    def write(self, text: str, /) -> None:
        """Prints a line above the display."""
        from rich.text import Text  # noqa: PLC0415 - as above

        self._console.print(Text(text.rstrip("\n")), soft_wrap=True)

    def flush(self) -> None:
        """Does nothing: a printed line is out."""

    def _rate_per_s(self, now_utc: float) -> float:
        self._samples.append((now_utc, self._totals.accepted))
        while now_utc - self._samples[0][0] > _RATE_OVER_S:
            self._samples.popleft()
        since_utc, before = self._samples[0]
        return (self._totals.accepted - before) / (now_utc - since_utc) if now_utc > since_utc else 0.0

    def _draw(self) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415 - as above
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        totals, now_utc = self._totals, self._clock.utc()
        part = totals.part_read
        head = Table.grid(padding=(0, 1))
        size = f"{totals.position_bytes / 1e6:,.1f} MB" if part is None else f"{part:6.1%}"
        bar = ProgressBar(total=1.0, completed=part or 0.0, width=30)
        head.add_row(Text("read"), bar, Text(size), Text(one_line(totals.source)))
        counts = Table.grid(padding=(0, 2))
        session = "this session" if totals.resumed else "ids"
        counts.add_row(
            "ids", f"{totals.read:,} read", f"{totals.invalid:,} invalid", f"{totals.duplicate:,} duplicate"
        )
        counts.add_row(
            session,
            f"[green]{totals.accepted:,} accepted",
            f"[red]{totals.refused:,} refused" if totals.refused else "0 refused",
            f"[yellow]{totals.held:,} held" if totals.held else "0 held",
            f"{self._rate_per_s(now_utc):,.0f} ids/s",
        )
        state = Text(state_line(totals, now_utc), style="bold")
        quota = [Text(totals.short_of_quota, style="yellow")] if totals.short_of_quota else []
        end = (
            [] if self._history.over else [Text(f"all sent {eta_text(eta(self._history, now_utc), now_utc)}")]
        )
        return Group(head, counts, *quota, *end, state)
