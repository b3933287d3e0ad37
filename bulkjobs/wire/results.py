"""A results file in, the ids that it is about out: enough to tell whose job it was.

The article on the results of the contact job was not to be had, so the content decides: a document with an address
is followed, everything else is the file, as it is, gzip or in a ZIP. A file whose id column cannot be told proves
nothing.

Source: vendor articles "[GET] - Company Family Tree Job Results" for the document; for the file, public client code.
"""

from __future__ import annotations

import csv
import io
import lzma
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bulkjobs.ids import IdForm, fault_of
from bulkjobs.wire.answer import MalformedAnswer
from bulkjobs.wire.fields import printable, read_fields, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ResultsLink", "parse_results"]

_MOST_BYTES: Final = 256 * 1024 * 1024
"""Unpacked; 10,000 rows with everything there is about a contact are some megabytes."""
_ID_COLUMNS: Final = ("contactid", "id", "executiveid", "inputid")
"""What the column of ids may be called, without regard to case, blanks, underscores and dashes; the first that is
there counts. The record of the synchronous call has `contactId`."""
_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_BOM: Final = b"\xef\xbb\xbf"
_UNREADABLE: Final = (
    *(ValueError, csv.Error, EOFError, OSError, zlib.error, lzma.LZMAError),
    *(zipfile.BadZipFile, RuntimeError, struct.error),  # an archive may be encrypted, or lie about itself
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsLink:
    """Says where the file is. The address is signed: it is fetched without a token, and soon."""

    url: str


def parse_results(body: bytes, form: IdForm = IdForm.INTEGER) -> frozenset[bytes] | ResultsLink:
    """Reads the results of a job.

    Args:
        body: the answer, or the file.
        form: what the ids that the job was made of look like.

    Returns:
        The ids in its rows, as text; or where the file is.

    Raises:
        MalformedAnswer: it is neither, or the column with the ids cannot be told.
    """
    try:
        text = _unpacked(body).removeprefix(_BOM)
        if text.lstrip()[:1] in (b"{", b"<"):
            return _link(text)
        return frozenset(_ids(text, form))
    except _UNREADABLE as error:
        if isinstance(error, MalformedAnswer):
            raise
        raise MalformedAnswer(f"The results cannot be read: {printable(str(error), limit=200)}.") from error


def _unpacked(body: bytes) -> bytes:
    if body.startswith(_GZIP):
        return _expanded(body)
    if body.startswith(_ZIP):
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            (inside,) = [entry for entry in archive.infolist() if not entry.is_dir()]
            with archive.open(inside) as file:
                text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError("the file in the archive is too large")
        return text
    return body


def _expanded(body: bytes) -> bytes:
    text = b""
    while body:  # a file may have been packed in several pieces
        expander = zlib.decompressobj(wbits=31)
        text += expander.decompress(body, _MOST_BYTES - len(text) + 1)
        if not expander.eof or len(text) > _MOST_BYTES:
            raise ValueError("the gzip data ends early or is too large")
        body = expander.unused_data
    return text


def _link(text: bytes) -> ResultsLink:
    fields = read_fields(text)
    url = fields.get("resultsurl")
    if not isinstance(url, str) or not url:
        said = text_of(fields, "message", "errormessage", "status") or "no address"
        raise ValueError(f"it is a document with {said}")
    return ResultsLink(url=url)


def _ids(text: bytes, form: IdForm) -> Iterator[bytes]:
    # Latin-1 keeps every byte, and an id is ASCII.
    rows = csv.reader(io.StringIO(text.decode("latin-1"), newline=""))
    heading = [re.sub(r"[\s_-]", "", name).lower() for name in next(rows, [])]
    found = [heading.index(name) for name in _ID_COLUMNS if name in heading]
    if not found:
        raise ValueError(f"none of its columns is known to hold the ids: {', '.join(heading[:10])}")
    # A contact that is asked for by an opaque id has an integer one too, which may stand beside it.
    columns = found if form is IdForm.OPAQUE else found[:1]
    for row in rows:
        if not row:
            continue
        if len(row) <= max(columns):
            raise ValueError("a row ends before the column with the id")
        cells = [cell for column in columns if (cell := row[column].strip())]
        if not cells:
            continue  # a row about a contact that was not found, or a sum at the end
        ids = (text for cell in cells if not fault_of(text := cell.encode("latin-1"), form))
        if (contact_id := next(ids, None)) is None:
            raise ValueError(f"{cells[0]!r} stands in the column with the ids")
        yield contact_id
