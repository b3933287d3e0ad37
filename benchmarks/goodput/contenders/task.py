"""What every contender in Python is given, and the ids cut into bodies."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["CONCURRENT", "Task"]

CONCURRENT: Final = 8
"""Requests in flight at most, where a contender has a choice: as many as the workers of this engine."""


@dataclass(frozen=True, slots=True)
class Task:
    """Is the work of one contender."""

    bodies: list[str]
    """The ids of each request, with a newline between each two."""
    url: str
    headers: dict[str, str]
    count: int
    """Requests that the account may make in `window_s`, as far as the contender is told."""
    window_s: float

    @classmethod
    def of_command_line(cls) -> Self:
        """Reads `FILE CHUNK_IDS URL COUNT WINDOW_S`, and the token from the environment."""
        file, chunk_ids, url, count, window_s = sys.argv[1:]
        ids, size = Path(file).read_text(encoding="ascii").split(), int(chunk_ids)
        return cls(
            bodies=["\n".join(ids[at : at + size]) for at in range(0, len(ids), size)],
            url=url,
            headers={"accessToken": os.environ["ACCESS_TOKEN"], "Content-Type": "text/plain"},
            count=int(count),
            window_s=float(window_s),
        )
