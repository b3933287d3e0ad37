"""The jobs that others make on the same account, seen by the client in the job list and felt in slots and quota."""

from __future__ import annotations

import hashlib
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING, Final

from bulkjobs.simulator.messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulkjobs.simulator.books import Books
    from bulkjobs.simulator.config import ServiceConfig
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

    def around_submission(self, body: bytes) -> tuple[int, int]:
        """Draws how many jobs appear just before and just after a submission, made or not."""
        self._last_body = body
        many = self._number(self._config.foreign_per_submit)
        before = sum(self._draw.random() < 0.5 for _ in range(many))  # noqa: PLR2004 - either is as likely
        return before, many - before

    def after_page(self) -> int:
        """Draws how many jobs appear after a page of the job list was answered."""
        return self._number(self._config.foreign_per_page)

    def appear(self, many: int, now: float) -> None:
        """Makes some jobs, those that the account has room for."""
        for _ in range(many):
            ids = list(self._drawn_ids())
            try:
                self._jobs.check_room(len(ids))
            except Refusal:
                continue
            self.add(ids, now)

    def add(self, ids: Iterable[int], now: float, *, job_type: str | None = None) -> Job:
        """Makes a job, whether there is room or not; `job_type` is for one that is not of contacts."""
        pieces = [b"%d" % contact_id for contact_id in ids]
        body = b"\n".join(pieces)
        sha256 = hashlib.sha256(body).digest()
        job = self._jobs.draw(ids=len(pieces), sha256=sha256, at=now, foreign=True, job_type=job_type)
        self._books.add(job, body)
        self._jobs.enter(job, now)
        return job

    def _number(self, rate: float) -> int:
        # Without a rate nothing is drawn; else the same submissions have the same neighbours.
        return int(rate) + (self._draw.random() < rate % 1) if rate else 0

    def _drawn_ids(self) -> Iterable[int]:
        config, like = self._config, self._last_body.replace(b",", b"\n")
        size = self._draw.choice(config.foreign_sizes) if config.foreign_sizes else like.count(b"\n") + 1
        shared = (int(piece) for piece in like.split(b"\n") if piece.isdigit())
        taken = list(islice(shared, min(size, config.foreign_shared))) if config.foreign_shared else []
        return [*taken, *islice(self._ids, size - len(taken))]
