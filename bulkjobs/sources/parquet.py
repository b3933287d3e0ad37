"""One column of a Parquet file: read batch by batch, each turned into text without an object for each id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Final

from bulkjobs._table import integers_of, texts_of
from bulkjobs.errors import SourceError
from bulkjobs.ids import EMPTY_CELL, NULL, shown
from bulkjobs.sources.ahead import Piece, Pieces
from bulkjobs.sources.delimited import Column, found_by_name, no_such_column

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

__all__ = ["parquet_pieces"]

_BATCH_ROWS: Final = 64 * 1024
_BUFFER_BYTES: Final = 1024 * 1024
"""Read at a time, so that memory does not depend on how large the row groups are."""


def parquet_pieces(
    name: str, file: BinaryIO, size_bytes: int | None, column: Column | None, mark: str | None
) -> Pieces:
    """Reads the ids in a column, one a line: the number of the line is that of the row.

    Args:
        name: how messages call the source.
        file: the file; it has to be seekable.
        size_bytes: of the file.
        column: the one that is wanted; None is possible where there is only one.
        mark: where to go on, `row group:row`; None for the beginning.

    Raises:
        SourceError: pyarrow is missing, the file is damaged, or there is no such column of ids.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and heavy
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - as above
    except ImportError:
        raise SourceError(
            f'{name} is Parquet, which takes an extra: pip install "bulkjobs[parquet]".'
        ) from None
    if not file.seekable():
        raise SourceError(f"{name} is Parquet, which is not read in one go: give it as a file.")
    try:
        table = ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        wanted = _wanted(name, table, column)
        yield from _batches(table, wanted, size_bytes or 0, mark)
    except (pa.ArrowException, OSError) as error:
        said = shown(str(error).encode("utf-8", "backslashreplace"))
        raise SourceError(
            f"{name}: the Parquet data is damaged or not whole ({said}). The ids before stay valid; get the whole "
            f"file and give the same command again."
        ) from error


def _batches(table: ParquetFile, wanted: str, size_bytes: int, mark: str | None) -> Pieces:
    first, passed = (0, 0) if mark is None else map(int, mark.split(":"))
    rows = table.metadata.num_rows
    before = sum(table.metadata.row_group(group).num_rows for group in range(first))
    for group in range(first, table.metadata.num_row_groups):
        row = 0
        batches = table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[wanted], use_threads=False)
        for batch in batches:
            ids = batch.column(0)[max(0, passed - row) :]
            row += len(batch)
            if len(ids):
                yield Piece(_as_text(ids), size_bytes * (before + row) // rows, f"{group}:{row}")
        before += row
        passed = 0


def _wanted(name: str, table: ParquetFile, column: Column | None) -> str:
    """Finds the column and makes sure that it can hold ids."""
    names = list(table.schema_arrow.names)
    if column is None:
        if len(names) != 1:
            raise SourceError(
                f"{name} is a table. Say which column has the ids, with --column: {_listed(names)}."
            )
        column = 1
    index = found_by_name(name, names, column) if isinstance(column, str) else column - 1
    if not 0 <= index < len(names):
        raise no_such_column(name, names, column)
    if names.count(names[index]) > 1:
        raise SourceError(
            f"{name} has several columns {names[index]!r}. Write it anew, with one name for each."
        )
    if trouble := _trouble(table.schema_arrow.field(index).type):
        raise SourceError(f"{name}: the column {shown(names[index].encode())} {trouble}")
    return str(names[index])


def _listed(names: list[str]) -> str:
    return ", ".join(shown(one.encode("utf-8", "backslashreplace")) for one in names[:20])


def _trouble(kind: pa.DataType) -> str | None:
    """Says why values of a type are no ids; None when they may be."""
    from pyarrow import types  # noqa: PLC0415 - as above

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_floating(kind):
        return (
            f"has the type {kind}, in which numbers above 2**53 are not exact. Write it anew as integers, for "
            f'example with pandas: frame["id"].astype("Int64").'
        )
    if types.is_decimal(kind) and kind.scale:
        return f"has the type {kind}, with places behind the point. Write it anew as integers."
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    raw = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    if text or raw or types.is_integer(kind) or types.is_decimal(kind) or types.is_null(kind):
        return None
    return f"has the type {kind}, not one of integers or text."


def _as_text(ids: Any) -> bytes:
    """Writes values one a line."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if pa.types.is_integer(ids.type):
        signed = pa.types.is_signed_integer(ids.type)
        ids = ids.cast(pa.int64() if signed else pa.uint64())
        validity, values = ids.buffers()
        return integers_of(values, validity, ids.offset, len(ids), signed, NULL)
    wide = pa.types.is_large_string(ids.type) or pa.types.is_large_binary(ids.type)
    if not (wide or pa.types.is_string(ids.type) or pa.types.is_binary(ids.type)):
        ids = ids.cast(pa.binary() if pa.types.is_fixed_size_binary(ids.type) else pa.string())
    validity, offsets, data = ids.buffers()
    return texts_of(data, offsets, validity, ids.offset, len(ids), wide, EMPTY_CELL, NULL)
