"""What single values look like, as text and in memory: secrets, times, rates, addresses."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bulkjobs.errors import ConfigError

__all__ = [
    "DAY_S",
    "DEFAULT_RATE",
    "MAX_COUNT",
    "MOST_WORKERS",
    "Rate",
    "Secret",
    "check_url",
    "check_webhook",
    "default_pace",
    "duration_text",
    "guarded",
    "parse_duration",
    "parse_rate",
    "seconds",
    "shown",
    "visible",
    "whole",
]

DAY_S: Final = 86_400.0
MAX_COUNT: Final = 10_000_000
MOST_WORKERS: Final = 1024
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_UNIT_S: Final = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}
_RATE: Final = re.compile(r"([0-9]{1,12}|auto)(?:/(.+))?", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+")
_IN_BRACKETS: Final = re.compile(r"\[[0-9A-Fa-f:.]+\](?::[0-9]*)?")
"""An IPv6 address and nothing around it. Python passes over what others read otherwise, or refuse."""
_LONGEST_HOST: Final = 253
"""Source: RFC 1035, 2.3.4, without the lengths and the root."""
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_VISIBLE: Final = re.compile(r"[!-~]+")
_SHORT_WORD: Final = re.compile(r"[A-Za-z0-9 ./_+-]{0,12}")
"""What can be no token, since those have more characters, and no address with a password or a query in it."""


def visible(text: str) -> bool:
    """Tells whether a text is visible ASCII throughout and not empty: fit for a header or a URL."""
    return _VISIBLE.fullmatch(text) is not None


class Secret:
    """Keeps a token or a client secret out of every log, error and repr.

    It is a plain class and not a dataclass, because `dataclasses.asdict` would lay its text open.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Wraps a text of visible ASCII characters, which is what can stand in a header.

        Raises:
            ConfigError: it is empty or holds a blank, a control character or another alphabet; not shown.
        """
        if not visible(text):
            raise ConfigError("The secret is empty, or holds a blank or a character outside visible ASCII.")
        self._text = text

    def reveal(self) -> str:
        """Gives the text, for the one place that puts it on the wire."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Is so many requests in any period of so many seconds.

    Raises:
        ConfigError: the count is not 1 to 10,000,000, or the period not above 0 and at most a day.
    """

    count: int
    period_s: float
    auto: bool = False
    """The count is only where to begin: it is to be found out how many there may be."""

    def __post_init__(self) -> None:
        if not whole(self.count, 1, MAX_COUNT) or not seconds(self.period_s, DAY_S):
            raise ConfigError(
                f"A rate of {self.count!r} in {self.period_s!r} s cannot be used; the count may be "
                f"1 to {MAX_COUNT:,}, the period above 0 and up to {DAY_S:.0f} s."
            )

    def __str__(self) -> str:
        return f"{self.count}/{duration_text(self.period_s)}"


def parse_duration(text: str) -> float:
    """Reads a time such as `250ms`, `90`, `90s`, `5m`, `1.5h` or `2d`.

    Returns:
        Seconds, 0 or more.

    Raises:
        ConfigError: the text is not of that form.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{guarded(text)} is not a time; it may be such as 250ms, 90s, 5m, 1.5h or 2d.")
    return float(match[1]) * _UNIT_S[match[2]]


def parse_rate(text: str) -> Rate | None:
    """Reads a rate such as `900/5m`, or `none`, or `auto`, or `auto/2s` for another period than five minutes.

    Returns:
        The rate; None when there is to be no limit.

    Raises:
        ConfigError: the text is not of that form, or out of range.
    """
    if text.strip().lower() == "none":
        return None
    match = _RATE.fullmatch(text.strip())
    auto = match is not None and match[1].lower() == "auto"
    if match is None or (match[2] is None and not auto):
        raise ConfigError(f"{guarded(text)} is not a rate; it may be such as 900/5m, auto, or none.")
    period_s = DEFAULT_RATE.period_s if match[2] is None else parse_duration(match[2])
    return Rate(count=DEFAULT_RATE.count if auto else int(match[1]), period_s=period_s, auto=auto)


