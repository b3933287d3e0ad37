"""The answer about the account's usage: what was allotted for a period, and what of it is used.

Source: vendor article "[GET] - API Usage". `creditsForAccount` is an array, "currently of one element"; how it looks
in XML was not seen. So every group of fields that names credits is taken for an element of it, wherever it stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bulkjobs.wire.answer import ErrorAnswer, read_answer
from bulkjobs.wire.fields import lowered, printable, read_document

__all__ = ["Usage", "parse_usage"]

_MOST: Final = 10**18
"""No account has more; what is larger is a mistake, and no float beyond it is a whole number any more."""
_NUMBER: Final = re.compile(r"[0-9]{1,19}(\.[0-9]{1,9})?")
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Is what the server says of an account's credits; one id costs one."""

    allocated: int
    consumed: int
    """It may miss the last five minutes, and be more than was allocated."""

    @property
    def left(self) -> int:
        """Is what was allocated and is not consumed; below 0 when more was consumed."""
        return self.allocated - self.consumed


def parse_usage(body: bytes) -> Usage | ErrorAnswer:
    """Reads the answer about usage. Of several elements the one counts that leaves least.

    Raises:
        MalformedAnswer: it cannot be read, it names no credits, or a number of credits is none.
    """
    return read_answer(body, read_document, _usage)


def _usage(document: Mapping[str, object]) -> Usage:
    found = [_credits(fields) for fields in _groups(document)]
    if not found:
        raise ValueError("it names no allocatedCredits and consumedCredits")
    return min(found, key=lambda usage: usage.left)


def _groups(document: object) -> Iterator[dict[str, object]]:
    """Gives every object in an answer that names credits."""
    pending: list[object] = [document]
    while pending:  # a loop: orjson nests deeper than Python recurses
        value = pending.pop()
        if isinstance(value, dict):
            fields = lowered(value.items())
            if "allocatedcredits" in fields or "consumedcredits" in fields:
                yield fields
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _credits(fields: Mapping[str, object]) -> Usage:
    # Rounded to the side on which less is left.
    return Usage(
        allocated=math.floor(_number(fields, "allocatedCredits")),
        consumed=math.ceil(_number(fields, "consumedCredits")),
    )


def _number(fields: Mapping[str, object], name: str) -> int | float:
    value = fields.get(name.lower())
    number: int | float | None = None
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()):
        number = float(text) if "." in text else int(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    if number is None or not 0 <= number <= _MOST:
        said = "missing" if value is None else printable(repr(value), limit=_SHOWN)
        raise ValueError(f"its {name} is {said} and no number of credits")
    return number
