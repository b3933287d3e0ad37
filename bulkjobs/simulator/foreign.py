"""The jobs that others make on the same account, seen by the client in the job list and felt in slots and quota."""

from __future__ import annotations

import base64
import hashlib
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING, Final

from bulkjobs.simulator.endpoints import CONTACTS
from bulkjobs.simulator.idlist import OPAQUE_ID
from bulkjobs.simulator.messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulkjobs.simulator.books import Books
    from bulkjobs.simulator.config import ServiceConfig
    from bulkjobs.simulator.endpoints import Endpoint
    from bulkjobs.simulator.jobs import Job, JobTable

__all__ = ["Others"]

# Ids that no list of a test is likely to hold; still of at most 19 digits and within 63 bits.
_FIRST_ID: Final = 9_000_000_000_000_000_001


class Others:
    """Makes their jobs: so many for each submission or page of the job list, or one when a test says so."""

    def __init__(self, config: ServiceConfig, jobs: JobTable, books: Books) -> None:
        self._config = config
        self._jobs = jobs
        self._books = books
        self._draw = Random(f"{config.seed}/others")  # noqa: S311 - repeatable on purpose
        self._ids = count(_FIRST_ID)
        self._last_body = b"1"
        self._last_endpoint = CONTACTS

    def around_submission(self, body: bytes, endpoint: Endpoint) -> tuple[int, int]:
        """Draws how many jobs appear just before and just after a submission, made or not. They are of its kind."""
        self._last_body, self._last_endpoint = body, endpoint
        many = self._number(self._config.foreign_per_submit)
        before = sum(self._draw.random() < 0.5 for _ in range(many))  # noqa: PLR2004 - either is as likely
        return before, many - before

    def after_page(self) -> int:
        """Draws how many jobs appear after a page of the job list was answered."""
        return self._number(self._config.foreign_per_page)

    def appear(self, many: int, now: float) -> None:
        """Makes some jobs, those that the account has room for."""
        for _ in range(many):
            ids = self._drawn_ids()
            try:
                self._jobs.check_room(len(ids))
            except Refusal:
                continue
            self.add(ids, now, job_type=self._last_endpoint.job_type)

    def add(self, ids: Sequence[bytes], now: float, *, job_type: str | None = None) -> Job:
        """Makes a job, whether there is room or not; `job_type` is for one that is not of contacts."""
        body = b"\n".join(ids)
        sha256 = hashlib.sha256(body).digest()
        job = self._jobs.draw(ids=len(ids), sha256=sha256, at=now, foreign=True, job_type=job_type)
        self._books.add(job, body)
        self._jobs.enter(job, now)
        return job

    def _number(self, rate: float) -> int:
        # Without a rate nothing is drawn; else the same submissions have the same neighbours.
        return int(rate) + (self._draw.random() < rate % 1) if rate else 0

    def _drawn_ids(self) -> list[bytes]:
        config, like = self._config, self._last_body.replace(b",", b"\n")
        size = self._draw.choice(config.foreign_sizes) if config.foreign_sizes else like.count(b"\n") + 1
        opaque = self._last_endpoint.opaque
        shared = (
            piece
            for piece in like.split(b"\n")
            if (OPAQUE_ID.fullmatch(piece) if opaque else piece.isdigit())
        )
        taken = list(islice(shared, min(size, config.foreign_shared))) if config.foreign_shared else []
        return [*taken, *islice(self._new_ids(opaque=opaque), size - len(taken))]

    def _new_ids(self, *, opaque: bool) -> Iterator[bytes]:
        for number in self._ids:
            digits = b"%d" % number
            yield _opaque(digits) if opaque else digits


def _opaque(digits: bytes) -> bytes:
    """Gives 64 letters, digits, `_` and `-` that nobody else has."""
    return base64.urlsafe_b64encode(hashlib.blake2b(digits, digest_size=48).digest())
