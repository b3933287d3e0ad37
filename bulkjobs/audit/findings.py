"""What an audit found: differences, which make it fail, and notes, which only tell what cannot be known yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bulkjobs.ledger.values import ControlRow

__all__ = ["Audit", "Difference", "Findings", "Progress", "told"]

Progress = Callable[[str], None]
"""Is told, now and then, what is being read."""

_SHOWN: Final = 10
"""Of each kind. One line that is missing in a source makes every chunk behind it differ."""
_SHOWN_CHARACTERS: Final = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """Is one thing on which two places do not agree."""

    where: str
    """`ledger`, `source`, `invalid`, `sink`, `refused`, `held` or `summary`."""
    text: str
    """What differs, which one, and what to do next, in sentences."""


@dataclass(slots=True)
class Findings:
    """Gathers what is found."""

    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)

    def differ(self, where: str, text: str) -> None:
        """Takes a difference; of each place the first few are kept and the others counted."""
        self._counts[where] += 1
        if self._counts[where] <= _SHOWN:
            self.differences.append(Difference(where, text))

    def note(self, text: str) -> None:
        """Takes what a person should know and what is no difference."""
        self.notes.append(text)

    def take(self, others: Findings) -> None:
        """Takes what was gathered apart, of places that nothing was found of yet."""
        self.differences += others.differences
        self.notes += others.notes
        self._counts += others._counts

    def untold(self) -> dict[str, int]:
        """Gives how many differences of each place were counted and not kept."""
        return {where: count - _SHOWN for where, count in self._counts.items() if count > _SHOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Is the outcome of an audit."""

    run_id: str
    owner: str | None
    """Who worked on the run meanwhile; None when nobody did."""
    source: dict[str, int]
    """`read`, `invalid`, `duplicate`, `accepted`, `refused`, `held` and `pending`, counted from the sources."""
    ledger: dict[str, int]
    """The same, from the ledger alone."""
    unplanned: int
    """Ids that stand in the sources behind the last chunk that was planned."""
    checked: dict[str, int]
    """How many chunks, parts, invalid ids, job records, refused files and commands were compared."""
    orders: list[ControlRow]
    """What people told the run while it worked, in order."""
    differences: list[Difference]
    untold: dict[str, int]
    """How many more differences there are, by place."""
    notes: list[str]

    @property
    def agrees(self) -> bool:
        """Tells whether nothing differs."""
        return not self.differences

    def as_dict(self) -> dict[str, object]:
        """Gives it as values of JSON."""
        return {
            "run_id": self.run_id,
            "agrees": self.agrees,
            "owner": self.owner,
            "ids": {"source": self.source, "ledger": self.ledger, "unplanned": self.unplanned},
            "checked": self.checked,
            "control": [order.as_dict() for order in self.orders],
            "differences": [{"where": one.where, "text": one.text} for one in self.differences],
            "more_differences": self.untold,
            "notes": self.notes,
        }


def told(value: object) -> str:
    """Gives a value for a sentence, cut where it would be longer than the sentence."""
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
