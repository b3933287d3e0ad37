"""What can go wrong on the way, by name, at a rate or at a given request.

A name says what happens and whether the request took effect first:

    reset, close          no answer: the connection is reset (RST) or closed in order (FIN)
    cut                   status, headers and half of the body, then the connection is closed
    slow                  the right answer, `slow_s` later
    html                  status 200 with a page of a portal or a proxy
    error200              status 200 with the error envelope
    mislabel              the right answer with a wrong content type
    httpNNN               status NNN, 300 to 599: from 500 up as a gateway's page, below as the error envelope;
                          a redirect leads back to where the request went, so that following it shows
    reused                a submission is answered with the id of the client's job before; not if there is none
    input, quota, slots   400 as for a bad id, for want of quota, for too many jobs
    expire                401, and from then on for every token that the login has handed out
    lockout               429, and from then on for everything until the lock-out is over

    _before               the service never saw the request: no job
    _after                the service did what was asked: a job
    _late                 there is a job, but it appears `late_s` after the answer or the end of the connection

`cut`, `slow` and `mislabel` need an answer to spoil, so they exist as `_after` only, and what the service itself
refuses as `_before` only; `_late` go reset, close and http500 to http599. A rule is written as

    reset_after=0.01             each request, whatever its kind, with a chance of 1 in 100
    submit:reset_after=0.01      each submission
    submit:close_before@3        the third submission (submissions are counted from 1, refused ones included)
    submit:http503_before@9-20   the ninth to the twentieth

Faults meet only requests that token and throttle let through, and at most one meets a request.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Final

from bulkjobs.errors import ConfigError
from bulkjobs.simulator.answers import JSON, error_answer, render
from bulkjobs.simulator.messages import Kind, Refusal, SimReply, SimRequest, Wire

__all__ = ["Effect", "Fault", "FaultPlan", "FaultRule", "Faults", "refusal", "spoil"]

_PAGE: Final = b"<!DOCTYPE html><html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n"
_HTML: Final = "text/html"


class Effect(Enum):
    """Is whether the request takes effect although its answer is spoilt."""

    BEFORE = "before"
    AFTER = "after"
    LATE = "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Is one thing that can go wrong."""

    what: str
    effect: Effect
    status: int = 0
    """For `http`, the status."""

    @property
    def name(self) -> str:
        """Is the name it is asked for and booked under."""
        return f"{self.what}{self.status or ''}_{self.effect.value}"

    @classmethod
    def parse(cls, name: str) -> Fault:
        """Reads a name.

        Raises:
            ConfigError: there is no fault of that name.
        """
        what, _, effect = name.rpartition("_")
        if (what, effect) in _PLAIN:
            return cls(what=what, effect=Effect(effect))
        if re.fullmatch(r"http[345][0-9]{2}", what) and effect in _HTTP_EFFECTS[what[4] == "5"]:
            return cls(what="http", effect=Effect(effect), status=int(what[4:]))
        known = ", ".join(sorted("_".join(pair) for pair in _PLAIN))
        raise ConfigError(f"There is no fault {name!r}. Known: {known}, http300_before to http599_after.")