def default_pace(rate: Rate | None) -> Rate | None:
    """Gives the short-term pace within a rate: 4 times the mean and at least 10 a second; none without a rate."""
    if rate is None:
        return None
    return Rate(count=max(10, int(min(4 * rate.count / rate.period_s, MAX_COUNT))), period_s=1.0)


def shown(value: object) -> str:
    """Gives a value as a message shows it: quoted, control characters escaped, cut at a line's length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"  # noqa: PLR2004 - about a line


def guarded(value: object) -> str:
    """Gives what an option does not take as its error shows it: a number or a short word, and no other text.

    People put tokens, and addresses with a password in them, into the wrong option.
    """
    if value is None or isinstance(value, int | float | Rate):
        return shown(value)
    if isinstance(value, str):
        return repr(value) if _SHORT_WORD.fullmatch(value) else "*** (hidden, as it may be a secret)"
    return f"a {type(value).__name__}"


def duration_text(duration_s: float) -> str:
    """Gives a time as `parse_duration` reads it, in the largest unit that fits."""
    for unit, size_s in (("d", DAY_S), ("h", 3600.0), ("m", 60.0)):
        if duration_s >= size_s and duration_s % size_s == 0:
            return f"{duration_s / size_s:.0f}{unit}"
    return f"{duration_s:g}s"


def whole(value: object, low: int, high: int) -> bool:
    """Tells whether a value is a whole number in a range; True and False are not numbers here."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def seconds(value: object, high: float) -> bool:
    """Tells whether a value is a finite number above 0 and not above `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 < value <= high


def check_url(text: str, place: str, *, allow_http: bool) -> None:
    """Passes an address that requests, and with them the token, may go to.

    Raises:
        ConfigError: it is not absolute, not https (unless loopback or allowed), or holds a user name, a
            query or a fragment. Of the address only scheme and host are shown.
    """
    scheme, host = _scheme_and_host(text, place)
    if "?" in text or "#" in text:
        raise ConfigError(f"{place} may not hold a query or a fragment.")
    if scheme == "http" and not (allow_http or _is_loopback(host)):
        raise ConfigError(f"{place} is http://{host}; it may be https, or http with --allow-http.")


def check_webhook(text: str, place: str, *, allow_http: bool) -> None:
    """Passes an address that the server may be told to call.

    Raises:
        ConfigError: it is not absolute, not https or no public address (unless allowed), or holds a user
            name or a fragment. Of the address only scheme and host are shown.
    """
    scheme, host = _scheme_and_host(text, place)
    if "#" in text:
        raise ConfigError(f"{place} may not hold a fragment.")
    if allow_http:
        return
    if scheme == "http":
        raise ConfigError(f"{place} is http://{host}; it may be https, or http with --allow-http.")
    address = _address(host)
    if _is_loopback(host) or (address is not None and (not address.is_global or address.is_multicast)):
        raise ConfigError(
            f"{place} leads to {host}, which is no public address; it may be one, or any with --allow-http."
        )


def _scheme_and_host(text: str, place: str) -> tuple[str, str]:
    # urlsplit drops line ends and tabs without a word, so they are refused before.
    if not visible(text):
        raise ConfigError(f"{place} holds a blank or a character outside visible ASCII.")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ConfigError(f"{place} is not an absolute URL; it may be such as https://host/path.")
    if "@" in parts.netloc:
        raise ConfigError(f"{place} may not hold a user name or a password.")
    address = _address(host)
    brackets = "[" in parts.netloc or "]" in parts.netloc
    if len(host) > _LONGEST_HOST or (brackets and not _IN_BRACKETS.fullmatch(parts.netloc)):
        raise ConfigError(f"{place} does not name a host; it may be such as https://host/path.")
    # A last label of digits is an address to resolvers (127.1, 0x7f000001), whatever Python thinks of it.
    if address is None and (
        not _HOST.fullmatch(host) or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])
    ):
        raise ConfigError(f"{place} does not name a host; it may be such as https://host/path.")
    return parts.scheme, host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host.rstrip(".") == "localhost"


DEFAULT_RATE: Final = Rate(count=900, period_s=300.0)
"""A tenth below the 1,000 that a public client allows itself. The vendor publishes no figure."""
