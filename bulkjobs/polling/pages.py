"""Whether, and which page of, the job list is worth asking for.

Nobody says in which order the list stands, how late a job appears on it, and whether it shows jobs of our kind at
all. So a page is believed for what it shows, never for what it does not show, and the list is left alone for a while
when pages were of no use. Where the oldest job comes first our jobs move to later pages as the day goes on, and
stand on the last one when a run begins: the page is looked for by steps that double, then by halving. While they lie
on two pages the one that shows more of them is asked for, and those of the other are asked for alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulkjobs.settings import Rate

__all__ = ["PAGE_JOBS", "Pages"]

PAGE_JOBS: Final = 50
"""Most jobs on a page. Source: vendor article "[GET] - Bulk Jobs List"."""

_MOST_USELESS: Final = 12
"""Pages in a row. Enough to find the last page among a hundred."""
_USELESS_SHARE: Final = 0.2
"""Of a window's requests may be used to look for the page."""
_FIRST_PAUSE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 3_600.0
_PAUSE_REQUESTS: Final = 50
"""The first pause is at least as long as so many requests take at the account's rate."""
_MOST_WRONG: Final = 2
_FIRST_UNCHECKED: Final = 2
_MOST_UNCHECKED: Final = 32
"""One in so many pages that show a job as open is checked by asking for that job: the one at first, the other once
pages were right."""


class Pages:
    """Keeps the page of the list that shows our jobs, and the trust in it."""

    __slots__ = (
        "_check_every",
        "_closed_until",
        "_empty",
        "_first",
        "_full",
        "_pause_s",
        "_rate",
        "_unchecked",
        "_useless",
        "_wrong",
        "page",
    )

    def __init__(self) -> None:
        """Begins at the first page, with trust."""
        self.page = self._first = 1
        """The page to ask for, and the one at which it began to be looked for."""
        self._full = 0
        """The last page known to be full and to show none of ours, while the page is looked for."""
        self._empty: int | None = None
        """The first page known to lie behind the end."""
        self._useless = 0
        self._unchecked = 0
        self._check_every = _FIRST_UNCHECKED
        self._wrong = 0
        self._closed_until = float("-inf")
        self._pause_s = 0.0
        self._rate: Rate | None = None

    def usable(self, now: float, rate: Rate | None) -> bool:
        """Tells whether the list may be asked for."""
        self._rate = rate
        return now >= self._closed_until

    def read(self, now: float, *, rows: int, wanted: int, shown: int) -> None:
        """Takes what a page was good for.

        Args:
            now: the present.
            rows: how many jobs stand on it.
            wanted: how many it was asked for because of.
            shown: how many of these it shows.
        """
        if shown:
            self._pause_s = 0.0
            self._begin_at(self.page + (2 * shown <= wanted and rows >= PAGE_JOBS))
            return
        self._useless += 1
        self._look_on(rows)
        nowhere, again = self.page <= self._full, self._pause_s > 0
        if nowhere or self._useless >= self._most_useless():
            self.distrust(now)
        if nowhere and again:
            self._begin_at(1)

    def doubted(self) -> bool:
        """Tells whether a job that a page shows as open should be asked for itself, to check the list."""
        self._unchecked += 1
        if self._unchecked < self._check_every:
            return False
        self._unchecked = 0
        return True

    def confirmed(self) -> None:
        """Takes it that a job was as open as a page had shown it."""
        self._wrong = 0
        self._check_every = min(2 * self._check_every, _MOST_UNCHECKED)

    def contradicted(self, now: float) -> None:
        """Takes it that a job had ended which a page had just shown as open. Once, that may be a chance."""
        self._wrong += 1
        self._check_every = _FIRST_UNCHECKED
        if self._wrong >= _MOST_WRONG:
            self._wrong = 0
            self.distrust(now)

    def distrust(self, now: float) -> None:
        """Leaves the list alone for a while, longer each time, and goes on afterwards where it was."""
        rate = self._rate
        first_s = (
            _FIRST_PAUSE_S
            if rate is None
            else max(_FIRST_PAUSE_S, _PAUSE_REQUESTS * rate.period_s / rate.count)
        )
        self._pause_s = max(first_s, min(2 * self._pause_s, _LONGEST_PAUSE_S))
        self._closed_until = now + self._pause_s
        self._begin_at(max(1, self.page))

    def _begin_at(self, page: int) -> None:
        self.page = self._first = page
        self._useless, self._full, self._empty = 0, 0, None

    def _look_on(self, rows: int) -> None:
        if rows >= PAGE_JOBS:
            self._full = max(self._full, self.page)
        elif self._empty is None or self.page < self._empty:
            self._empty = self.page
        # The last page may have begun while ours stand on the one before, so that one is looked at as well.
        if self._empty is None:
            self.page += max(1, self.page - self._first)
        else:
            self.page = (self._full + self._empty) // 2

    def _most_useless(self) -> float:
        if self._rate is None:
            return _MOST_USELESS
        return min(_MOST_USELESS, max(1.0, _USELESS_SHARE * self._rate.count))
