"""Which connection or request meets which fault: by a script, or by a seeded draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from support.faults.catalogue import FAULTS
from support.faults.exchange import Fault, Seen, Stage

__all__ = ["Plan"]


@dataclass(slots=True, kw_only=True)
class Plan:
    """Says what goes wrong; nothing by default. A script comes before the draw.

    A draw depends on the seed and on the number of the connection or request alone, so that a run with the same
    order of requests meets the same faults.
    """

    connections: Mapping[int, Fault] = field(default_factory=dict)
    """Faults of stage CONNECT by the number of the connection, from 1."""
    posts: Mapping[int, Fault] = field(default_factory=dict)
    """Faults of stage REQUEST by the number of the POST, from 1."""
    every_connection: Fault | None = None
    every_post: Fault | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    """Chance by the name of a fault in `FAULTS`: those of stage CONNECT for each connection, the others for each request."""
    seed: int = 0
    methods: frozenset[str] = frozenset({"POST"})
    """Which requests the draw meets."""
    until: int | None = None
    """The draw ends after so many requests or connections, so that a run comes to an end."""

    def __post_init__(self) -> None:
        for stage in Stage:
            total = sum(rate for name, rate in self.rates.items() if FAULTS[name].stage is stage)
            assert total <= 1, f"the rates of stage {stage.name} add up to {total}"

    def at_connection(self, number: int) -> Fault | None:
        """Gives the fault that meets a new connection, if any."""
        return self.connections.get(number) or self.every_connection or self._draw(Stage.CONNECT, number)

    def at_request(self, seen: Seen) -> Fault | None:
        """Gives the fault that meets a request, if any."""
        if seen.post and (fault := self.posts.get(seen.post) or self.every_post):
            return fault
        return self._draw(Stage.REQUEST, seen.number) if seen.method in self.methods else None

    def _draw(self, stage: Stage, number: int) -> Fault | None:
        if not self.rates or (self.until is not None and number > self.until):
            return None
        at = Random(f"{self.seed}/{stage.name}/{number}").random()
        for name, rate in self.rates.items():
            if FAULTS[name].stage is stage:
                at -= rate
                if at < 0:
                    return FAULTS[name]
        return None
