"""The forms in which a server writes times: a token's expiry and `Retry-After`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["MAX_RETRY_AFTER_S", "day_text", "parse_expiry", "parse_retry_after"]

MAX_RETRY_AFTER_S: Final = 86_400.0
"""A server that asks for more than a day has made a mistake."""

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
"""Fixed: `strptime` would read the names of the user's locale."""
_MONTH: Final = r"(?P<month>[A-Z][a-z]{2})"
_CLOCK: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"

_EXPIRY: Final = re.compile(
    rf"[A-Z][a-z]{{2}}, {_MONTH} (?P<day>[0-9]{{1,2}}), (?P<year>[0-9]{{4}}) {_CLOCK} (?P<half>AM|PM) GMT"
)
# RFC 9110, section 5.6.7: one form to write, and two that a recipient must still read.
_HTTP_DATES: Final = (
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),
    re.compile(rf"[A-Z][a-z]+day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ 0-9][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)


def parse_expiry(text: str) -> float | None:
    """Reads a token's `expirationTime`, as `Tue, Jul 21, 2015 09:08:17 PM GMT`.

    The clock has 12 hours: read with 24 it loses half a day.

    Returns:
        Unix seconds, or None when the text is anything else.

    Source: vendor article "[POST] - New Token".
    """
    match = _EXPIRY.fullmatch(text.strip())
    if match is None or not 1 <= int(match["hour"]) <= 12:  # noqa: PLR2004 - hours on a dial
        return None
    hour = int(match["hour"]) % 12 + (12 if match["half"] == "PM" else 0)
    return _unix_seconds(match, year=int(match["year"]), hour=hour)


def parse_retry_after(value: str, *, now_utc: float) -> float | None:
    """Reads a `Retry-After` header as seconds to wait.

    Args:
        value: the header's text, whole seconds or an HTTP date.
        now_utc: Unix seconds, used only for the date form.

    Returns:
        Seconds from 0.0 (a date in the past) to `MAX_RETRY_AFTER_S`, or None when the text is neither form.

    Source: RFC 9110, sections 10.2.3 and 5.6.7.
    """
    text = value.strip(" \t")
    if re.fullmatch(r"[0-9]+", text):
        # Python refuses to read numbers of thousands of digits.
        return min(float(text[:400]), MAX_RETRY_AFTER_S)
    for pattern in _HTTP_DATES:
        if match := pattern.fullmatch(text):
            at_utc = _unix_seconds(match, year=_full_year(match["year"], now_utc), hour=int(match["hour"]))
            return None if at_utc is None else min(max(at_utc - now_utc, 0.0), MAX_RETRY_AFTER_S)
    return None


def _full_year(digits: str, now_utc: float) -> int:
    year = int(digits)
    if len(digits) == 4:  # noqa: PLR2004 - digits of a year
        return year
    # RFC 9110: two digits mean the year at most 50 years ahead, else the latest one in the past.
    latest = datetime.fromtimestamp(now_utc, UTC).year + 50
    return latest - (latest - year) % 100


def _unix_seconds(match: re.Match[str], *, year: int, hour: int) -> float | None:
    month = match["month"].lower()
    if month not in _MONTHS:
        return None
    minute, second = int(match["minute"]), int(match["second"])
    try:
        moment = datetime(year, _MONTHS.index(month) + 1, int(match["day"]), hour, minute, second, tzinfo=UTC)
    except ValueError:  # no such day or hour
        return None
    return moment.timestamp()


def day_text(utc: float, offset: int) -> str:
    """Writes the day of a time, or one so many days later, as the job list takes it: `2026-01-31`."""
    return (datetime.fromtimestamp(utc, UTC) + timedelta(days=offset)).strftime("%Y-%m-%d")
