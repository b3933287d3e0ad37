"""The limit: how many requests a window may hold, as configured, as a lock-out taught it, or as found by trying.

A lock-out below the limit says that the limit is wrong or shared. Of the L requests that went through in the last
window at least half were counted in one window of the server, wherever its windows begin, so half of L is safe for
certain. Most likely L is the limit itself: then nine tenths of it are safe as well. So the limit falls to the half
and rises to the nine tenths, by half of what is left each time a whole window was used to the full without a
refusal. A refusal soon after a step leads back to where the step began, for good. A limit that had held for twelve
windows is not what was met: it rises back to that.

With `auto` it goes on rising, by a twentieth each time. A wall, the count at which the server refused, is not climbed
to for a day; when it is met again it stands for two days, then for four: an account whose limit was raised, or whose
other users have left, is noticed, and thirty days at one limit cost five lock-outs at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulkjobs.settings import Rate

__all__ = ["Limit"]

_GOAL: Final = 0.9
_FLOOR: Final = 10
"""One lesson leaves at least the tenth part of a limit that a person gave: a stray refusal early in a window would
otherwise teach a limit of one request, for ever. If it is still too high, the next lock-out is the next lesson."""
_LONG: Final = 12
"""Windows in which a limit has to hold until a refusal is thought to be somebody else's doing."""
_STEP: Final = 20
"""A step adds the twentieth part: a wall is met at most 5 % above what the account takes."""
_WALL_S: Final = 86_400.0
_MOST_DOUBLINGS: Final = 5
_SAME_WALL: Final = 5
"""A wall within the fifth part of the last one is the same. Another one tells that something has changed."""
_MOST: Final = 10_000_000


class Limit:
    """Is the limit in force and what is known about it."""

    __slots__ = (
        "_auto",
        "_full_since",
        "_given",
        "_goal",
        "_proved",
        "_taught",
        "_wall",
        "_wall_until",
        "_walls",
        "_window_s",
    )

    def __init__(self, rate: Rate) -> None:
        """Begins with the rate as it was given."""
        self._given = rate.count
        self._window_s = rate.period_s
        self._auto = rate.auto
        self._taught: int | None = None
        self._wall: int | None = None
        self._wall_until = 0.0
        self._walls = 0
        self._goal = 0
        """Without `auto` the limit rises as far as this."""
        self._proved: int | None = None
        """The limit before the last step, while it is not known whether the step was too much."""
        self._full_since: float | None = None
        """When the limit was first used up since it changed."""

    @property
    def count(self) -> int:
        """Is how many requests a window may hold."""
        if self._taught is None:
            return self._given
        return self._taught if self._auto else min(self._given, self._taught)

    @property
    def learned(self) -> int | None:
        """Is the limit that lock-outs and trying taught; None before the first lesson."""
        return self._taught

    def recall(self, learned: int) -> None:
        """Takes up what an earlier process learned, if nothing newer is known."""
        if self._taught is None:
            self._taught = max(1, learned)

    def refused(self, now: float, let_through: int) -> None:
        """Takes a lesson: after so many requests in one window the server refused the next."""
        before = self.count
        if let_through <= 0:
            # It says nothing: somebody else used the window up, or an older lock-out runs.
            return
        if self._proved is not None and self._proved <= let_through:
            self._taught, self._goal = self._proved, 0
        else:
            # With `auto` the limit was only a guess, and may well be ten times too high.
            self._taught = max(1, (let_through + 1) // 2, 0 if self._auto else before // _FLOOR)
            self._goal = max(int(let_through * _GOAL), before if self._has_held(now) else 0)
        before_wall, self._wall = self._wall, let_through + 1
        if before_wall is None or abs(self._wall - before_wall) * _SAME_WALL > before_wall:
            self._walls = 0
        if let_through < before // _FLOOR:
            self._wall_until = now + _LONG * self._window_s  # it may have been a stray refusal
        else:
            self._wall_until = now + _WALL_S * 2 ** min(self._walls, _MOST_DOUBLINGS)
        self._walls += 1
        self._proved = self._full_since = None

    def used_up(self, now: float) -> bool:
        """Takes that a request waits for the window; tells whether the limit has risen by it."""
        count = self.count
        if self._full_since is None:
            self._full_since = now
        if count >= self._highest(now):
            if now >= self._full_since + self._window_s:
                self._proved = None  # it has stopped rising: a refusal later on is not due to the last step
            return False
        if now < self._full_since + self._window_s:
            return False
        self._proved, self._full_since = count, None
        step = (self._goal - count + 1) // 2 if count < self._goal else max(1, count // _STEP)
        self._taught = min(count + step, self._highest(now))
        return True

    def _has_held(self, now: float) -> bool:
        """Tells whether the limit was used to the full for so long that a refusal is not due to it."""
        return self._full_since is not None and now >= self._full_since + _LONG * self._window_s

    def _highest(self, now: float) -> int:
        """Gives how far the limit may rise."""
        if not self._auto:
            return min(self._goal, self._given)
        return _MOST if self._wall is None or now >= self._wall_until else self._wall - 1

    def state(self) -> dict[str, Any]:
        """Gives what another process of the account must know, as plain values."""
        return {
            "taught": self._taught,
            "wall": self._wall,
            "wall_until": self._wall_until,
            "walls": self._walls,
            "goal": self._goal,
            "proved": self._proved,
            "full_since": self._full_since,
        }

    def load(self, state: Mapping[str, Any], shift_s: float) -> None:
        """Takes up what `state` gave; `shift_s` is what has to be added to its times."""
        self._taught = state["taught"]
        self._wall = state["wall"]
        self._wall_until = state["wall_until"] + shift_s
        self._walls = state["walls"]
        self._goal = state["goal"]
        self._proved = state["proved"]
        full_since = state["full_since"]
        self._full_since = None if full_since is None else full_since + shift_s
