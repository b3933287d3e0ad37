"""A JSON answer as plain names and values. Only `answer` uses this."""

from __future__ import annotations

import json

import orjson

__all__ = ["read_json"]


def read_json(body: bytes) -> dict[str, object]:
    """Reads one JSON object.

    Of a name that stands twice the last value counts: orjson decides so and does not tell. Where that could hide one
    of two jobs the answer is read once more, and the name then has the list of its values, as in XML. orjson refuses
    NaN, lone surrogates, raw control characters, trailing data and nesting over 1,024 by itself.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"it holds a {type(document).__name__} where an object should stand")  # noqa: TRY004 - it is about bytes, not about an argument's type
    if body.lower().count(b"jobid") > 1 or b"\\u" in body:  # a name may be escaped
        try:
            document = dict(json.loads(body, object_pairs_hook=_together))
        except RecursionError:
            raise ValueError("it is nested too deep") from None
    return document


def _together(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        before = found.setdefault(name, value)
        if before != value:
            found[name] = [before, value]
    return found