_PLAIN: Final = {
    *(
        (what, effect)
        for what in ("reset", "close", "html", "error200", "reused")
        for effect in ("before", "after")
    ),
    *((what, "after") for what in ("cut", "slow", "mislabel")),
    *((what, "before") for what in ("input", "quota", "slots", "expire", "lockout")),
    *((what, "late") for what in ("reset", "close")),
}
_HTTP_EFFECTS: Final = {False: ("before", "after"), True: ("before", "after", "late")}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """Says when a fault strikes: by chance, or at given requests of a kind."""

    fault: Fault
    kind: Kind | None = None
    """None for every kind."""
    rate: float = 0.0
    number: int | None = None
    last: int | None = None
    """The last of several requests, of which `number` is the first; None for one alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ConfigError(f"A rate of {self.rate} for {self.fault.name} makes no sense; give 0 to 1.")
        if self.number is not None and (self.number < 1 or self.kind is None):
            raise ConfigError(
                f"{self.fault.name}@{self.number} needs a kind and a number from 1: submit:NAME@3."
            )
        if self.last is not None and self.last < (self.number or self.last + 1):
            raise ConfigError(
                f"{self.fault.name}@{self.number}-{self.last} is no range; the smaller comes first."
            )

    @classmethod
    def parse(cls, text: str) -> FaultRule:
        """Reads `[KIND:]NAME=RATE`, `KIND:NAME@NUMBER` or `KIND:NAME@FIRST-LAST`.

        Raises:
            ConfigError: it is neither, or a name in it is not known.
        """
        match = re.fullmatch(r"(?:([a-z]+):)?([a-z0-9_]+)(?:=([0-9.eE-]+)|@([0-9]+)(?:-([0-9]+))?)", text)
        if not match:
            raise ConfigError(
                f"{text!r} is no fault rule; write NAME=RATE, KIND:NAME=RATE, KIND:NAME@NUMBER or "
                "KIND:NAME@FIRST-LAST."
            )
        kind, name, rate, number, last = match.groups()
        try:
            return cls(
                fault=Fault.parse(name),
                kind=Kind(kind) if kind else None,
                rate=float(rate or 0),
                number=int(number) if number else None,
                last=int(last) if last else None,
            )
        except ConfigError:
            raise
        except ValueError as error:
            kinds = ", ".join(Kind)
            raise ConfigError(f"{text!r} is no fault rule: {error}. Kinds are {kinds}.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """Holds the rules; none by default."""

    rules: tuple[FaultRule, ...] = ()
    late_s: float = 240.0
    """How long after its fault a `_late` job appears, in simulated seconds."""
    slow_s: float = 120.0
    """How much later a `slow_after` answer comes, in simulated seconds."""

    def __post_init__(self) -> None:
        for kind in Kind:
            total = sum(rule.rate for rule in self.rules if rule.kind in (None, kind))
            if total > 1:
                raise ConfigError(f"The fault rates for {kind} add up to {total:g}; they must stay within 1.")
        if self.late_s < 0:
            raise ConfigError(f"A job cannot appear {self.late_s} s late; give 0 or more.")
        if not 0 <= self.slow_s < math.inf:
            raise ConfigError(f"An answer cannot come {self.slow_s} s late; give 0 or more.")

    @classmethod
    def of(cls, *texts: str, late_s: float = 240.0, slow_s: float = 120.0) -> FaultPlan:
        """Reads rules as they are written on the command line.

        Raises:
            ConfigError: one of them cannot be read, or the rates add up to more than 1.
        """
        return cls(rules=tuple(FaultRule.parse(text) for text in texts), late_s=late_s, slow_s=slow_s)


class Faults:
    """Draws the faults of a plan. Each kind draws from its own sequence, whatever the others do between."""

    def __init__(self, plan: FaultPlan, *, seed: int) -> None:
        self._scripted = {
            (rule.kind, rule.number): rule.fault
            for rule in plan.rules
            if rule.number is not None and rule.last is None
        }
        self._ranges = {
            kind: [
                (range(rule.number, rule.last + 1), rule.fault)
                for rule in plan.rules
                if rule.number is not None and rule.last is not None and rule.kind is kind
            ]
            for kind in Kind
        }
        self._by_chance = {
            kind: [(rule.rate, rule.fault) for rule in plan.rules if rule.rate and rule.kind in (None, kind)]
            for kind in Kind
        }
        self._draw = {kind: Random(f"{seed}/faults/{kind}") for kind in Kind}  # noqa: S311 - repeatable on purpose

    def draw(self, kind: Kind, number: int) -> Fault | None:
        """Gives the fault that meets the request of that kind and number, if any."""
        if scripted := self._scripted.get((kind, number)):
            return scripted
        for numbers, fault in self._ranges[kind]:
            if number in numbers:
                return fault
        if not (chances := self._by_chance[kind]):
            return None
        at = self._draw[kind].random()
        for rate, fault in chances:
            at -= rate
            if at < 0:
                return fault
        return None


def refusal(fault: Fault) -> Refusal | None:
    """Gives what the service itself refuses a request with, if that is what the fault is."""
    text = _REFUSALS.get(fault.what)
    return Refusal(*text) if text else None


# The texts are those of real refusals; see `jobs.py`, `account.py` and `service.py`.
_REFUSALS: Final = {
    "input": (400, "400-103", "Illegal values for the field contactId."),
    "quota": (400, "400-153", "Insufficient transaction quota. The job needs 1, 0 remain."),
    "slots": (
        400,
        "400-152",
        "2 jobs are already running. Please try again once the previous jobs are finished.",
    ),
    "expire": (401, "401-153", "The accessToken has expired."),
    "lockout": (429, "429-151", "Request limit exceeded."),
}


def spoil(
    fault: Fault, reply: SimReply, *, request: SimRequest, slow_s: float, diagnostic_code: str
) -> SimReply:
    """Turns the reply that the client should have had into what becomes of it."""
    match fault.what:
        case "http":
            return _http(fault.status, request, diagnostic_code)
        case "error200":
            error = Refusal(500, "500-151", "The request could not be processed.")
            return render(error_answer(error, diagnostic_code), as_json=request.wants_json)
        case "html":
            return SimReply(status=200, body=_PAGE % (b"Sign in", b"Sign in"), content_type=_HTML)
        case "mislabel":
            return replace(reply, content_type=_HTML if reply.content_type == JSON else JSON)
        case "slow":
            return replace(reply, delay_s=slow_s)
        case what:
            return replace(reply, wire=_WIRES[what])


_WIRES: Final = {"reset": Wire.RESET, "close": Wire.CLOSE, "cut": Wire.CUT}


def _http(status: int, request: SimRequest, diagnostic_code: str) -> SimReply:
    if status >= 500:  # noqa: PLR2004 - an HTTP status class
        title = b"%d" % status
        return SimReply(status=status, body=_PAGE % (title, title), content_type=_HTML)
    headers = (("Location", request.path),) if status < 400 else ()  # noqa: PLR2004 - an HTTP status class
    made_up = Refusal(status, f"{status}-199", "This answer was made up to test the client.")
    answer = error_answer(made_up, diagnostic_code)
    return render(answer, as_json=request.wants_json, status=status, headers=headers)
