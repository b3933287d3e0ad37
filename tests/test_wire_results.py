"""The results of a job: which ids they are about, or nothing at all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asking import JOB, JSON, NOON, TOKEN, ask, steady, submit_id

from bulkjobs.endpoints import ENDPOINTS
from bulkjobs.errors import ConfigError
from bulkjobs.model import JobId, RequestKind
from bulkjobs.simulator import Service
from bulkjobs.wire import results
from bulkjobs.wire.answer import MalformedAnswer
from bulkjobs.wire.request import list_request, results_link_request, results_request
from bulkjobs.wire.results import ResultsLink, parse_results

BASE = "https://api.example.com/api/v1"
FILE = b"contactId,name\r\n11,Ada\r\n22,Bj\xc3\xb6rn\r\n"
IDS = frozenset([b"11", b"22"])


def gzipped(content: bytes) -> bytes:
    """Is the same at any time: it stands in the names of tests."""
    return gzip.compress(content, mtime=0)


def zipped(*files: bytes, method: int = zipfile.ZIP_DEFLATED, folder: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        if folder:
            archive.writestr("folder/", b"")
        for number, text in enumerate(files):
            archive.writestr(f"{number}.csv", text)
    return out.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        FILE,
        b"\xef\xbb\xbf" + FILE,
        FILE.replace(b"\r\n", b"\n"),
        FILE.replace(b"\r\n", b"\r"),
        FILE + b"\r\n\r\n",
        b'name,"contactId"\n"a,\nb",11\n"c ""d""", 22 \n',
        gzipped(FILE),
        gzipped(b"\xef\xbb\xbf" + FILE),
        gzipped(FILE[:20]) + gzipped(FILE[20:]),
        zipped(FILE),
        zipped(FILE, folder=True),
        zipped(FILE, method=zipfile.ZIP_STORED),
        zipped(FILE, method=zipfile.ZIP_BZIP2),
        zipped(FILE, method=zipfile.ZIP_LZMA),
    ],
)
def test_a_file_is_read_however_it_is_packed(body):
    assert parse_results(body) == IDS


@pytest.mark.parametrize(
    "name",
    [
        "contactId",
        "CONTACTID",
        "Contact ID",
        "contact_id",
        "contact-id",
        "id",
        "Id",
        "executiveId",
        "Input Id",
    ],
)
def test_the_column_is_found_in_any_usual_spelling(name):
    assert parse_results(f"name,{name}\na,11\nb,22\n".encode()) == IDS


def test_the_id_of_a_contact_comes_before_any_other_id():
    assert parse_results(b"id,inputId,contactId\n1,2,11\n3,4,22\n") == IDS


def test_a_row_without_an_id_is_about_nobody():
    """What the server writes for a contact that it does not have is not known."""
    assert parse_results(b"contactId,error\n11,\n,not found\n22,\n  ,\n") == IDS


@pytest.mark.parametrize("body", [b"contactId,name\n", b"contactId", b"contactId,name\n,\n"])
def test_a_file_without_rows_has_no_ids(body):
    assert parse_results(body) == frozenset()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"name,company\na,b\n",
        b"companyId,name\n11,a\n",
        b"contactId;name\n11;a\n",
        b"11\n22\n",
        b"name,contactId\na,11\nb\n",
        b"contactId\n11\nx22\n",
        b"contactId\n11\n22.0\n",
        b"contactId\n11\n-22\n",
        b"contactId\n11\n022\n",
        b"contactId\n11\nTotal\n",
        "contactId\n11\n\u0662\u0662\n".encode(),
        b"contactId\n" + b"9" * 20 + b"\n",
        b'contactId,x\n11,"' + b"a" * 200_000 + b'"\n',
        gzipped(FILE)[:-9],
        gzipped(FILE) + b"\0\0",
        gzipped(FILE) + gzipped(FILE)[:-4],
        zipped(),
        zipped(FILE, FILE),
        zipped(FILE)[:-30],
        zipped(FILE)[:40] + b"\xff" + zipped(FILE)[41:],
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"{}",
        b'{"resultsUrl": ""}',
        b'{"resultsUrl": 5}',
        b'{"status": "failed", "message": "no rows"}',
        b"<html><body><h1>Sign in</h1></body></html>",
        b"<a/>",
    ],
)
def test_what_does_not_tell_its_ids_is_refused(body):
    """An id too few or too many, and a job is taken for somebody else's."""
    with pytest.raises(MalformedAnswer) as caught:
        parse_results(body)
    assert str(caught.value).isprintable()


def encrypted() -> bytes:
    body = bytearray(zipped(FILE))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(mark) + at] |= 1
    return bytes(body)


def compressed_wrongly(method: int, packed: bytes) -> bytes:
    """A member of an archive that is not what the archive says."""
    body = bytearray(zipped(packed, method=zipfile.ZIP_STORED))
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        body[body.index(mark) + at] = method
    return bytes(body)


@pytest.mark.parametrize(
    "body",
    [
        encrypted(),
        compressed_wrongly(zipfile.ZIP_BZIP2, bz2.compress(FILE)[:10] + b"xxxxxxxxxxxx"),
        compressed_wrongly(zipfile.ZIP_LZMA, b"\x09\x04\x05\x00" + lzma.compress(FILE)),
        compressed_wrongly(zipfile.ZIP_LZMA, b"\x09"),
        compressed_wrongly(99, FILE),
    ],
    ids=["encrypted", "bzip2", "lzma", "lzma cut", "unknown method"],
)
def test_an_archive_that_lies_is_refused(body):
    with pytest.raises(MalformedAnswer):
        parse_results(body)


