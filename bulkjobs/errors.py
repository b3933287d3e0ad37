"""What can go wrong, by who can mend it.

    BulkJobsError
    ├── ConfigError (also ValueError)   a setting, an option or a mix of them
    ├── SourceError                     ids cannot be read (any further)
    │   └── SourceChanged               a source is not what it was when the run began
    ├── AuthError                       no usable access token
    ├── LedgerError                     the durable account cannot be read or written
    │   ├── LedgerFull                  the disk has no room for more
    │   └── LedgerLocked                another process works on this run
    ├── SinkError                       job records cannot be handed on
    └── InternalError                   an invariant broke: a bug in bulkjobs

An answer of the server is never an exception: it is evidence, and `verdict` turns it into a value.
Every message says what happened, to which thing, and what to do next. All of them pickle.
"""

from __future__ import annotations

__all__ = [
    "AuthError",
    "BulkJobsError",
    "ConfigError",
    "InternalError",
    "LedgerError",
    "LedgerFull",
    "LedgerLocked",
    "SinkError",
    "SourceChanged",
    "SourceError",
]


class BulkJobsError(Exception):
    """Is the base of everything bulkjobs raises on purpose."""


class ConfigError(BulkJobsError, ValueError):
    """Says which setting cannot be used and what it may be. Nothing was sent."""


class SourceError(BulkJobsError):
    """Says which source cannot be read, and how far it was read. What was read before stays valid."""


class SourceChanged(SourceError):  # noqa: N818 - as below
    """Says which chunk of a resumed run no longer has the ids it was planned with."""


class AuthError(BulkJobsError):
    """Says why there is no access token that the server takes. No chunk was lost: they stay pending."""


class LedgerError(BulkJobsError):
    """Says what is wrong with the ledger. Nothing more is sent once it is raised."""


class LedgerFull(LedgerError):  # noqa: N818 - as below
    """Says that the disk is full. What is in flight is still recorded, and nothing else is begun."""


class LedgerLocked(LedgerError):  # noqa: N818 - the name states the condition, as FileNotFoundError's does
    """Says which process works on this run. No request was made."""


class SinkError(BulkJobsError):
    """Says which sink did not take a job record. The record stays in the ledger and is handed on later."""


class InternalError(BulkJobsError):
    """Says which invariant broke. It is a bug in bulkjobs."""
