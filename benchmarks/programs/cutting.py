"""Reads a source and cuts it into chunks, as a run does, and sends nothing: SOURCE CHUNK_IDS dedupe|keep [COLUMN]."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.programs.stopwatch import stopwatch
from bulkjobs.chunking import Chunker
from bulkjobs.sources import open_sources


async def cut(path: str, size: int, *, dedupe: bool, column: str) -> int:
    """Gives how many ids the chunks hold."""
    chunker = Chunker(size, dedupe=dedupe)
    ids = 0
    for source in open_sources([path], column=column or None):
        chunker.begin(source.name)
        async for block in source.blocks():
            ids += sum(chunk.ids for chunk in chunker.feed(block).chunks)
        ids += sum(chunk.ids for chunk in chunker.end().chunks)
    last, _ = chunker.finish()
    return ids + (0 if last is None else last.ids)


def main(path: str, size: str, duplicates: str, column: str = "") -> None:
    """Times it."""
    with stopwatch() as found:
        found["counted"] = asyncio.run(cut(path, int(size), dedupe=duplicates == "dedupe", column=column))


if __name__ == "__main__":
    main(*sys.argv[1:])
