"""A JSON answer as plain names and values. Only `answer` uses this."""

from __future__ import annotations

import orjson

__all__ = ["read_json"]


def read_json(body: bytes) -> dict[str, object]:
    """Reads one JSON object.

    Of a name that stands twice the last value counts: orjson decides so and does not tell. It refuses
    NaN, lone surrogates, raw control characters, trailing data and nesting over 1,024 by itself.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"it holds a {type(document).__name__} where an object should stand")  # noqa: TRY004 - it is about bytes, not about an argument's type
    return document
