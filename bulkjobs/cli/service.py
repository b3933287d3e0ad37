"""The options of the simulated service, made of one table.

Each row is a field of `ServiceConfig`. The service itself is loaded only when it is to run: it brings libraries
that a help text needs none of.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import click

if TYPE_CHECKING:
    from bulkjobs.simulator import ServiceConfig

__all__ = ["SERVICE_OPTIONS", "ServiceOption", "configured", "with_service_options"]


@dataclass(frozen=True, slots=True)
class ServiceOption:
    """Is one option: how it is written, what it sets, and how its text is read."""

    name: str
    field: str
    """Of `ServiceConfig`."""
    default: str | float | bool
    help: str
    metavar: str | None = None
    read: Literal["duration", "span", "rate", "count", "counts", "rule", "text"] | None = None
    """Which reader of `simulator.spelling` its text goes through; None takes it as it is."""

    @property
    def parameter(self) -> str:
        """Is the name in Python."""
        return self.name.removeprefix("--").replace("-", "_")


_Row = ServiceOption

SERVICE_OPTIONS: Final = (
    _Row("--rate", "rate", "1000/5m", "Requests the account may make, or none.", "N/WINDOW", "rate"),
    _Row("--lockout", "lockout_s", "5m", "How long exceeding it locks the account.", "TIME", "duration"),
    _Row("--lockout-extends", "lockout_extends", False, "A request during the lock-out starts it again."),
    _Row(
        "--retry-after",
        "retry_after",
        "none",
        "Retry-After of a throttle: none, seconds, date, or a text (a lie).",
        "FORM",
        "text",
    ),
    _Row(
        "--max-active-jobs", "max_active_jobs", "2", "Jobs that may be open at a time, or none.", "N", "count"
    ),
    _Row("--queue-time", "queue_time", "1s..10s", "From acceptance to processing.", "A..B", "span"),
    _Row("--job-time", "job_time", "1m..3m", "From processing to the end.", "A..B", "span"),
    _Row("--job-failures", "job_failure_rate", 0.0, "Share of jobs that fail, 0 to 1.", "SHARE"),
    _Row("--quota", "quota_ids", "none", "Ids that may be processed in all, or none.", "N", "count"),
    _Row("--client-id", "client_id", "simulator-client", "Client id for the login."),
    _Row("--client-secret", "client_secret", "simulator-secret", "Client secret for the login."),
    _Row("--token-ttl", "token_ttl_s", "365d", "How long a token of the login is good.", "TIME", "duration"),
    _Row("--latency", "latency", "0s", "From a request to its answer.", "A..B", "span"),
    _Row("--results", "results_shape", "file", "How results come: as a file or by a link.", "SHAPE"),
    _Row("--results-packing", "results_packing", "plain", "The file is plain, gzip or zip.", "FORM"),
    _Row("--results-missing", "results_missing", 0.0, "Share of ids without a row in it, 0 to 1.", "SHARE"),
    _Row(
        "--results-id-column", "results_id_column", "contactId", "Heading of the column with the ids.", "NAME"
    ),
    _Row("--max-ids", "max_ids", 10_000, "Most ids in one job.", "N"),
    _Row(
        "--max-body-bytes", "max_body_bytes", "none", "Largest body of a submission, or none.", "N", "count"
    ),
    _Row("--body-refusal", "body_refusal", 413, "A larger one is refused with 413 or 400.", "STATUS"),
    _Row(
        "--bad-ids",
        "bad_ids",
        "none",
        "Ids for which a whole job is refused: 13,*0007 for 13 and every id that ends in 0007; or none.",
        "RULE",
        "rule",
    ),
    _Row("--list-lag", "list_lag_s", "0s", "How old a job must be to be listed.", "TIME", "duration"),
    _Row("--list-newest-first", "list_newest_first", False, "List from the newest job down."),
    _Row("--list-keeps", "list_keeps", "none", "List only the N newest jobs, or none for all.", "N", "count"),
    _Row("--list-hides-type", "list_hides_type", False, "List no contact jobs at all."),
    _Row(
        "--list-type", "list_type", "contactDetails", "How the list names the type of contact jobs.", "NAME"
    ),
    _Row("--list-status", "list_status", "word", "It writes a state as word or number.", "FORM"),
    _Row("--list-dates", "list_dates", "day", "It writes a date as day, time or zoned.", "FORM"),
    _Row("--list-zone", "list_zone_h", 0.0, "Hours that its dates are ahead of UTC.", "HOURS"),
    _Row("--foreign-per-submit", "foreign_per_submit", 0.0, "Jobs of others for each submission.", "RATE"),
    _Row(
        "--foreign-per-page", "foreign_per_page", 0.0, "Jobs of others after each page of the list.", "RATE"
    ),
    _Row(
        "--foreign-sizes",
        "foreign_sizes",
        "none",
        "How many ids these have, e.g. 100,10000; none for as many as the last submission.",
        "N,N",
        "counts",
    ),
    _Row("--foreign-shared", "foreign_shared", 0, "How many of them are in the last submission too.", "N"),
    _Row("--seed", "seed", 0, "Job ids, durations and faults follow from it."),
)
"""In the order of the help."""


def with_service_options(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command the options of the service; they come to it as `given`, for `configured`."""
    names = {option.parameter for option in SERVICE_OPTIONS}

    @functools.wraps(command)
    def call(**arguments: Any) -> int:
        own = {name: value for name, value in arguments.items() if name not in names}
        return command(**own, given={name: value for name, value in arguments.items() if name in names})

    declared: Callable[..., int] = call
    for option in reversed(SERVICE_OPTIONS):
        declared = _declared(option)(declared)
    return declared


def _declared(option: ServiceOption) -> Callable[[Callable[..., int]], Callable[..., int]]:
    kind = type(option.default)
    return click.option(
        option.name,
        option.parameter,
        metavar=option.metavar,
        type=kind,
        is_flag=kind is bool,
        default=option.default,
        show_default=kind is not bool,
        help=option.help,
    )


def configured(given: Mapping[str, Any], **more: Any) -> ServiceConfig:
    """Makes a configuration of what stood on the command line.

    Args:
        given: the options of the table, by the names of their parameters.
        more: fields that have no row.

    Raises:
        ConfigError: a text cannot be read, or its value makes no sense.
    """
    from bulkjobs.simulator import ServiceConfig, spelling  # noqa: PLC0415 - loaded only when the service is to run

    def value(option: ServiceOption) -> object:
        text = given[option.parameter]
        return getattr(spelling, f"read_{option.read}")(text) if option.read else text

    fields: dict[str, Any] = {option.field: value(option) for option in SERVICE_OPTIONS}
    return ServiceConfig(**fields, **more)
