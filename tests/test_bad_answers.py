"""Bad answers, as a table: the command submits one chunk, a server on a real socket answers with exactly these bytes.

Whatever comes back, the chunk ends in the state that the table names, the exit code and the counts follow from it,
there is one submission and no more, and nobody sees a traceback.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
from pathlib import Path

import pytest
from support.rawhttp import RawHttp, answer

from bulkjobs.__main__ import main
from bulkjobs.ledger import read_run
from bulkjobs.model import ChunkState

GOLDEN = Path(__file__).parent / "golden"
JSON_TYPE = ("Content-Type: application/json",)
XML_TYPE = ("Content-Type: application/xml",)
CAP = 64 * 1024


def accepted(body: bytes, *headers: str, job="v9qh2to86kg85s03trag"):
    return "accepted", job, answer(body, headers=headers)


def held(body: bytes, why: str, *headers: str, status="200 OK"):
    return "held", why, answer(body, status=status, headers=headers)


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def with_id(literal: str) -> bytes:
    return b'{"jobId":' + literal.encode() + b',"status":"accepted","type":"contacts"}'


def xml(inner: str, before: str = "") -> bytes:
    return f'<?xml version="1.0"?>{before}<job>{inner}<status>accepted</status></job>'.encode()


def endless(head: bytes):
    def script(connection):
        connection.send(head)
        connection.send_for_ever(b"x" * 65_536)

    return script


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
GOOD = with_id('"abc"')
NO_ID = "its job id is not 1 to 64 letters"

ANSWERS = {
    "empty": held(b"", "it is empty"),
    "blanks only": held(b" \r\n\t ", "it is empty"),
    "white space first": accepted(golden("submission-white-space.json")),
    "white space before XML": accepted(golden("submission-white-space.xml")),
    "malformed JSON": held(b'{"jobId":"abc","status"', "unexpected end of data"),
    "trailing data": held(GOOD + b"}", "unexpected content after"),
    "malformed XML": held(b"<job><jobId>abc</job>", "mismatch"),
    "unquoted keys": held(golden("malformed-unquoted-keys.json"), "cannot be read"),
    "JSON array": held(b"[" + GOOD + b"]", "a list where an object should stand"),
    "jobId missing": held(b'{"status":"accepted"}', "it holds no job id"),
    "jobId null": held(with_id("null"), "it holds no job id"),
    "jobId number": held(with_id("12345"), NO_ID),
    "jobId float": held(with_id("99999999999999999999"), NO_ID),
    "jobId empty": held(with_id('""'), NO_ID),
    "jobId of 10 KB": held(with_id(f'"{"a" * 10_240}"'), NO_ID),
    "jobId with ../": held(with_id('"../../etc/passwd"'), NO_ID),
    "jobId with a newline": held(with_id(r'"abc\n"'), NO_ID),
    "jobId with an escape sequence": held(with_id(r'"\u001b[2Jabc"'), NO_ID),
    "jobId of other digits": held(with_id('"\u0661\u0662"'), NO_ID),
    "jobId list": held(with_id('["abc"]'), NO_ID),
    "jobId as deep XML": held(xml("<jobId><a>abc</a></jobId>"), NO_ID),
    "duplicate keys": held(b'{"jobId":"one","jobId":"two","status":"accepted"}', NO_ID),
    "duplicate keys, the first one the job": held(b'{"jobId":"one","jobId":null}', NO_ID),
    "duplicate keys, one escaped": held(b'{"jobId":"one","jobI\\u0064":"two"}', NO_ID),
    "duplicate keys that agree": accepted(b'{"jobId":"one","jobId":"one"}', job="one"),
    "duplicate keys of no weight": accepted(b'{"jobId":"one","status":"x","status":"accepted"}', job="one"),
    "duplicate keys, deep": held(b'{"jobId":"a","x":' * 1_000 + b"1" + b"}" * 1_000, "cannot be read"),
    "two spellings that disagree": held(b'{"jobId":"one","JOBID":"two"}', NO_ID),
    "other case of keys": accepted(b'{"JOBID":"abc","Status":"Accepted"}', job="abc"),
    "other root in XML": accepted(
        b"<whatever><jobId>abc</jobId><status>accepted</status></whatever>", job="abc"
    ),
    "two jobIds": held(xml("<jobId>one</jobId><jobId>two</jobId>"), NO_ID),
    "two jobIds in parts": held(b'{"jobId":"one","job":{"jobId":"two"}}', "several job ids"),
    "DOCTYPE, internal entity": held(
        xml("<jobId>&x;</jobId>", '<!DOCTYPE job [<!ENTITY x "abc">]>'), "DOCTYPE"
    ),
    "DOCTYPE, external entity": held(
        xml("<jobId>&x;</jobId>", '<!DOCTYPE job [<!ENTITY x SYSTEM "file:///etc/hostname">]>'), "DOCTYPE"
    ),
    "billion laughs": held(
        xml("<jobId>&l9;</jobId>", f'<!DOCTYPE job [<!ENTITY l0 "ha">{LAUGHS}]>'), "cannot be read"
    ),
    "quadratic blow-up": held(
        xml(f"<jobId>{'&x;' * 5_000}</jobId>", f'<!DOCTYPE job [<!ENTITY x "{"x" * 40_000}">]>'),
        "cannot be read",
    ),
    "XML labelled JSON": accepted(xml("<jobId>abc</jobId>"), *JSON_TYPE, job="abc"),
    "JSON labelled XML": accepted(GOOD, *XML_TYPE, job="abc"),
    "HTML login page": held(golden("malformed-login-page.html"), "cannot be read", "Content-Type: text/html"),
    "XHTML page": held(golden("malformed-page.xhtml"), "cannot be read"),
    "byte order mark": accepted(golden("submission-bom.json")),
    "UTF-16 XML": accepted(golden("submission-utf16.xml")),
    "UTF-16 JSON": held(GOOD.decode().encode("utf-16"), "cannot be read"),
    "invalid UTF-8": held(b'{"jobId":"abc","status":"\xff"}', "cannot be read"),
    "depth 100,000 of JSON": held(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "longer than any real one"),
    "depth 100,000 of XML": held(b"<a>" * 100_000 + b"</a>" * 100_000, "longer than any real one"),
    "as deep as fits, JSON": held(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "cannot be read"),
    "as deep as fits, arrays": held(b"[" * 30_000 + b"]" * 30_000, "cannot be read"),
    "as deep as fits, XML": held(b"<a>" * 9_000 + b"</a>" * 9_000, "cannot be read"),
    "1 GB with its length": (
        "held",
        "longer than any real one",
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"),
    ),
    "endless without a length": ("held", "longer than any real one", endless(b"HTTP/1.1 200 OK\r\n\r\n")),
    "a megabyte around a job": held(
        b'{"jobId":"abc","x":"' + b"y" * 2**20 + b'"}', "longer than any real one"
    ),
    "exactly the cap": accepted(GOOD + b" " * (CAP - len(GOOD)), job="abc"),
    "packed": held(gzip.compress(b'{"jobId":"abc"}'), "cannot be read", "Content-Encoding: gzip"),
    "packed bomb": held(gzip.compress(b"0" * 10**7), "cannot be read", "Content-Encoding: gzip"),
    "error object": held(golden("error-insideview.json"), "It says success, but holds an error"),
    "error object in XML": held(golden("error-demandbase.xml"), "It says success, but holds an error"),
    "error object beside a job": held(
        b'{"jobId":"abc","errorNumber":"400-1","message":"no"}', "It says success, but holds an error"
    ),
    "another job state": accepted(b'{"jobId":"abc","status":"on fire"}', job="abc"),
}
"""Name: state of the chunk, the job id or what its reason says, the server's script."""


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BULKJOBS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", "a-token-of-this-test")
    (tmp_path / "ids.txt").write_text("1\n2\n3\n")


