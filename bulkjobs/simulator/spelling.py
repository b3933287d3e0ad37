"""Reads durations, ranges, rates and counts as they are written on the command line."""

from __future__ import annotations

import re
from typing import Final

from bulkjobs.errors import ConfigError
from bulkjobs.simulator.config import Limit, Span

__all__ = ["read_count", "read_counts", "read_duration", "read_rate", "read_rule", "read_span", "read_text"]

_UNITS_S: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def read_duration(text: str) -> float:
    """Reads `90`, `90s`, `1.5m`, `200ms`, `2h` or `1d` as seconds.

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", text.strip())
    if not match:
        raise ConfigError(f"{text!r} is no length of time; write a number and ms, s, m, h or d, e.g. 5m.")
    return float(match[1]) * _UNITS_S[match[2]]


def read_span(text: str) -> Span:
    """Reads `60s..120s`, or one duration for both ends.

    Raises:
        ConfigError: it is neither, or the first is longer than the second.
    """
    least, dots, most = text.partition("..")
    return Span(min_s=read_duration(least), max_s=read_duration(most if dots else least))


def read_rate(text: str) -> Limit | None:
    """Reads `1000/5m`, or `none`.

    Raises:
        ConfigError: it is neither.
    """
    if text == "none":
        return None
    count, slash, window = text.partition("/")
    if not slash or not re.fullmatch(r"[0-9]{1,9}", count):
        raise ConfigError(f"{text!r} is no rate; write N/WINDOW, e.g. 1000/5m, or none.")
    return Limit(count=int(count), window_s=read_duration(window))


def read_count(text: str) -> int | None:
    """Reads a whole number, or `none`.

    Raises:
        ConfigError: it is neither.
    """
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ConfigError(f"{text!r} is no count; write a whole number, or none.")
    return int(text)


def read_counts(text: str) -> tuple[int, ...]:
    """Reads whole numbers with a comma between each two, or `none` for none at all.

    Raises:
        ConfigError: it is neither.
    """
    numbers = [read_count(piece) for piece in text.split(",")] if text != "none" else []
    if None in numbers:
        raise ConfigError(f"{text!r} are no counts; write whole numbers, e.g. 100,10000, or none.")
    return tuple(number for number in numbers if number is not None)


def read_rule(text: str) -> str:
    """Reads a rule for ids as it stands, unchecked, or `none` for one that holds for no id."""
    return "" if text == "none" else text


def read_text(text: str) -> str | None:
    """Reads any text, or `none`."""
    return None if text == "none" else text
