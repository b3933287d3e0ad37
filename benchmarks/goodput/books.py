"""What the books of the service tell of one contender."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Story", "WrongBooks", "read_entries", "read_submissions", "tell"]


class WrongBooks(Exception):  # noqa: N818 - the name says what happened
    """Says what the books hold that no contender was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Is one job."""

    at: float
    """Unix seconds."""
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Is what became of one contender. Times are seconds after its first submission reached the service."""

    curve: tuple[tuple[float, int], ...]
    """When a job brought ids not accepted before, and how many different ids were accepted by then."""
    ids: int
    """Ids that were to be submitted."""
    accepted: int
    """Different ids accepted."""
    paid_twice: int
    """Ids accepted once more than needed, counted as often."""
    lockouts: tuple[float, ...]
    """When each began."""
    requests: int
    """Of every kind."""
    throttled: int
    wasted: int
    """Requests after which no id was accepted that was not before."""
    fullest_window: int
    last_submission_s: float

    @property
    def never_accepted(self) -> int:
        """Is how many ids were not accepted by the time the contender ended or was ended."""
        return self.ids - self.accepted

    @property
    def finished_s(self) -> float | None:
        """Is when the last id was accepted; None when some never were."""
        return None if self.never_accepted else self.curve[-1][0]

    def share_of_optimum(self, optimum_s: float) -> float:
        """Gives the ids accepted a second, by those of the optimum.

        It is `(accepted / ids) * (optimum / time)`, where `time` is that to finish or, when some ids never were
        accepted, until the last submission; giving up before the optimum would have finished gains nothing.
        """
        ended_s = self.last_submission_s if self.finished_s is None else self.finished_s
        ended_s = max(ended_s, optimum_s)
        return self.accepted / self.ids * (optimum_s / ended_s if ended_s else 1.0)


def tell(
    entries: Iterable[Entry], submissions: Iterable[float], totals: Mapping[str, Any], ids: frozenset[bytes]
) -> Story:
    """Puts the books of one run together.

    Args:
        entries: the jobs in order of acceptance.
        submissions: when each submission came, in order, whatever became of it.
        totals: the counts, as the service shows them.
        ids: what was to be submitted.

    Raises:
        WrongBooks: a job holds an id that was not.
    """
    arrivals = list(submissions)
    began = arrivals[0] if arrivals else 0.0
    seen: set[bytes] = set()
    curve: list[tuple[float, int]] = []
    paid = 0
    for entry in entries:
        if not ids.issuperset(entry.ids):
            raise WrongBooks(f"{min(set(entry.ids) - ids)!r} was accepted, and is no id of the file.")
        before = len(seen)
        seen.update(entry.ids)
        paid += len(entry.ids)
        if len(seen) > before:
            curve.append((entry.at - began, len(seen)))
    requests = sum(totals["requests"].values())
    return Story(
        curve=tuple(curve),
        ids=len(ids),
        accepted=len(seen),
        paid_twice=paid - len(seen),
        lockouts=tuple(lockout["began_at"] - began for lockout in totals["lockout_list"]),
        requests=requests,
        throttled=totals["throttled"],
        wasted=requests - len(curve),
        fullest_window=totals["max_in_window"],
        last_submission_s=arrivals[-1] - began if arrivals else 0.0,
    )


def read_entries(books: Path) -> list[Entry]:
    """Reads the jobs and their bodies from the files that `bulkjobs simulate --books` wrote."""
    bodies = books.read_bytes()
    entries = []
    for facts in _lines(books.with_name(books.name + ".jsonl")):
        body = bodies[facts["position"] : facts["position"] + facts["length"]]
        entries.append(Entry(at=facts["acceptedAt"], ids=tuple(body.replace(b",", b"\n").split(b"\n"))))
    return entries


def read_submissions(books: Path) -> list[float]:
    """Reads when each submission came, accepted or not."""
    return [post["at"] for post in _lines(books.with_name(books.name + ".posts.jsonl"))]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]
