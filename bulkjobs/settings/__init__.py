"""What decides how a run goes: the table of options, their grammars, and `Settings`, the values in force."""

from __future__ import annotations

from bulkjobs.settings.option import Option
from bulkjobs.settings.options import OPTIONS
from bulkjobs.settings.settings import Settings, merge
from bulkjobs.settings.values import MOST_WORKERS, Rate, Secret, default_pace, parse_duration, parse_rate

__all__ = [
    "MOST_WORKERS",
    "OPTIONS",
    "Option",
    "Rate",
    "Secret",
    "Settings",
    "default_pace",
    "merge",
    "parse_duration",
    "parse_rate",
]