@pytest.mark.parametrize("packed", [gzipped, zipped, lambda text: gzipped(text[:99]) + gzipped(text)])
def test_a_file_that_grows_without_end_is_refused(packed, monkeypatch):
    monkeypatch.setattr(results, "_MOST_BYTES", 1_000)
    with pytest.raises(MalformedAnswer, match="too large"):
        parse_results(packed(b"contactId\n" + b"11\n" * 1_000))


@pytest.mark.parametrize(
    "body",
    [
        b'{"jobId": "a", "resultsUrl": "https://files.example.com/a.csv?x=1&y=2"}',
        b'{"bulkJob": {"RESULTSURL": "https://files.example.com/a.csv?x=1&y=2"}}',
        b" <r><resultsUrl>https://files.example.com/a.csv?x=1&amp;y=2</resultsUrl></r>",
        gzipped(b'{"resultsUrl": "https://files.example.com/a.csv?x=1&y=2"}'),
    ],
)
def test_a_document_says_where_the_file_is(body):
    assert parse_results(body) == ResultsLink(url="https://files.example.com/a.csv?x=1&y=2")


@pytest.mark.parametrize("packing", ["plain", "gzip", "zip"])
@pytest.mark.parametrize("shape", ["file", "link"])
def test_the_results_of_the_simulated_service_are_read_in_every_shape(packing, shape):
    with Service(steady(results_packing=packing, results_shape=shape)) as service:
        job_id = submit_id(service, NOON, b"11\n22")
        read = parse_results(ask(service, "GET", f"{JOB}/{job_id}/results", NOON + 99, headers=JSON).body)
        if shape == "link":
            assert isinstance(read, ResultsLink)
            path, _, query = read.url.partition("?")
            expires, signature = (part.partition("=")[2] for part in query.split("&"))
            path = "/" + path.split("/", 3)[3]
            read = parse_results(
                ask(service, "GET", path, NOON + 99, headers={}, Expires=expires, Signature=signature).body
            )
    assert read == IDS


def test_the_report_of_a_failed_job_is_no_results():
    with Service(steady(job_failure_rate=1.0)) as service:
        job_id = submit_id(service, NOON, b"11\n22")
        body = ask(service, "GET", f"{JOB}/{job_id}/results", NOON + 99).body
    with pytest.raises(MalformedAnswer):
        parse_results(body)


@given(st.binary() | st.text().map(str.encode) | st.binary().map(gzipped) | st.binary().map(zipped)
       | st.binary().map(lambda rest: b"contactId,x\n" + rest))  # fmt: skip
def test_any_bytes_are_ids_a_link_or_malformed(body):
    try:
        read = parse_results(body)
    except MalformedAnswer as error:
        said = str(error)
    else:
        said = ""
        assert isinstance(read, ResultsLink) or all(one.isdigit() and len(one) <= 19 for one in read)
    assert said.isprintable()


# The requests


def test_a_page_of_the_list_is_asked_for_by_days_and_without_lists_of_codes():
    request = list_request(
        base_url=BASE + "/", first_day="2026-01-30", last_day="2026-02-01", page=3, token=TOKEN, accept="json"
    )
    assert (request.kind, request.method, request.body) == (RequestKind.LIST, "GET", b"")
    assert request.url == (
        f"{BASE}/admin/jobs?period=day&start=2026-01-30&end=2026-02-01&page=3&resultsPerPage=50"
    )
    assert dict(request.headers)["accessToken"] == TOKEN


def test_results_are_asked_for_in_json_because_a_file_comes_as_a_file_all_the_same():
    request = results_request(ENDPOINTS["contacts"], base_url=BASE, job_id=JobId("a-b"), token=TOKEN)
    assert (request.kind, request.method) == (RequestKind.RESULTS, "GET")
    assert request.url == f"{BASE}/contact/job/a-b/results"
    assert dict(request.headers)["Accept"] == "application/json"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://files.example.com/a?Signature=x", BASE),
        ("https://api.example.com/a", BASE),
        ("https://files.example.com/a", "http://127.0.0.1:9/api"),
        ("http://127.0.0.1:9/_files/a", "http://127.0.0.1:9/api"),
    ],
)
def test_a_link_is_followed_without_the_token(url, base):
    request = results_link_request(url, base_url=base)
    assert request.url == url
    assert "accesstoken" not in {name.lower() for name, _ in request.headers}
    assert TOKEN not in str(request)


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example.com/a",
        "http://api.example.com/a",
        "http://127.0.0.1:10/a",
        "http://127.0.0.1/a",
        "//127.0.0.1:9/a",
        "/a",
        "",
        "file:///etc/passwd",
        "ftp://127.0.0.1:9/a",
        "https://",
        "https:///a",
        "https://[::1/a",
        "https://host:port/a",
        "https://host/a b",
        "https://host/a\r\nX: y",
        "https://host/\u00e4",
    ],
)
def test_a_link_to_anywhere_else_is_refused(url):
    with pytest.raises(ConfigError) as caught:
        results_link_request(url, base_url="http://127.0.0.1:9/api")
    assert "https" in str(caught.value) or "address" in str(caught.value)
