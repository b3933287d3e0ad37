"""What people read while a run goes on: each observer turns events into something for them."""

from __future__ import annotations

from bulkjobs.observers.logs import LogObserver
from bulkjobs.observers.progress import ProgressObserver

__all__ = ["LogObserver", "ProgressObserver"]
