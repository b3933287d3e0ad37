"""What a run must make of its input, worked out a second time, token by token and without the product's code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Expected", "ExpectedChunk", "expected_of"]

_ID: Final = re.compile(rb"[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class ExpectedChunk:
    """Is one chunk as it must be planned and sent."""

    body: bytes
    digest: str
    ids: int
    invalid: int
    duplicate: int


@dataclass(frozen=True, slots=True)
class Expected:
    """Is what must come of an input."""

    chunks: list[ExpectedChunk]
    ordinal_of: dict[str, int]
    """Ordinal of the chunk with a digest; bodies differ, since no id comes twice."""
    invalid: list[bytes]
    """The invalid tokens in order."""
    duplicate: int
    ids: list[bytes]
    """The ids to be sent, in order."""

    @property
    def read(self) -> int:
        """Is how many ids there are in all."""
        return len(self.ids) + len(self.invalid) + self.duplicate


def expected_of(files: Sequence[bytes], size: int) -> Expected:
    """Reads files as a run must read them: ids between newlines and commas, blanks around them taken off."""
    chunks: list[ExpectedChunk] = []
    invalid: list[bytes] = []
    ids: list[bytes] = []
    seen: set[bytes] = set()
    begun, bad, again, duplicate = 0, 0, 0, 0

    def cut() -> None:
        nonlocal begun, bad, again
        body = b"\n".join(ids[begun:])
        digest = hashlib.sha256(body).hexdigest()
        chunks.append(ExpectedChunk(body, digest, len(ids) - begun, bad, again))
        begun, bad, again = len(ids), 0, 0

    for text in files:
        for token in re.split(rb"\r?\n|,", text):
            token = token.strip(b" \t")  # noqa: PLW2901 - as it counts from here on
            if not token:
                continue
            if not _ID.fullmatch(token):
                invalid.append(token)
                bad += 1
            elif token in seen:
                duplicate += 1
                again += 1
            else:
                seen.add(token)
                ids.append(token)
                if len(ids) - begun == size:
                    cut()
    if len(ids) > begun:
        cut()
    return Expected(
        chunks=chunks,
        ordinal_of={chunk.digest: ordinal for ordinal, chunk in enumerate(chunks, 1)},
        invalid=invalid,
        duplicate=duplicate,
        ids=ids,
    )
