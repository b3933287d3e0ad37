"""The two administrative questions: which jobs there are and what was used.

Source: vendor articles "[GET] - Bulk Jobs List" and "[GET] - API Usage". How lists of codes are written, the
name of the contact job's type and the API names were not seen: commas and `contactDetails` are assumed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from bulkjobs.simulator.answers import Answer
from bulkjobs.simulator.dates import created_text, period_bounds, period_text
from bulkjobs.simulator.endpoints import ENDPOINTS
from bulkjobs.simulator.messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bulkjobs.simulator.answers import Row
    from bulkjobs.simulator.config import ServiceConfig
    from bulkjobs.simulator.jobs import Job, JobTable

__all__ = ["job_list", "usage"]

_API: Final = "contactDetails"
_CONTACT_DETAILS: Final = 2
_TYPE_CODES: Final = {"companyDetails": 1, "enrich": 3, "contactLookup": 4, "targetContactDetails": 5}
_SERVED: Final = {endpoint.job_type for endpoint in ENDPOINTS}
_PER_PAGE: Final = 10
_MOST_PER_PAGE: Final = 50
_USAGE_LAG_S: Final = 300.0


def job_list(
    query: Mapping[str, str],
    jobs: JobTable,
    config: ServiceConfig,
    now: float,
    client_utc: Callable[[float], float],
) -> Answer:
    """Answers the Bulk Jobs List, oldest job first unless the configuration says otherwise.

    A period without dates means the current one; dates without a period are days.

    Raises:
        Refusal: 400, a parameter is not of the documented form.
    """
    page = _number(query, "page", 1, None)
    per_page = _number(query, "resultsPerPage", _PER_PAGE, _MOST_PER_PAGE)
    statuses, types = _codes(query, "jobStatuses"), _codes(query, "jobTypes")
    # Shifted to the zone of the list: from here on its days are those of UTC.
    shift_s = config.list_zone_h * 3600
    found = _in_period(
        query, jobs, lambda job: client_utc(job.accepted_at) + shift_s, client_utc(now) + shift_s
    )
    if config.list_lag_s:
        found = found[: bisect_right(found, now - config.list_lag_s, key=lambda job: job.accepted_at)]
    if config.list_keeps is not None:
        found = found[max(0, len(found) - config.list_keeps) :]
    if statuses is not None:
        found = [job for job in found if job.state(now).code in statuses]
    if types is not None:
        found = [job for job in found if _type_code(job) in types]
    if config.list_hides_type:
        found = [job for job in found if job.job_type not in _SERVED]
    if config.list_newest_first:
        found = found[::-1]
    shown = found[(page - 1) * per_page : page * per_page]
    rows: list[Row] = [
        {
            "jobId": job.job_id,
            "jobType": job.job_type or config.list_type,
            "jobStatus": job.state(now).word if config.list_status == "word" else job.state(now).code,
            "createdDate": created_text(
                client_utc(job.accepted_at), config.list_dates, zone_h=config.list_zone_h
            ),
            "creditsConsumed": job.debited(now),
        }
        for job in shown
    ]
    return Answer(root="bulkJobs", content=rows, wrapped=True)


def usage(
    query: Mapping[str, str],
    jobs: JobTable,
    config: ServiceConfig,
    now: float,
    client_utc: Callable[[float], float],
    *,
    jobs_url: str,
) -> Answer:
    """Answers API Usage; like the vendor's, it misses what was debited in the last five minutes.

    Raises:
        Refusal: 400, a parameter is missing or not of the documented form.
    """
    period, start, end = (_required(query, name) for name in ("period", "start", "end"))
    first, over = period_bounds(period, start, end)
    known_until = now - _USAGE_LAG_S
    per_date: dict[str, int] = defaultdict(int)
    consumed = 0
    for job in jobs.between(float("-inf"), float("inf"), key=lambda job: job.accepted_at):
        ids = job.debited(known_until)
        consumed += ids
        debited_utc = client_utc(job.starts_at)
        if ids and first <= debited_utc < over:
            per_date[period_text(debited_utc, period)] += ids
    quota = config.quota_ids
    return Answer(
        root="usage",
        content={
            "accountId": config.client_id,
            "period": period,
            "start": start,
            "end": end,
            "usageForAccount": [
                {"api": _API, "transactions": ids, "date": date} for date, ids in sorted(per_date.items())
            ],
            # The vendor always gives a number; without a quota it is one that nobody uses up.
            "creditsForAccount": [
                {"allocatedCredits": 10**12 if quota is None else quota, "consumedCredits": consumed}
            ],
            "bulkJobReferenceUrl": jobs_url,
        },
    )


def _in_period(
    query: Mapping[str, str], jobs: JobTable, created: Callable[[Job], float], today: float
) -> Sequence[Job]:
    period, start, end = query.get("period"), query.get("start"), query.get("end")
    if period and not (start or end):
        period_bounds(period, None, None)  # refuses an unknown period
        start = end = period_text(today, period)
    first, over = period_bounds(period or "day", start, end)
    return jobs.between(first, over, key=created)


def _type_code(job: Job) -> int | None:
    return _CONTACT_DETAILS if job.job_type is None else _TYPE_CODES.get(job.job_type)


def _required(query: Mapping[str, str], name: str) -> str:
    if not (value := query.get(name)):
        raise Refusal(400, "400-104", f"{name} should be present in the query.")
    return value


def _number(query: Mapping[str, str], name: str, default: int, most: int | None) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Refusal(400, "400-107", f"Please enter a valid number for {name}.")
    number = int(text)
    if number < 1:
        raise Refusal(400, "400-105", f"{name} should not be less than 1. Given value is {number}.")
    if most is not None and number > most:
        raise Refusal(400, "400-106", f"{name} should not be more than {most}. Given value is {number}.")
    return number


def _codes(query: Mapping[str, str], name: str) -> set[int] | None:
    text = query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9](,-?[0-9])*", text):
        raise Refusal(400, "400-103", f"Illegal values for the field {name}.")
    return {int(code) for code in text.split(",")}