def submit(server: RawHttp, *options: str) -> int:
    common = [
        "--on-unknown",
        "hold",
        "--rate",
        "none",
        "--max-active-jobs",
        "none",
        "--no-forecast",
        "--json",
        "--base-url",
        server.base_url,
    ]
    return main(["submit", "ids.txt", *common, *options])


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_of_any_kind_has_a_defined_result(case, tmp_path, capsys):
    state, said, script = ANSWERS[case]
    with RawHttp(script) as server:
        code = submit(server)
    out, err = capsys.readouterr()
    ended = json.loads(out)
    other = "held" if state == "accepted" else "accepted"
    assert code == ended["exit_code"] == (0 if state == "accepted" else 4)
    assert (ended["ids"]["read"], ended["ids"][state], ended["ids"][other]) == (3, 3, 0)
    assert [one.body for one in server.connections] == [b"1\n2\n3"]
    assert "Traceback" not in err
    assert all(line.isprintable() for line in err.splitlines())
    states = read_run(tmp_path / "ids.txt.run").counts.states
    if state == "accepted":
        (record,) = map(json.loads, (tmp_path / "ids.txt.run" / "jobs.jsonl").read_bytes().splitlines())
        assert (record["job_id"], states[ChunkState.DELIVERED].chunks) == (said, 1)
    else:
        (line,) = map(json.loads, (tmp_path / "ids.txt.run" / "held.jsonl").read_bytes().splitlines())
        assert said in line["reason"]
        assert (line["http_status"], states[ChunkState.HELD].chunks) == (200, 1)
        assert len(line["answer"]) <= 4 * 4096
        assert len(line["reason"]) <= 1000


@pytest.mark.parametrize("case", ["1 GB with its length", "endless without a length"])
def test_a_gigabyte_is_read_up_to_the_cap(case):
    """The connection is closed then: what the server got rid of beyond the cap lies in the system's buffers."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with RawHttp(ANSWERS[case][2]) as server:
        assert submit(server, "--quiet") == 4
    assert server.connections[0].sent < 32 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 64 * 1024


@pytest.mark.parametrize("status", ["201 Created", "202 Accepted", "204 No Content", "206 Partial Content"])
def test_other_kinds_of_success_are_read_alike(status, capsys):
    """204 has no body by definition: nothing proves a job."""
    with RawHttp(answer(b"" if "204" in status else GOOD, status=status)) as server:
        assert submit(server) == (4 if "204" in status else 0)
    assert json.loads(capsys.readouterr().out)["chunks"]["held"] == (1 if "204" in status else 0)


def test_an_entity_is_not_resolved_from_a_file(tmp_path, capsys):
    """Nothing that is on this machine gets into a report."""
    (tmp_path / "secret").write_text("fromthefile")
    entity = f'<!DOCTYPE job [<!ENTITY x SYSTEM "{tmp_path / "secret"}">]>'
    with RawHttp(answer(xml("<jobId>&x;</jobId>", entity))) as server:
        assert submit(server) == 4
    written = [path.read_bytes() for path in (tmp_path / "ids.txt.run").rglob("*") if path.is_file()]
    assert not any(b"fromthefile" in content for content in written)
    assert "fromthefile" not in "".join(capsys.readouterr())
