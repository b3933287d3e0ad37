"""The nonce of a chunk in its webhook address: whoever calls with it has had it from the server, for this chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from bulkjobs.wire.answer import find_job_hint

__all__ = ["calls_by_job", "nonce_of"]

_BYTES = 16
"""128 bits: nobody guesses one."""


def nonce_of(nonce_key: bytes, chunk: int) -> str:
    """Gives the nonce of a chunk. It is derived, so it need not be stored with each chunk."""
    return hashlib.blake2b(str(chunk).encode(), key=nonce_key, digest_size=_BYTES).hexdigest()


def calls_by_job(lines: Iterable[bytes], nonce_key: bytes, chunks: Collection[int]) -> dict[str, int]:
    """Reads which chunk's webhook a call about a job came in on.

    Args:
        lines: a log of calls, each with the address that was called and what was sent to it in one line.
        nonce_key: of the run.
        chunks: those of interest.

    Returns:
        The chunk by job id. A job that called for several chunks, or the other way round, is left out: one of the
        calls is not what it seems.
    """
    nonces = {nonce_of(nonce_key, chunk).encode(): chunk for chunk in chunks}
    pairs: set[tuple[str, int]] = set()
    for line in lines:
        job_id = find_job_hint(line)
        if job_id is not None:
            pairs.update((job_id, chunk) for nonce, chunk in nonces.items() if nonce in line)
    jobs = [job_id for job_id, _ in pairs]
    called = [chunk for _, chunk in pairs]
    return {job_id: chunk for job_id, chunk in pairs if jobs.count(job_id) == 1 and called.count(chunk) == 1}
