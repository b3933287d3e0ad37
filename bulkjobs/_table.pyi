# The extension that `native/table.c` is compiled to.

from typing_extensions import Buffer

__all__ = ["column_of", "integers_of", "texts_of"]

def column_of(
    text: bytes, delimiter: int, column: int, empty: bytes, missing: bytes, /
) -> tuple[bytes, int]: ...
def integers_of(
    values: Buffer, validity: Buffer | None, offset: int, count: int, signed: bool, null: bytes, /
) -> bytes: ...
def texts_of(
    data: Buffer | None,
    offsets: Buffer,
    validity: Buffer | None,
    offset: int,
    count: int,
    wide: bool,
    empty: bytes,
    null: bytes,
    /,
) -> bytes: ...
