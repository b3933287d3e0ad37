"""The results of a job: what can be downloaded, when, and in which form."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from urllib.parse import parse_qsl, urlsplit

import lxml.etree
import pytest
from support.asking import JOB, JSON, NOON, TOKEN, ask, content, status, steady, submit_id

from bulkjobs.simulator import FaultPlan, Limit, Service, Wire
from bulkjobs.simulator.results import has_row

BODY = b"\n".join(b"%d" % number for number in range(8_802_000, 8_803_000))


def results(service, job_id, now=60, **more):
    return ask(service, "GET", f"{JOB}/{job_id}/results", now, **more)


def table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def follow(service, url, now):
    at = urlsplit(url)
    return ask(service, "GET", at.path, now, headers={}, **dict(parse_qsl(at.query)))


def test_a_finished_job_gives_a_file_with_a_header_and_a_row_for_each_id():
    with Service(steady()) as service:
        job_id = submit_id(service, 0, BODY)
        reply = results(service, job_id)
        again = results(service, job_id, 1000)
    found = table(reply.body)
    assert [row["contactId"] for row in found] == BODY.decode().split()
    assert {"firstName", "lastName", "email", "emailValidationStatus"} <= set(found[0])
    assert {row["emailValidationStatus"] for row in found} == {"ValidEmail", "ValidDomain", ""}
    assert (reply.status, reply.content_type) == (200, "text/csv")
    assert dict(reply.headers) == {"Content-Disposition": f'attachment; filename="{job_id}.csv"'}
    assert again.body == reply.body


def test_ids_separated_by_commas_give_rows_as_well():
    with Service(steady()) as service:
        assert len(table(results(service, submit_id(service, 0, b"5,6\n7")).body)) == 3


def test_the_rows_of_an_id_are_the_same_in_every_job():
    with Service(steady()) as service:
        first, second = (
            table(results(service, submit_id(service, 0, body)).body) for body in (b"5,6", b"6,7")
        )
    assert first[1] == second[0]


@pytest.mark.parametrize(("config", "expected"), [({}, 400), ({"results_early": 404}, 404)])
def test_there_are_no_results_before_the_job_has_finished(config, expected):
    with Service(steady(queue_s=10, **config)) as service:
        job_id = submit_id(service, 0)
        early = [results(service, job_id, at) for at in (0, 10, 69.9)]
        assert [reply.status for reply in early] == [expected] * 3
        assert "processing" in content(early[1])["message"]
        assert results(service, job_id, 70).status == 200


def test_the_file_of_a_failed_job_is_an_error_report():
    with Service(steady(job_failure_rate=1.0)) as service:
        reply = results(service, submit_id(service, 0))
    (row,) = table(reply.body)
    assert (reply.status, row["status"]) == (200, "failed")


def test_an_aborted_or_unknown_job_has_no_results():
    with Service(steady(queue_s=10)) as service:
        job_id = submit_id(service, 0)
        ask(service, "DELETE", f"{JOB}/{job_id}", 1)
        assert results(service, job_id, 1000).status == 404
        assert results(service, "nosuchjob", 1000).status == 404


def test_a_share_of_the_ids_has_no_row():
    config = steady(results_missing=0.1, results_id_column="Contact Id")
    with Service(config) as service:
        found = [int(row["Contact Id"]) for row in table(results(service, submit_id(service, 0, BODY)).body)]
    assert found == [number for number in map(int, BODY.split()) if has_row(number, config)]
    assert 850 < len(found) < 950


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1000), (1.0, 0)])
def test_all_or_none_of_the_ids_have_a_row(share, expected):
    with Service(steady(results_missing=share)) as service:
        assert len(table(results(service, submit_id(service, 0, BODY)).body)) == expected


def test_results_can_come_packed():
    with Service(steady()) as service:
        plain = results(service, submit_id(service, 0)).body
    with Service(steady(results_packing="gzip")) as service:
        packed = results(service, submit_id(service, 0))
    assert gzip.decompress(packed.body) == plain
    assert packed.headers[0][1].endswith('.csv.gz"')
    with Service(steady(results_packing="zip")) as service:
        job_id = submit_id(service, 0)
        packed = results(service, job_id)
    with zipfile.ZipFile(io.BytesIO(packed.body)) as archive:
        assert archive.namelist() == [f"{job_id}.csv"]
        assert archive.read(f"{job_id}.csv") == plain


def test_results_can_come_as_a_link_that_needs_no_token():
    with Service(steady(results_shape="link")) as service:
        job_id = submit_id(service, NOON)
        reply = results(service, job_id, NOON + 60, headers=JSON | {"host": "127.0.0.1:9"})
        answer = content(reply)
        file = follow(service, answer["resultsUrl"], NOON + 61)
        assert service.totals()["requests"]["file"] == 1
    assert answer.pop("resultsUrl").startswith(f"http://127.0.0.1:9/_files/{job_id}.csv?")
    assert answer == {
        "jobId": job_id,
        "jobType": "contactDetails",
        "jobStatus": "finished",
        "createdDate": "2026-03-10T12:00:00.000+00:00",
        "creditsConsumed": 3,
    }
    assert len(table(file.body)) == 3


def test_the_description_of_a_link_in_xml_is_a_bulk_job():
    with Service(steady(results_shape="link")) as service:
        reply = results(service, submit_id(service, 0), headers={"accesstoken": TOKEN})
        root = lxml.etree.fromstring(reply.body)
        assert root.tag == "bulkJob"
        assert follow(service, root.findtext("resultsUrl"), 60).status == 200


def test_a_link_expires_and_cannot_be_made_up():
    with Service(steady(results_shape="link", results_link_ttl_s=100)) as service:
        url = content(results(service, submit_id(service, 0)))["resultsUrl"]
        assert follow(service, url, 159).status == 200
        assert follow(service, url, 160).status == 403
        assert follow(service, url.replace("Expires=160", "Expires=999"), 159).status == 403
        assert follow(service, url.partition("?")[0], 159).status == 403


def test_results_count_towards_the_limit_like_every_request_and_files_do_not():
    with Service(steady(rate=Limit(count=3, window_s=300), results_shape="link")) as service:
        job_id = submit_id(service, 0)
        url = content(results(service, job_id))["resultsUrl"]
        assert {follow(service, url, 60).status for _ in range(10)} == {200}
        assert results(service, job_id).status == 200
        assert results(service, job_id).status == 429
        assert follow(service, url, 61).status == 200


def test_results_cost_no_quota():
    with Service(steady(quota_ids=3)) as service:
        job_id = submit_id(service, 0)
        assert [results(service, job_id).status for _ in range(3)] == [200] * 3
        assert status(service, job_id, 61)["status"] == "finished"


def test_a_download_can_be_cut():
    with Service(steady(faults=FaultPlan.of("results:cut_after@1"))) as service:
        job_id = submit_id(service, 0)
        assert [results(service, job_id).wire for _ in range(2)] == [Wire.CUT, Wire.ANSWER]
