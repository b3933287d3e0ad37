"""Checks the body of a submission: ids as plain digits, a comma or a newline between each two, none of them bad.

Or as words, one a line, where the endpoint takes opaque ids.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from bulkjobs.errors import ConfigError
from bulkjobs.simulator.messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["OPAQUE_ID", "IdRule", "count_ids", "count_opaque_ids", "too_many"]

_SEPARATORS: Final = b",\n"
_MOST_DIGITS: Final = 19
_ID: Final = re.compile(rb"[1-9][0-9]{0,18}")
_FEWEST_OPAQUE: Final = 32
_MOST_OPAQUE: Final = 64
OPAQUE_ID: Final = re.compile(rb"[0-9A-Za-z_-]{%d,%d}" % (_FEWEST_OPAQUE, _MOST_OPAQUE))
_OPAQUE_BYTES: Final = bytes(byte for byte in range(256) if re.match(rb"[0-9A-Za-z_\n-]", bytes([byte])))

_FOREIGN: Final = b"x"
# Every byte that may not stand in a body becomes the foreign one.
_MARK_FOREIGN: Final = bytes(0x20 if byte in b"0123456789,\n" else _FOREIGN[0] for byte in range(256))
_ZERO: Final = ord("0")


def count_ids(body: bytes, *, max_ids: int) -> int:
    """Counts the ids of a submission.

    Strict on purpose: blanks, signs, leading zeros, empty lines (one at the end, too), carriage returns and
    ids of more than 19 digits are refused, so that a client which sends any of them is found out.

    Returns:
        The number of ids, 1 to `max_ids`.

    Raises:
        Refusal: 400, with the first piece that is not an id, or with the number of ids allowed.
    """
    ids = _count_if_clean(body) if body else 0
    if ids is None:
        raise Refusal(
            400, "400-107", f"Please enter a valid number for contactId. Given value is {_culprit(body)}"
        )
    if not 1 <= ids <= max_ids:
        raise too_many(max_ids)
    return ids


def count_opaque_ids(body: bytes, *, max_ids: int) -> int:
    """Counts the ids of a submission to an endpoint of opaque ids, as strictly as `count_ids`.

    Every sample has 64 letters, digits, `_` and `-`; how short one may be is not known. They go one a line.

    Raises:
        Refusal: as `count_ids`.
    """
    if not body:
        raise too_many(max_ids)
    newlines = np.flatnonzero(np.frombuffer(body, dtype=np.uint8) == ord("\n"))
    steps = np.diff(newlines, prepend=-1, append=len(body))
    # A regular expression for all of it takes twice as long.
    if body.translate(None, _OPAQUE_BYTES) or steps.min() <= _FEWEST_OPAQUE or steps.max() > _MOST_OPAQUE + 1:
        culprit = next(piece for piece in body.split(b"\n") if not OPAQUE_ID.fullmatch(piece))
        raise Refusal(400, "400-108", f"Executive id is not valid: {_quoted(culprit)}")
    if len(steps) > max_ids:
        raise too_many(max_ids)
    return len(steps)


def too_many(max_ids: int) -> Refusal:
    """Gives the refusal of a body that is too long, or empty. Source: the vendor's token page."""
    return Refusal(
        400, "400-151", f"Bulk enrichment API accepts minimum 1 and maximum {max_ids} records at a time."
    )


def _count_if_clean(body: bytes) -> int | None:
    """Counts the ids of a body that is not empty, or gives None when one of them is not an id.

    Whole-buffer work: 90 us for 10,000 ids, where one regular expression for the grammar takes 180 us and
    counting the separators 50 us more.
    """
    if _FOREIGN in body.translate(_MARK_FOREIGN):
        return None
    if body[0] in _SEPARATORS or body[0] == _ZERO or body[-1] in _SEPARATORS:
        return None
    text = np.frombuffer(body, dtype=np.uint8)
    separators = np.flatnonzero(text < _ZERO)
    if (text[separators + 1] == _ZERO).any():
        return None
    steps = np.diff(separators, prepend=-1, append=len(body))
    if steps.min() < 2 or steps.max() > _MOST_DIGITS + 1:  # noqa: PLR2004 - an id and its separator
        return None
    return len(separators) + 1


def _culprit(body: bytes) -> str:
    """Quotes the first piece that is not an id, at most 40 bytes of it. Only a refused body pays for this."""
    for piece in re.split(rb"[,\n]", body):
        if not _ID.fullmatch(piece):
            return _quoted(piece)
    raise AssertionError("a body of nothing but ids is never refused")


def _quoted(piece: bytes) -> str:
    return repr(piece[:40].decode("ascii", "backslashreplace"))


class IdRule:
    """Says of which ids something holds: given ones, or all that end in given characters.

    Args:
        rule: a set of ids, or a text like `13,*0007`: the id 13, and every id that ends in 0007.

    Raises:
        ConfigError: the text is not of that form.
    """

    def __init__(self, rule: str | Collection[int]) -> None:
        pieces = rule.split(",") if isinstance(rule, str) else map(str, rule)
        exact: set[bytes] = set()
        endings: set[bytes] = set()
        for piece in filter(None, map(str.strip, pieces)):
            if not re.fullmatch(r"[*]?[0-9A-Za-z_-]{1,64}", piece):
                raise ConfigError(f"{piece!r} is no id and no ending; write ids and *ENDING, e.g. 13,*0007.")
            (endings if piece.startswith("*") else exact).add(piece.removeprefix("*").encode())
        self._exact = frozenset(exact)
        self._endings = tuple(ending + b"\n" for ending in sorted(endings))

    def holds_for_any(self, body: bytes) -> bool:
        """Tells whether it holds for one of the ids in a body that is a list of ids."""
        if not (self._exact or self._endings):
            return False
        lines = body.replace(b",", b"\n") + b"\n"
        if any(ending in lines for ending in self._endings):
            return True
        return bool(self._exact) and not self._exact.isdisjoint(lines.split())
