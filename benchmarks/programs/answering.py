"""Reads one answer again and again: ours-json, orjson, ours-xml or lxml, and how often."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import orjson
from lxml import etree

from benchmarks.programs.stopwatch import stopwatch
from bulkjobs.wire.answer import parse_submission

_JSON: Final = b'{"jobId":"v9qh2to86kg85s03trag","status":"accepted","type":"contacts"}'
_XML: Final = (
    b"<?xml version='1.0' encoding='UTF-8'?>\n<BulkLeadEnrichmentStatus><jobId>v9qh2to86kg85s03trag</jobId>"
    b"<status>accepted</status><type>contacts</type></BulkLeadEnrichmentStatus>"
)
_WAYS: Final[dict[str, tuple[Callable[[bytes], Any], bytes]]] = {
    "ours-json": (parse_submission, _JSON),
    "orjson": (orjson.loads, _JSON),
    "ours-xml": (parse_submission, _XML),
    "lxml": (etree.fromstring, _XML),
}


def main(name: str, times: int) -> None:
    """Times it."""
    read, body = _WAYS[name]
    read(body)
    with stopwatch() as found:
        for _ in range(times):
            read(body)
        found["counted"] = times


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
