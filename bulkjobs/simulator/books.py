"""What really happened: the jobs with their bodies, and counts. A judge compares a client's story with it.

Bodies go to a file, never to a list: a hundred million ids pass through. With a file of the user's, every
accepted body is appended to FILE (a newline after each) and one line about the job to FILE.jsonl, body first,
both handed to the system before the reply: they are there even if this process is killed at once.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Final

from bulkjobs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bulkjobs.simulator.jobs import Job

__all__ = ["Books"]

# Small tests stay off the disk; a run of any size does not stay in memory.
_IN_MEMORY_BYTES: Final = 32 * 2**20


def _create(path: Path) -> IO[bytes]:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b")
    except FileExistsError:
        raise ConfigError(f"{path} exists already; books are never overwritten, name another file.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be made for the books: {error.strerror}.") from error


class Books:
    """Keeps the jobs' bodies and the counts.

    Raises:
        ConfigError: the file or its index exists already, or cannot be made.
    """

    def __init__(self, path: Path | None, *, client_utc: Callable[[float], float]) -> None:
        self._client_utc = client_utc
        self._index: IO[bytes] | None = None
        self._bodies: IO[bytes]
        if path is None:
            self._bodies = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by close()
        else:
            self._bodies = _create(path)
            self._index = _create(path.with_name(path.name + ".jsonl"))
        self._end = 0
        self._entries: list[tuple[Job, int, int]] = []
        self._positions: dict[str, int] = {}
        self._seen: set[bytes] = set()
        self.requests: Counter[str] = Counter()
        """By kind."""
        self.faults: Counter[str] = Counter()
        """By name."""
        self.submits_refused = 0
        """Submissions that the service answered with anything but a job, throttled ones included."""
        self.malformed = 0
        """Of these, those whose body was not a list of ids."""
        self.unauthorized = 0
        """Requests of any kind without a good token."""
        self.ids = 0
        self.repeated_bodies = 0
        """Jobs whose body was byte for byte that of an earlier job."""

    def close(self) -> None:
        """Lets go of the files; those of the user's stay."""
        self._bodies.close()
        if self._index is not None:
            self._index.close()

    @property
    def jobs(self) -> int:
        """Is the number of jobs made."""
        return len(self._entries)

    def add(self, job: Job, body: bytes) -> None:
        """Enters a job that was made."""
        position = self._end
        self._bodies.seek(position)
        self._bodies.write(body)
        self._bodies.write(b"\n")
        self._bodies.flush()
        self._end += len(body) + 1
        if self._index is not None:
            self._index.write(_line(self._facts(job, position, len(body))))
            self._index.flush()
        self._positions[job.job_id] = len(self._entries)
        self._entries.append((job, position, len(body)))
        self.ids += job.ids
        if job.sha256 in self._seen:
            self.repeated_bodies += 1
        self._seen.add(job.sha256)

    def body(self, job_id: str) -> bytes | None:
        """Gives the body a job was made of, or None if there is no such job."""
        if (entry := self._positions.get(job_id)) is None:
            return None
        _, position, length = self._entries[entry]
        self._bodies.seek(position)
        return self._bodies.read(length)

    def lines(self, now: float) -> Iterator[bytes]:
        """Gives one JSON line a job, in order of acceptance, those that appear later included."""
        for job, position, length in self._entries:
            state = "late" if now < job.accepted_at else job.state(now).word
            yield _line({**self._facts(job, position, length), "state": state})

    def _facts(self, job: Job, position: int, length: int) -> dict[str, str | int | float | None]:
        return {
            "jobId": job.job_id,
            "number": job.number,
            "ids": job.ids,
            "sha256": job.sha256.hex(),
            "acceptedAt": round(self._client_utc(job.accepted_at), 6),
            "webhook": job.webhook,
            "position": position,
            "length": length,
        }


def _line(facts: dict[str, str | int | float | None]) -> bytes:
    return json.dumps(facts).encode() + b"\n"
