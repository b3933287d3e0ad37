"""What really happened: the jobs with their bodies, the submissions, and counts. A judge compares a story with it.

Bodies go to a file, never to a list: a hundred million ids pass through. With a file of the user's there are three:

    FILE                every body a job was made of, a newline after each
    FILE.jsonl          one line about each job, written after its body; jobs that others made have `foreign` true
    FILE.posts.jsonl    one line about each submission that was received whole, whatever became of it

All are handed to the system before the reply: they are there even if this process is killed at once. When one of
them cannot be written, what was written of the entry is taken back and the job is not made.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Final

from bulkjobs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bulkjobs.simulator.jobs import Job

__all__ = ["Books", "Post"]

# Small tests stay off the disk; a run of any size does not stay in memory.
_IN_MEMORY_BYTES: Final = 32 * 2**20


def _create(path: Path) -> IO[bytes]:
    try:
        # Unbuffered: an entry is either with the system or not written, and a failed write leaves nothing behind.
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b", buffering=0)
    except FileExistsError:
        raise ConfigError(f"{path} exists already; books are never overwritten, name another file.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be made for the books: {error.strerror}.") from error


class _Appended:
    """Is a file that only grows, entry by entry, each there as a whole or not at all."""

    def __init__(self, file: IO[bytes], *, sync: bool) -> None:
        self._file = file
        self._sync = sync
        self._end = 0

    def close(self) -> None:
        self._file.close()

    def append(self, entry: bytes) -> int:
        """Adds an entry and gives the position at which it stands.

        Raises:
            OSError: it cannot be written; the file is as it was.
        """
        position = self._end
        rest = memoryview(entry)
        self._file.seek(position)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            if self._sync:
                os.fdatasync(self._file.fileno())
        except OSError:
            self._file.truncate(position)
            raise
        self._end = position + len(entry)
        return position

    def take_back(self, position: int) -> None:
        """Removes the entries from a position on."""
        self._file.truncate(position)
        self._end = position

    def read(self, position: int, length: int) -> bytes:
        self._file.seek(position)
        return self._file.read(length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Is one submission, for the journal."""

    at: float
    number: int
    """Order of arrival, from 1, refused ones included."""
    body_bytes: int
    sha256: bytes
    ids: int | None
    """None when the body is not a list of ids."""
    status: int | None
    """What the service decided on; None when it never decided because the connection ended before."""
    job_id: str | None
    wire: str
    fault: str | None


class Books:
    """Keeps the jobs' bodies, the journal and the counts.

    Raises:
        ConfigError: one of the files exists already, or cannot be made.
    """

    def __init__(
        self, path: Path | None, *, client_utc: Callable[[float], float], sync: bool = False
    ) -> None:
        self._client_utc = client_utc
        self._index: _Appended | None = None
        self._journal: _Appended | None = None
        if path is None:
            # Closed by close().
            self._bodies = _Appended(SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES), sync=False)  # noqa: SIM115
        else:
            self._bodies = _Appended(_create(path), sync=sync)
            self._index = _Appended(_create(path.with_name(path.name + ".jsonl")), sync=sync)
            self._journal = _Appended(_create(path.with_name(path.name + ".posts.jsonl")), sync=sync)
        self._jobs: dict[str, Job] = {}  # in order of acceptance
        self._seen: set[bytes] = set()
        self.requests: Counter[str] = Counter()
        """By kind."""
        self.faults: Counter[str] = Counter()
        """By name."""
        self.submits_refused = 0
        """Submissions that the service answered with anything but a job, throttled ones included."""
        self.malformed = 0
        """Of the refused ones, those whose body was not a list of ids."""
        self.bad_ids = 0
        """Of the refused ones, those with a well-formed id that is bad."""
        self.too_large = 0
        """Of the refused ones, those whose body had too many bytes."""
        self.unauthorized = 0
        """Requests of any kind without a good token."""
        self.last_job_id: str | None = None
        """Of the client's last job."""
        self.jobs = 0
        """Jobs made for the client; others' are counted apart."""
        self.ids = 0
        self.repeated_bodies = 0
        """The client's jobs whose body was byte for byte that of an earlier one of its jobs."""
        self.foreign_jobs = 0
        self.foreign_ids = 0

    def close(self) -> None:
        """Lets go of the files; those of the user's stay."""
        for file in (self._bodies, self._index, self._journal):
            if file is not None:
                file.close()

    def add(self, job: Job, body: bytes) -> None:
        """Enters a job that is about to be made.

        Raises:
            OSError: it cannot be written; the books are as they were.
        """
        job.position, job.length = self._bodies.append(body + b"\n"), len(body)
        if self._index is not None:
            try:
                self._index.append(_line(self._facts(job)))
            except OSError:
                self._bodies.take_back(job.position)
                raise
        self._jobs[job.job_id] = job
        if job.foreign:
            self.foreign_jobs += 1
            self.foreign_ids += job.ids
            return
        self.last_job_id = job.job_id
        self.jobs += 1
        self.ids += job.ids
        self.repeated_bodies += job.sha256 in self._seen
        self._seen.add(job.sha256)

    def note(self, post: Post) -> None:
        """Enters a submission in the journal; without a file of the user's there is none.

        Raises:
            OSError: it cannot be written.
        """
        if self._journal is None:
            return
        self._journal.append(
            _line(
                {
                    "at": round(self._client_utc(post.at), 6),
                    "number": post.number,
                    "bytes": post.body_bytes,
                    "sha256": post.sha256.hex(),
                    "ids": post.ids,
                    "status": post.status,
                    "jobId": post.job_id,
                    "wire": post.wire,
                    "fault": post.fault,
                }
            )
        )

    def body(self, job_id: str) -> bytes | None:
        """Gives the body a job was made of, or None if there is no such job."""
        if (job := self._jobs.get(job_id)) is None:
            return None
        return self._bodies.read(job.position, job.length)

    def lines(self, now: float) -> Iterator[bytes]:
        """Gives one JSON line a job, in order of acceptance, those that appear later included."""
        for job in self._jobs.values():
            state = "late" if now < job.accepted_at else job.state(now).word
            yield _line({**self._facts(job), "state": state})

    def _facts(self, job: Job) -> dict[str, str | int | float | None]:
        return {
            "jobId": job.job_id,
            "number": job.number,
            "ids": job.ids,
            "sha256": job.sha256.hex(),
            "acceptedAt": round(self._client_utc(job.accepted_at), 6),
            "webhook": job.webhook,
            "position": job.position,
            "length": job.length,
            "foreign": job.foreign,
        }


def _line(facts: Mapping[str, str | int | float | None]) -> bytes:
    return json.dumps(facts).encode() + b"\n"
