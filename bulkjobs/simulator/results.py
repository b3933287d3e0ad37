"""The results of a job: one row an id, made from the id alone, as a file or as a link to one.

Which of the two the contact job uses today, the columns, their order and what becomes of unknown ids were not
seen. Source: vendor articles on family tree and target list jobs for the link, public client code for the file.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zipfile
from typing import TYPE_CHECKING, Final

from bulkjobs.simulator.answers import Answer
from bulkjobs.simulator.jobs import State
from bulkjobs.simulator.messages import Refusal, SimReply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bulkjobs.simulator.config import ServiceConfig
    from bulkjobs.simulator.jobs import Job

__all__ = ["FILES", "check_link", "check_ready", "descriptor", "has_row", "results_file"]

FILES: Final = "/_files/"

_COLUMNS: Final = (
    "firstName",
    "lastName",
    "title",
    "email",
    "emailValidationStatus",
    "phone",
    "companyId",
    "companyName",
)
# Two lists of lengths that share no divisor; letters beyond ASCII and a comma stand there on purpose.
_FIRST_NAMES: Final = (
    "Ada",
    "Björn",
    "Chloé",
    "Dmitri",
    "Eve",
    "Fatima",
    "Gizem",
    "Henry",
    "Ines",
    "Jun",
    "Kofi",
)
_LAST_NAMES: Final = ("Smith", "O'Neil", "Müller", "García", "Ito", "Adeyemi", "Nguyễn")
_TITLES: Final = ("Chief Executive Officer", "VP, Sales", 'Director "EMEA"', "Engineer", "")
_COMPANIES: Final = ("Acme, Inc.", "Example GmbH & Co. KG", 'The "Best" Company', "Ōsaka Trading", "Initech")
_VALIDATION: Final = ("ValidEmail", "ValidDomain", "ValidEmail", "")

_SCATTER: Final = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: ids in a row end up far apart
_64_BITS: Final = 2**64


def check_ready(job: Job, config: ServiceConfig, now: float) -> None:
    """Passes when there is something to download: rows of a finished job, or the report of a failed one.

    Raises:
        Refusal: the job goes on, or it was aborted.
    """
    match job.state(now):
        case State.ABORTED:
            raise Refusal(404, "404-153", "The job was aborted; it has no results.")
        case State.ACCEPTED | State.PROCESSING as state:
            status = config.results_early
            raise Refusal(
                status, f"{status}-155", f"The results are not available: the job's status is {state.word}."
            )
        case _:
            return


def descriptor(
    job: Job, config: ServiceConfig, now: float, *, host: str, job_type: str, created: str
) -> Answer:
    """Describes the results with a link that needs no token and is good for a while."""
    expires = int(now + config.results_link_ttl_s)
    signature = _signature(job.job_id, expires, config)
    return Answer(
        root="bulkJob",
        content={
            "jobId": job.job_id,
            "jobType": job_type,
            "jobStatus": job.state(now).word,
            "createdDate": created,
            "creditsConsumed": job.debited(now),
            "resultsUrl": f"http://{host}{FILES}{job.job_id}.csv?Expires={expires}&Signature={signature}",
        },
    )


def check_link(path: str, query: Mapping[str, str], config: ServiceConfig, now: float) -> str:
    """Gives the id of the job whose file a link leads to.

    Raises:
        Refusal: 403, nobody handed the link out, or it has expired.
    """
    job_id = path.removeprefix(FILES).removesuffix(".csv")
    expires = query.get("Expires", "")
    good = expires.isdecimal() and query.get("Signature") == _signature(job_id, int(expires), config)
    if not good or now >= int(expires):
        raise Refusal(403, "403-151", "The link is not good, or not any more.")
    return job_id


def _signature(job_id: str, expires: int, config: ServiceConfig) -> str:
    text = f"{config.seed}/link/{job_id}/{expires}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def results_file(job: Job, body: bytes, config: ServiceConfig, now: float) -> SimReply:
    """Makes the file of a job that has ended."""
    rows = _report() if job.state(now) is State.FAILED else _rows(body, config)
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return _packed(text.getvalue().encode(), job.job_id, config)


def _report() -> Iterator[tuple[str | int, ...]]:
    yield "status", "errorNumber", "message"
    yield "failed", "500-152", "The job could not be processed."


def has_row(contact_id: int, config: ServiceConfig) -> bool:
    """Tells whether the service returns a row for an id."""
    at = (contact_id * _SCATTER + config.seed) % _64_BITS
    return at >= config.results_missing * _64_BITS


def _rows(body: bytes, config: ServiceConfig) -> Iterator[tuple[str | int, ...]]:
    yield (config.results_id_column, *_COLUMNS)
    for piece in body.replace(b",", b"\n").split(b"\n"):
        contact_id = _number(piece)
        if has_row(contact_id, config):
            yield (piece.decode("ascii"), *_row(contact_id))


def _number(piece: bytes) -> int:
    """Gives the number that all else about a contact follows from: its id, or one made of an opaque id."""
    if piece.isdigit():
        return int(piece)
    return int.from_bytes(hashlib.blake2b(piece, digest_size=8).digest(), "big")


def _row(contact_id: int) -> tuple[str | int, ...]:
    company = contact_id % 99_991
    return (
        _FIRST_NAMES[contact_id % len(_FIRST_NAMES)],
        _LAST_NAMES[contact_id % len(_LAST_NAMES)],
        _TITLES[contact_id % len(_TITLES)],
        f"contact.{contact_id}@example.com",
        _VALIDATION[contact_id % len(_VALIDATION)],
        f"+1 555 {contact_id % 10_000:04d}",
        company,
        _COMPANIES[company % len(_COMPANIES)],
    )


def _packed(text: bytes, job_id: str, config: ServiceConfig) -> SimReply:
    match config.results_packing:
        case "plain":
            body, content_type, name = text, "text/csv", f"{job_id}.csv"
        case "gzip":
            body, content_type, name = gzip.compress(text, 1, mtime=0), "application/gzip", f"{job_id}.csv.gz"
        case "zip":
            body, content_type, name = _zipped(text, f"{job_id}.csv"), "application/zip", f"{job_id}.zip"
    headers = (("Content-Disposition", f'attachment; filename="{name}"'),)
    return SimReply(status=200, body=body, content_type=content_type, headers=headers)


def _zipped(text: bytes, name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            zipfile.ZipInfo(name), text, compress_type=zipfile.ZIP_DEFLATED
        )  # ZipInfo: no date of today
    return out.getvalue()
