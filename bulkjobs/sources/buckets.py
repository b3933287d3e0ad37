"""Objects in Amazon S3 and what speaks its language, and in Google Cloud Storage, read piece by piece.

obstore does the asking: one library for both, compiled, which signs, renews credentials and repeats requests. Each
piece is asked for by itself, on the condition that the object is still the one that was looked at first. So nothing
is open while sending makes the reading wait, a lost connection costs one piece, and a reading may begin anywhere.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from bulkjobs.errors import ConfigError, SourceChanged, SourceError
from bulkjobs.ids import shown

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import GCSStore, S3Store

__all__ = ["BucketObject", "objects_at"]

_FIRST_PIECE_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 8 * 1024 * 1024
"""As the vendors advise: large enough that the time to the first byte does not matter."""
_AHEAD: Final = 2
"""Pieces that come while one is worked on."""
_TRIES: Final = 4
_PAUSE_S: Final = 0.5
"""Before the second try; doubled before each further one. The library has then tried the request for itself."""
_REQUEST_RETRIES: Final = 5
_RETRY_TIMEOUT: Final = timedelta(seconds=30)
_MAGIC: Final = re.compile(r"[*?\[]")
_INSTANCE_METADATA: Final = ("169.254.169.254", "metadata.google.internal", "169.254.170.2")
"""Where a machine of the vendor would have credentials: asked last, when there are no others."""
_CREDENTIALS: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, with boto3 installed)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}


class BucketObject:
    """Is one object. Implements `blob.Blob`."""

    repeatable = True

    def __init__(self, bucket: _Bucket, meta: ObjectMeta) -> None:
        """Takes what the store says of the object."""
        self.name = bucket.name_of(meta["path"])
        self.size_bytes = meta["size"]
        self._bucket = bucket
        self._meta = meta

    @property
    def fingerprint(self) -> str:
        """Is the size and the ETag, or the time where the store has none."""
        mark = self._meta["e_tag"] or self._meta["last_modified"].isoformat()
        return f"{self.size_bytes} bytes, ETag {mark}"

    @property
    def version(self) -> str:
        """Is the fingerprint: an ETag changes with the content, whatever else does."""
        return self.fingerprint

    def open(self) -> BinaryIO:
        """Opens the object; the first request comes with the first read. See `blob.Blob`."""
        return cast("BinaryIO", _ObjectFile(self))

    def check_unchanged(self, file: BinaryIO) -> None:
        """Passes: each piece came under the condition that the object is unchanged."""

    def piece(self, begin: int, end: int) -> bytes:
        """Gets the bytes from `begin` to before `end`.

        Raises:
            SourceChanged: the object is another.
            SourceError: it cannot be had.
        """
        import obstore  # noqa: PLC0415 - only who reads from a bucket needs it

        for attempt in range(1, _TRIES + 1):
            try:
                with self._bucket.mapped(self.name, begin):
                    got = obstore.get(
                        self._bucket.store,
                        self._meta["path"],
                        options={"range": (begin, end), "if_match": self._meta["e_tag"]},
                    )
                    piece = bytes(got.bytes())
            except _PassingError as error:
                if attempt == _TRIES:
                    raise SourceError(str(error)) from error
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            else:
                if len(piece) == end - begin and got.meta["e_tag"] == self._meta["e_tag"]:
                    return piece
                raise _changed(self.name)
        raise AssertionError(attempt)


class _PassingError(SourceError):
    """Says what another try may not meet again."""


class _ObjectFile(io.RawIOBase):
    """Reads an object, with the next pieces on their way."""

    def __init__(self, source: BucketObject) -> None:
        super().__init__()
        self._object = source
        self._position = 0
        self._piece = memoryview(b"")
        self._coming: deque[Future[bytes]] = deque()
        self._asked = 0
        """Up to where pieces were asked for."""
        self._piece_bytes = _FIRST_PIECE_BYTES
        self._threads = ThreadPoolExecutor(_AHEAD, thread_name_prefix="bucket")

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._object.size_bytes}[whence]
        if base + offset != self._position:
            self._forget()
            self._position = self._asked = base + offset
            self._piece_bytes = _FIRST_PIECE_BYTES
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._object.size_bytes - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        parts: list[memoryview] = []
        while wanted:
            if not self._piece:
                self._piece = self._next(wanted)
            part = self._piece[:wanted]
            self._piece = self._piece[len(part) :]
            self._position += len(part)
            wanted -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _next(self, wanted: int) -> memoryview:
        while self._asked < self._object.size_bytes and len(self._coming) <= _AHEAD:
            end = min(self._asked + max(wanted, self._piece_bytes), self._object.size_bytes)
            self._coming.append(self._threads.submit(self._object.piece, self._asked, end))
            self._asked = end
            if self._piece_bytes == _FIRST_PIECE_BYTES:
                self._piece_bytes = _PIECE_BYTES
                break  # who jumps from place to place wants nothing else
        return memoryview(self._coming.popleft().result())

    def _forget(self) -> None:
        for future in self._coming:
            future.cancel()
        self._coming.clear()
        self._piece = memoryview(b"")

    def close(self) -> None:
        self._forget()
        self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()


class _Bucket:
    """Is a bucket, and what its store says in our words."""

    def __init__(self, scheme: str, name: str) -> None:
        self._scheme = scheme
        self._name = name
        with self.mapped(f"{scheme}://{name}"):
            self.store: S3Store | GCSStore = _store(scheme, name)

    def name_of(self, key: str) -> str:
        return f"{self._scheme}://{self._name}/{key}"

    def look_at(self, key: str) -> ObjectMeta:
        import obstore  # noqa: PLC0415 - as above

        with self.mapped(self.name_of(key)):
            return obstore.head(self.store, key)

    def below(self, prefix: str) -> list[ObjectMeta]:
        import obstore  # noqa: PLC0415 - as above

        folder = prefix.rpartition("/")[0]  # the store compares whole steps of a path
        with self.mapped(self.name_of(prefix)):
            found = [meta for some in obstore.list(self.store, folder or None) for meta in some]
        return sorted(found, key=lambda meta: meta["path"])

    @contextmanager
    def mapped(self, name: str, position: int | None = None) -> Iterator[None]:
        """Says what the store or the way to it made of a request; never what was sent to it."""
        from obstore import exceptions  # noqa: PLC0415 - as above

        try:
            yield
        except FileNotFoundError:
            raise SourceError(f"{name} cannot be read: there is no such object or bucket.") from None
        except exceptions.PreconditionError:
            raise _changed(name) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise SourceError(
                f"{name} cannot be read: access is denied. Credentials are taken from the usual variables, "
                f"{_CREDENTIALS[self._scheme]}."
            ) from None
        except (exceptions.BaseError, OSError, ValueError) as error:
            text = str(error).partition("\n\nDebug source:")[0]
            if any(place in text for place in _INSTANCE_METADATA):
                raise SourceError(
                    f"{name} cannot be read: no credentials were found. They are taken from the usual variables, "
                    f"{_CREDENTIALS[self._scheme]}."
                ) from None
            place = f" beyond byte {position:,}" if position else ""
            raise _PassingError(
                f"{name} cannot be read{place}: {shown(' '.join(text.split()).encode()).rstrip('.')}."
            ) from None


def objects_at(address: str) -> list[BucketObject]:
    """Finds the objects behind `s3://BUCKET/KEY` or `gs://…`: one, all below `PREFIX/`, or those of a pattern.

    Raises:
        ConfigError: the library is missing.
        SourceError: there is no such object, or the store does not let it be seen.
    """
    scheme, _, rest = address.partition("://")
    name, _, key = rest.partition("/")
    if find_spec("obstore") is None:
        raise ConfigError(
            f"{address} needs the library obstore. Install it with: pip install 'bulkjobs[{scheme}]'"
        )
    if not name:
        raise SourceError(f"{address} names no bucket; it may be {scheme}://BUCKET/KEY.")
    bucket = _Bucket(scheme, name)
    if key and not key.endswith("/") and not _MAGIC.search(key):
        return [BucketObject(bucket, bucket.look_at(key))]
    fixed = _MAGIC.split(key)[0]
    wanted = re.compile(_regex(key) if _MAGIC.search(key) else re.escape(key) + ".*", re.DOTALL)
    found = [
        BucketObject(bucket, meta)
        for meta in bucket.below(fixed)
        if wanted.fullmatch(meta["path"]) and not meta["path"].endswith("/")
    ]
    if not found:
        raise SourceError(f"No object matches {address!r}.")
    return found


def _regex(pattern: str) -> str:
    """Writes a pattern of the shell: `*` stays within a step of the path, `**` does not."""
    parts = re.split(r"(\*\*/?|\*|\?|\[[^\]]+\])", pattern)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        words.get(part) or (part.replace("[!", "[^") if part.startswith("[") else re.escape(part))
        for part in parts
    )


def _store(scheme: str, bucket: str) -> S3Store | GCSStore:
    from obstore.store import GCSStore, S3Store  # noqa: PLC0415 - as above

    retries = {"max_retries": _REQUEST_RETRIES, "retry_timeout": _RETRY_TIMEOUT}
    if scheme == "gs":
        return GCSStore(bucket, retry_config=retries)  # type: ignore[arg-type]  # a dict of its keys
    # Who names an endpoint without TLS means it.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    provider = None
    if not os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_PROFILE") and find_spec("boto3"):
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 - only it knows profiles

        provider = Boto3CredentialProvider()
    return S3Store(
        bucket,
        client_options={"allow_http": endpoint.startswith("http://")},
        retry_config=retries,  # type: ignore[arg-type]  # a dict of its keys
        credential_provider=provider,
    )


def _changed(name: str) -> SourceChanged:
    return SourceChanged(
        f"{name} changed while it was read. What was sent stays valid; put the object back as it was to go on with "
        f"this run, or start another run with the new one."
    )
