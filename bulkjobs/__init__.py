"""Submits millions of ids to an asynchronous, billed bulk-job HTTP API and accounts for every one.

Importing this starts nothing and loads nothing heavy: a name brings its module along when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bulkjobs.version import __version__

if TYPE_CHECKING:
    from bulkjobs.client import Client
    from bulkjobs.errors import (
        AuthError,
        BulkJobsError,
        ConfigError,
        InternalError,
        LedgerError,
        LedgerLocked,
        SinkError,
        SourceChanged,
        SourceError,
    )
    from bulkjobs.exits import Exit
    from bulkjobs.model import JobRecord, RunSummary
    from bulkjobs.settings import Rate, Secret, Settings

__all__ = [
    "AuthError",
    "BulkJobsError",
    "Client",
    "ConfigError",
    "Exit",
    "InternalError",
    "JobRecord",
    "LedgerError",
    "LedgerLocked",
    "Rate",
    "RunSummary",
    "Secret",
    "Settings",
    "SinkError",
    "SourceChanged",
    "SourceError",
    "__version__",
]

_HOME = {
    "Client": "client",
    "Exit": "exits",
    "JobRecord": "model",
    "Rate": "settings",
    "RunSummary": "model",
    "Secret": "settings",
    "Settings": "settings",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'bulkjobs' has no attribute {name!r}")
    value = getattr(import_module(f"bulkjobs.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
