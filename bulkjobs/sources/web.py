"""Files on web servers, read through one request that goes on where it broke off.

The standard library is enough for that, and takes proxies and certificates from where other programs do. An address
may hold a credential, such as the signature in the query of a signed URL. So its name is host and path alone.
"""

from __future__ import annotations

import base64
import http.client
import io
import os
import ssl
import time
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Final, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from bulkjobs.errors import ConfigError, SourceChanged, SourceError

__all__ = ["WebFile", "web_name"]

_TIMEOUT_S: Final = 60.0
"""Without a single byte."""
_TRIES: Final = 5
"""In a row, without a byte that is new."""
_PAUSE_S: Final = 0.5
"""Before the second try; doubled before each further one."""
_SKIP_BYTES: Final = 1024 * 1024
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
_CLOSED: Final = "the connection was closed early"
_PARTIAL: Final = 206
_BEYOND: Final = 416


class _ClosedError(ConnectionError):
    """Says that a server has sent less than it had promised."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Is what a server says of a file."""

    size_bytes: int | None
    mark: str | None
    """The ETag, else the time of the last change."""


class WebFile:
    """Is a file at an address. Implements `blob.Blob`."""

    repeatable = True

    def __init__(self, url: str) -> None:
        """Asks for the first byte, to learn what there is.

        Raises:
            ConfigError: this is no address; the message does not show it.
            SourceError: it cannot be had.
        """
        self.name = web_name(url)
        parts = urlsplit(url)
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self._login: str | None = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._login = "Basic " + base64.b64encode(pair.encode()).decode()
        with closing(self._first_answer()) as answer:
            self._look = _look(answer)
        self.size_bytes = self._look.size_bytes

    @property
    def fingerprint(self) -> str | None:
        """Is the size and the ETag, or the time of the last change; None if the server tells neither."""
        return None if self._look.mark is None else f"{self.size_bytes} bytes, ETag {self._look.mark}"

    @property
    def version(self) -> str | None:
        """Is the fingerprint."""
        return self.fingerprint

    def open(self) -> BinaryIO:
        """Opens the file; the request comes with the first read. See `blob.Blob`."""
        return cast("BinaryIO", _WebReader(self))

    def check_unchanged(self, file: BinaryIO) -> None:
        """Passes: each answer was compared as it came."""

    def body(self, position: int) -> http.client.HTTPResponse:
        """Asks for the content from a position on.

        Raises:
            SourceChanged: it is another file.
            SourceError: it cannot be had.
            OSError, http.client.HTTPException: another try may go better.
        """
        answer = self._ask(f"bytes={position}-" if position else None)
        try:
            self._pass_to(position, answer)
        except BaseException:
            answer.close()
            raise
        return answer

    def _pass_to(self, position: int, answer: http.client.HTTPResponse) -> None:
        """Checks an answer, and passes over what was read before: who knows no ranges begins at the beginning."""
        now = _look(answer)
        if now.mark != self._look.mark or None is not now.size_bytes != self._look.size_bytes is not None:
            raise SourceChanged(
                f"{self.name} changed while it was read. What was sent stays valid; put it back as it was to go on "
                f"with this run, or start another run with the new one."
            )
        behind = 0 if answer.status == _PARTIAL else position
        while behind:
            passed = answer.read(min(behind, _SKIP_BYTES))
            if not passed:
                raise _ClosedError(_CLOSED)
            behind -= len(passed)

    def failed(self, error: Exception, position: int) -> SourceError:
        """Says why no further try is made. What libraries say could show the address, so they only name the cause."""
        cause = _cause(error)
        why = getattr(cause, "strerror", None) or (
            str(cause) if isinstance(cause, _ClosedError) else type(cause).__name__
        )
        if isinstance(error, urllib.error.HTTPError):
            why = f"the server answers {error.code} {http.client.responses.get(error.code, '')}".rstrip()
        place = f" beyond byte {position:,}" if position else ""
        return SourceError(f"{self.name} cannot be read{place}: {why}.")

    def _first_answer(self) -> http.client.HTTPResponse:
        for attempt in range(1, _TRIES + 1):
            try:
                return self._ask("bytes=0-0")
            except (OSError, http.client.HTTPException) as error:
                if attempt == _TRIES or not _may_pass(error):
                    raise self.failed(error, 0) from None
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError(attempt)

    def _ask(self, wanted: str | None) -> http.client.HTTPResponse:
        # `identity`: a mark and a position are of the bytes as they are stored.
        headers = {"Accept-Encoding": "identity", "User-Agent": "bulkjobs"}
        if wanted is not None:
            headers["Range"] = wanted
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 - its scheme was checked
        if self._login is not None:
            request.add_unredirected_header("Authorization", self._login)  # another host must not have it
        try:
            answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            if error.code == _BEYOND and wanted == "bytes=0-0":
                return self._ask(None)  # there is no first byte: it is empty
            error.close()
            if error.code in (401, 403, 404, 410):
                raise SourceError(f"{self.failed(error, 0)} {_ADVICE[error.code]}".rstrip()) from None
            raise
        return cast("http.client.HTTPResponse", answer)


_ADVICE: Final = {
    401: "Put user and password into the address, or use a signed one.",
    403: "A signed address is not recorded and may have expired: give the same command with a valid one.",
    404: "",
    410: "",
}


class _WebReader(io.RawIOBase):
    """Reads a file from a server, and on where a connection was lost."""

    def __init__(self, file: WebFile) -> None:
        super().__init__()
        self._file = file
        self._position = 0
        self._body: http.client.HTTPResponse | None = None

    def seekable(self) -> bool:
        return self._file.size_bytes is not None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size_bytes or 0}[whence]
        if base + offset != self._position:
            self._hang_up()
            self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads as much as is asked for, unless the end comes before: who reads tables relies on it."""
        wanted = None if size is None or size < 0 else size
        parts: list[bytes] = []
        while wanted is None or wanted > 0:
            try:
                part = self._part(wanted)
            except SourceError:
                if not parts:
                    raise
                break  # what came before it is good; the next read meets it again
            if not part:
                break
            parts.append(part)
            wanted = None if wanted is None else wanted - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, wanted: int | None) -> bytes:
        size_bytes = self._file.size_bytes
        for attempt in range(1, _TRIES + 1):
            if self._position == size_bytes:
                return b""
            try:
                if self._body is None:
                    self._body = self._file.body(self._position)
                block = self._body.read(wanted)
                if not block and size_bytes is not None:
                    raise _ClosedError(_CLOSED)
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                if attempt == _TRIES or not _may_pass(error):
                    raise self._file.failed(error, self._position) from None
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            else:
                self._position += len(block)
                return block
        raise AssertionError(attempt)

    def _hang_up(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        self._hang_up()
        super().close()


def web_name(url: str) -> str:
    """Gives an address without what may be a credential in it.

    Raises:
        ConfigError: it is none; the message does not show it.
    """
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0 and all("!" <= char <= "~" for char in url)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            "An address of a file may be https://HOST/PATH, with special characters written as %XX."
        )
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _look(answer: http.client.HTTPResponse) -> _Look:
    if answer.status == _PARTIAL:
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        whole = answer.headers.get("Content-Length") or ""
    mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    return _Look(int(whole) if whole.isdecimal() else None, mark)


def _may_pass(error: Exception) -> bool:
    """Tells whether another try may go better."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING
    return not isinstance(_cause(error), http.client.InvalidURL | ssl.SSLCertVerificationError)


def _cause(error: Exception) -> object:
    return error.reason if isinstance(error, urllib.error.URLError) else error
