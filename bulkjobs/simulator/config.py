"""Everything that can be set on the simulated service, checked, with nothing limited by default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from bulkjobs.errors import ConfigError
from bulkjobs.simulator.faults import FaultPlan
from bulkjobs.simulator.idlist import IdRule
from bulkjobs.simulator.messages import Kind

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Limit", "ServiceConfig", "Span"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Allows `count` requests in any `window_s` simulated seconds."""

    count: int
    window_s: float

    def __post_init__(self) -> None:
        _require(self.count >= 1, f"A rate of {self.count} requests lets nothing through; give 1 or more.")
        _require(
            0 < self.window_s < math.inf, f"A window of {self.window_s} s is no window; give more than 0."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Is a range of simulated seconds to draw from, both ends included."""

    min_s: float
    max_s: float

    def __post_init__(self) -> None:
        _require(
            0 <= self.min_s <= self.max_s < math.inf,
            f"{self.min_s}..{self.max_s} is no range of seconds; give 0 or more, the smaller first.",
        )


NOTHING = Span(min_s=0.0, max_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """Describes the account and the behaviour of the service. All seconds are simulated seconds.

    Raises:
        ConfigError: a value makes no sense; the message says which and what it may be.
    """

    seed: int = 0
    """Job ids, tokens, durations and faults follow from it and from the order of the requests."""
    tokens: tuple[str, ...] = field(default=("simulator-token",), repr=False)
    """Access tokens that are good for ever, besides those that the login hands out."""
    client_id: str = "simulator-client"
    client_secret: str = field(default="simulator-secret", repr=False)
    token_ttl_s: float = 365 * 86_400.0
    """How long a token of the login is good. Source: the vendor's sample token lives for 365 days."""
    rate: Limit | None = None
    """What the account may send; None for no limit."""
    fixed_window_phase_s: float | None = None
    """None counts over a sliding window. A number counts in fixed windows, one of which starts then."""
    lockout_s: float = 300.0
    """How long every request is refused once the limit was exceeded. The count then starts at zero."""
    lockout_extends: bool = False
    """A request during the lock-out starts the period again."""
    counted: frozenset[Kind] = frozenset(Kind)
    """The kinds of request that count towards the limit."""
    retry_after: str | None = None
    """`Retry-After` of a throttle: None sends none, `seconds` and `date` tell the truth in either form,
    anything else is sent as it stands."""
    max_active_jobs: int | None = None
    """How many jobs may be accepted or processing at a time; None for no limit."""
    slots_refusal: Literal[400, 429] = 400
    """How a job above that is refused: InsideView's 400 or its successor's 429. Neither is a throttle."""
    quota_ids: int | None = None
    """Ids the account may still have processed; None for no limit."""
    max_ids: int = 10_000
    """Most ids in one job."""
    bad_ids: str | frozenset[int] = ""
    """Ids for which a whole job is refused, by a message that does not name them. Either a set or a text like
    `13,*0007`: the id 13, and every id that ends in 0007. Opaque ids are named in a text."""
    max_body_bytes: int | None = None
    """Largest body of a submission; None for no limit but the server's own of 8 MiB."""
    body_refusal: Literal[413, 400] = 413
    """How a larger one is refused: by its status, or with the vendor's words about the number of records."""
    foreign_per_submit: float = 0.0
    """Jobs that others make on the account for each submission, at the same moment, whether it makes a job or
    not. A part of one is a chance."""
    foreign_per_page: float = 0.0
    """The same for each page of the job list, once it was answered: the list changes between two pages."""
    foreign_sizes: tuple[int, ...] = ()
    """How many ids their jobs may have; empty for exactly as many as the last submission."""
    foreign_shared: int = 0
    """How many of their ids are also in the last submission. The others are in none."""
    queue_time: Span = NOTHING
    """From acceptance to the start of processing; a job can be cancelled only then."""
    job_time: Span = field(default_factory=lambda: Span(min_s=60.0, max_s=180.0))
    """From the start of processing to the end. Source: jobs take from one minute up."""
    job_failure_rate: float = 0.0
    """Share of the jobs that end as `failed`."""
    results_shape: Literal["file", "link"] = "file"
    """How the results of a job come: as the file itself or as a descriptor with a link to it. Both were seen."""
    results_packing: Literal["plain", "gzip", "zip"] = "plain"
    """How the file is packed."""
    results_id_column: str = "contactId"
    """Heading of the column with the ids."""
    results_missing: float = 0.0
    """Share of the ids that have no row. Which ones follows from the seed and the id alone."""
    results_early: Literal[400, 404] = 400
    """How results are refused before the job has finished. What the vendor answers then is not known."""
    results_link_ttl_s: float = 86_400.0
    """How long a link is good. Source: 24 hours for the successor's."""
    latency: Span = NOTHING
    """From the arrival of a request to its answer. The request takes effect on arrival."""
    faults: FaultPlan = field(default_factory=FaultPlan)
    list_lag_s: float = 0.0
    """How old a job must be before the job list shows it."""
    list_newest_first: bool = False
    """Lists from the newest job down, so that pages shift while jobs are added."""
    list_keeps: int | None = None
    """How many jobs it shows of those asked for, the newest ones. With `foreign_per_page` rows are lost between
    two pages."""
    list_hides_type: bool = False
    """Shows no jobs of a kind that can be submitted here, contact jobs above all."""
    list_type: str = "contactDetails"
    """How it names the type of contact jobs; what the vendor writes is not known."""
    list_status: Literal["word", "number"] = "word"
    """How it writes the state."""
    list_dates: Literal["day", "time", "zoned"] = "day"
    """How it writes when a job was made: the day, or the time besides, without or with its zone."""
    list_zone_h: float = 0.0
    """Hours that the zone of its dates is ahead of UTC, also in the question."""
    books: Path | None = None
    """File that the accepted bodies are appended to, with an index and a journal of the submissions beside it;
    None for a temporary one, without a journal."""
    books_sync: bool = False
    """Every entry is on the disk itself before the reply, so that it also outlives the machine's power."""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            shown = ", ".join(map(str, allowed))
            _require(value in allowed, f"{value!r} is no choice for {name}; give one of {shown}.")
        IdRule(self.bad_ids)  # refuses what it cannot read
        _require(self.token_ttl_s > 0, f"A token cannot live for {self.token_ttl_s} s; give more than 0.")
        _require(
            self.results_link_ttl_s > 0,
            f"A link cannot be good for {self.results_link_ttl_s} s; give more than 0.",
        )
        _require(bool(self.results_id_column), "The column with the ids needs a name.")
        _require(
            not self.books_sync or self.books is not None,
            "Only books on a file can be kept in step with the disk; name a file.",
        )
        for name, what in _SECONDS.items():
            seconds = getattr(self, name)
            _require(0 <= seconds < math.inf, f"A {what} of {seconds} s makes no sense; give 0 or more.")
        for name, what in _SHARES.items():
            share = getattr(self, name)
            _require(0 <= share <= 1, f"A share of {share} {what} makes no sense; give 0 to 1.")
        for name, (least, what) in _COUNTS.items():
            number = getattr(self, name)
            _require(
                number is None or least <= number < math.inf,
                f"{number} {what} make no sense; give {least} or more.",
            )
        _require(
            all(size >= 1 for size in self.foreign_sizes),
            f"Jobs of {self.foreign_sizes} ids make no sense; give 1 or more.",
        )
        _require(
            abs(self.list_zone_h) <= _FARTHEST_ZONE_H,
            f"No zone is {self.list_zone_h} hours off; give -{_FARTHEST_ZONE_H} to {_FARTHEST_ZONE_H}.",
        )


_FARTHEST_ZONE_H = 14
_SECONDS = {"lockout_s": "lock-out", "list_lag_s": "lag"}
_SHARES = {"job_failure_rate": "failing jobs", "results_missing": "ids without a row"}
_COUNTS = {
    "max_active_jobs": (1, "active jobs"),
    "quota_ids": (0, "ids of quota"),
    "max_ids": (1, "ids in a job at most"),
    "max_body_bytes": (1, "bytes in a body at most"),
    "list_keeps": (0, "jobs in the list at most"),
    "foreign_per_submit": (0, "jobs of others for each submission"),
    "foreign_per_page": (0, "jobs of others for each page"),
    "foreign_shared": (0, "ids shared with others"),
}
# `Literal` is for the type checker alone; what comes from a command line is checked here.
_CHOICES = {
    name: get_args(hint)
    for name, hint in get_type_hints(ServiceConfig, localns={"Path": object}).items()
    if get_origin(hint) is Literal
}
