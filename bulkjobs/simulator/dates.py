"""Dates as the service writes and reads them, in UTC and with English names whatever the locale."""

from __future__ import annotations

from datetime import MAXYEAR, UTC, datetime, timedelta, timezone
from email.utils import formatdate
from typing import Final, Literal

from bulkjobs.simulator.messages import Refusal

__all__ = ["created_text", "expiry_text", "http_date", "period_bounds", "period_text"]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FORMATS: Final = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
_SHOWN: Final = {"day": "YYYY-MM-DD", "month": "YYYY-MM", "year": "YYYY"}


def expiry_text(utc: float) -> str:
    """Writes a token's expiry, e.g. `Tue, Jul 21, 2015 09:08:17 PM GMT`. Source: the vendor's "New Token"."""
    at = datetime.fromtimestamp(int(utc), UTC)
    day, half = _DAYS[at.weekday()], "PM" if at.hour >= 12 else "AM"  # noqa: PLR2004 - noon
    clock = f"{at.hour % 12 or 12:02d}:{at.minute:02d}:{at.second:02d} {half}"
    return f"{day}, {_MONTHS[at.month - 1]} {at.day:02d}, {at.year} {clock} GMT"


def http_date(utc: float) -> str:
    """Writes a date for a header. Source: RFC 9110, section 5.6.7."""
    return formatdate(utc, usegmt=True)


def created_text(utc: float, form: Literal["day", "time", "zoned"] = "zoned", *, zone_h: float = 0.0) -> str:
    """Writes when a job was made, e.g. `2016-09-15`, `2016-09-15T03:36:05` or `2016-09-15T03:36:05.000-07:00`.

    Args:
        utc: Unix seconds.
        form: day precision as in the vendor's job list, or the time besides, without or with its zone.
        zone_h: hours that the zone is ahead of UTC.
    """
    at = datetime.fromtimestamp(utc, timezone(timedelta(hours=zone_h)))
    match form:
        case "day":
            return at.date().isoformat()
        case "time":
            return at.replace(tzinfo=None).isoformat(timespec="seconds")
        case "zoned":
            return at.isoformat(timespec="milliseconds")


def period_text(utc: float, period: str) -> str:
    """Writes the day, month or year that a time falls in."""
    at = datetime.fromtimestamp(utc, UTC)
    return at.isoformat()[: len(_SHOWN[period])]


def period_bounds(period: str, start: str | None, end: str | None) -> tuple[float, float]:
    """Reads the first and the last day, month or year.

    Returns:
        The time at which the first begins and the one at which the last is over; infinite where none is given.

    Raises:
        Refusal: 400, the period or a date is not of the documented form.
    """
    if period not in _FORMATS:
        raise Refusal(400, "400-103", "Illegal values for the field period. Use day, month or year.")
    first = _begin(period, "start", start).timestamp() if start else float("-inf")
    return first, _over(period, _begin(period, "end", end)) if end else float("inf")


def _begin(period: str, name: str, text: str) -> datetime:
    try:
        at = datetime.strptime(text, _FORMATS[period]).replace(tzinfo=UTC)
    except ValueError:
        at = None
    if at is None or period_text(at.timestamp(), period) != text:  # strptime also takes fewer digits
        raise Refusal(400, "400-103", f"Illegal values for the field {name}. Use {_SHOWN[period]}.")
    return at


def _over(period: str, at: datetime) -> float:
    if period == "day":
        return at.timestamp() + 86_400
    if period == "month" and at.month < 12:  # noqa: PLR2004 - December
        return at.replace(month=at.month + 1).timestamp()
    return at.replace(year=min(at.year + 1, MAXYEAR), month=1).timestamp()
