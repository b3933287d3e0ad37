"""Reads a source and cuts it into chunks, as a run does, and sends nothing.

Arguments: SOURCE CHUNK_IDS dedupe|keep FORM [COLUMN], of which FORM is integer or opaque.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path

from benchmarks.programs.stopwatch import stopwatch
from bulkjobs.chunking import Chunker
from bulkjobs.ids import IdForm
from bulkjobs.rundir import unnamed_file
from bulkjobs.sources import open_sources


async def cut(path: str, size: int, *, dedupe: bool, form: IdForm, column: str) -> int:
    """Gives how many ids the chunks hold."""
    chunker = Chunker(size, dedupe=dedupe, form=form, file=partial(unnamed_file, Path()))
    ids = 0
    for source in open_sources([path], column=column or None):
        chunker.begin(source.name)
        async for block in source.blocks():
            ids += sum(chunk.ids for chunk in chunker.feed(block).chunks)
        ids += sum(chunk.ids for chunk in chunker.end().chunks)
    last, _ = chunker.finish()
    return ids + (0 if last is None else last.ids)


def main(path: str, size: str, duplicates: str, form: str, column: str = "") -> None:
    """Times it."""
    with stopwatch() as found:
        dedupe = duplicates == "dedupe"
        found["counted"] = asyncio.run(cut(path, int(size), dedupe=dedupe, form=IdForm(form), column=column))


if __name__ == "__main__":
    main(*sys.argv[1:])
