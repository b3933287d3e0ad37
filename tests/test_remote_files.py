"""Ids in objects of a bucket and in files of a web server: read as files here are, whatever the way there does."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import re
import traceback
from contextlib import aclosing
from dataclasses import replace

import pyarrow as pa
import pytest
import uvloop
from pyarrow import parquet
from support.rawhttp import RawHttp, unused_port
from support.s3 import SECRET_KEY
from test_client import SETTINGS, Office

from bulkjobs import ConfigError, SourceChanged, SourceError
from bulkjobs.audit.auditing import audit_run
from bulkjobs.audit.explaining import explain_id
from bulkjobs.clock import SystemClock
from bulkjobs.rundir import default_run_dir
from bulkjobs.sources import buckets, open_sources, web

SECRET = "cAnArY-s1gn4tur3"
TEXT = b"".join(b"%d\n" % number for number in range(1_000_000, 1_400_000))
"""Some 3 MB: several pieces of an object, and more than a socket holds."""


def packed(text: bytes) -> bytes:
    return gzip.compress(text, 1)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """No test waits between two tries."""
    monkeypatch.setattr(buckets, "_PAUSE_S", 0.0)
    monkeypatch.setattr(web, "_PAUSE_S", 0.0)


def on_loop(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def read(source, mark=None) -> bytes:
    async def main():
        async with aclosing(source.blocks() if mark is None else source.blocks_after(mark)) as blocks:
            return b"".join([block async for block in blocks])

    return on_loop(main())


class Web:
    """A web server with one file, and with what can go wrong."""

    def __init__(self, content: bytes, *, ranges: bool = True, mark: str | None = 'ETag: "one"') -> None:
        self.content = content
        self.ranges = ranges
        self.mark = mark
        self.lose_after: list[int] = []
        """Bytes of the next answers after which the connection is lost."""
        self.refuse: list[str] = []
        """What the next requests are answered instead."""
        self.asked: list[str] = []
        """The ranges that were asked for, as they stood in the requests."""
        self.heads: list[bytes] = []
        self.server = RawHttp(self._answer)

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *error):
        self.server.__exit__(*error)

    def url(self, path="/lists/ids.txt", login=""):
        return f"http://{login}127.0.0.1:{self.server.port}{path}"

    def _answer(self, connection):
        self.heads.append(connection.head)
        found = re.search(rb"\r\nrange: bytes=(\d+)-(\d*)", connection.head, re.IGNORECASE)
        first = found is not None and found[2] == b"0"
        if not first:
            self.asked.append("" if found is None else found[1].decode())
        if self.refuse and not first:
            status = self.refuse.pop(0)
            connection.send(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        begin, end = 0, len(self.content)
        head = ["HTTP/1.1 200 OK"]
        if self.ranges and found is not None:
            begin, end = int(found[1]), int(found[2]) + 1 if found[2] else end
            if begin >= len(self.content):
                connection.send(b"HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            head = ["HTTP/1.1 206 Partial", f"Content-Range: bytes {begin}-{end - 1}/{len(self.content)}"]
        head += [f"Content-Length: {end - begin}", "Connection: close", *([self.mark] if self.mark else [])]
        connection.send(("\r\n".join(head) + "\r\n\r\n").encode())
        if self.lose_after and not first:
            end = begin + self.lose_after.pop(0)
        connection.send(self.content[begin:end])


@pytest.fixture
def bucket(s3, monkeypatch):
    """Has a bucket of its own on the S3 server, and the environment that leads there."""
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    name = f"lists-{random.randrange(10**12)}"
    s3.put(name)
    return lambda key, body: (s3.put(f"{name}/{key}", body), f"s3://{name}/{key}")[1]


def one(address):
    [source] = open_sources([address])
    return source


# --- what is read ---


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "gzip"])
def test_an_object_is_read_whole(bucket, pack):
    source = one(bucket("deep/in/ids.txt", pack(TEXT)))
    assert read(source) == TEXT
    assert source.size_bytes == source.position_bytes == len(pack(TEXT))


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "gzip"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_of_a_web_server_is_read_whole(pack, ranges):
    with Web(pack(TEXT), ranges=ranges) as server:
        source = one(server.url())
        assert read(source) == TEXT
        assert source.size_bytes == source.position_bytes == len(pack(TEXT))


def test_what_is_empty_has_no_ids(bucket):
    assert read(one(bucket("nothing.txt", b""))) == b""
    with Web(b"") as server:
        assert read(one(server.url())) == b""


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("2026/", ["2026/a.txt", "2026/b.csv", "2026/c/d.txt"]),
        ("2026/*.txt", ["2026/a.txt"]),
        ("2026/**/*.txt", ["2026/a.txt", "2026/c/d.txt"]),
        ("202?/[bc]*", ["2026/b.csv"]),
    ],
)
def test_a_prefix_and_a_pattern_give_their_objects_in_order(bucket, pattern, found):
    for key in ("2026/c/d.txt", "2026/b.csv", "2026/a.txt", "2026/", "20260/x.txt"):
        address = bucket(key, b"1\n")
    root = address.removesuffix("20260/x.txt")
    assert [source.name for source in open_sources([root + pattern])] == [root + key for key in found]
    with pytest.raises(SourceError, match="No object matches"):
        open_sources([root + "2027/*"])


def test_a_column_of_a_table_elsewhere_is_read(bucket):
    """Parquet too, which is read from its end."""
    ids = [700_001 + at for at in range(100_000)]
    text = b"name;id\n" + b"".join(b"x;%d\n" % one for one in ids)
    stored = io.BytesIO()
    parquet.write_table(pa.table({"id": ids, "name": ["x" * 30] * len(ids)}), stored, row_group_size=10_000)
    wanted = b"".join(b"%d\n" % one for one in ids)
    for content in (text, stored.getvalue()):
        with Web(content) as server:
            for address in (bucket("table", content), server.url()):
                [source] = open_sources([address], column="id")
                assert read(source).lstrip() == wanted


# --- a reading that goes on ---


def test_an_object_is_read_on_behind_a_mark(bucket):
    source = one(bucket("ids.txt", TEXT))
    assert read(source, str(len(TEXT) - 9)) == TEXT[-9:]


def test_a_web_file_is_read_on_behind_a_mark_without_what_stands_before():
    with Web(TEXT) as server:
        assert read(one(server.url()), str(len(TEXT) - 9)) == TEXT[-9:]
        assert server.asked[-1] == str(len(TEXT) - 9)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_is_lost_goes_on_at_the_byte_reached(ranges):
    """Also with a server that can only begin at the beginning."""
    with Web(TEXT, ranges=ranges) as server:
        server.lose_after = [1, 1_000_000, 0, 2_000_000 if not ranges else 500_000]
        server.refuse = ["503 Busy"]
        assert read(one(server.url())) == TEXT
        assert len(server.asked) > 4


def test_a_connection_that_is_always_lost_ends_the_reading_with_what_was_read():
    got = []

    async def main(source):
        async for block in source.blocks():
            got.append(block)

    with Web(TEXT) as server:
        server.lose_after = [1_500_000, *[0] * 100]
        with pytest.raises(
            SourceError, match="cannot be read beyond byte 1,500,000: the connection was closed early"
        ):
            on_loop(main(one(server.url())))
    assert b"".join(got) == TEXT[:1_500_000]


def test_an_object_that_changes_while_it_is_read_ends_the_reading(bucket):
    address = bucket("ids.txt", TEXT)
    source = one(address)
    bucket("ids.txt", TEXT[:-1] + b"0")
    with pytest.raises(SourceChanged, match="changed while it was read"):
        read(source)
    assert one(address).fingerprint != source.fingerprint


def test_a_web_file_that_changes_while_it_is_read_ends_the_reading():
    with Web(TEXT) as server:
        source = one(server.url())
        server.mark = 'ETag: "two"'
        with pytest.raises(SourceChanged, match="changed while it was read"):
            read(source)


@pytest.mark.parametrize(
    ("mark", "fingerprint"),
    [
        ('ETag: W/"x"', '2 bytes, ETag W/"x"'),
        ("Last-Modified: Wed, 25 Nov 2026 09:00:00 GMT", "2 bytes, ETag Wed, 25 Nov 2026 09:00:00 GMT"),
        (None, None),
    ],
)
def test_the_fingerprint_is_what_the_server_tells(mark, fingerprint):
    with Web(b"1\n", mark=mark) as server:
        source = one(server.url())
        assert source.fingerprint == fingerprint
        assert read(source) == b"1\n"


def test_any_part_of_a_file_can_be_read_in_any_order(bucket):
    """As those who read tables do, whose beginning is at the end."""
    rng = random.Random(5)
    with Web(TEXT) as server:
        blobs = [buckets.objects_at(bucket("ids.txt", TEXT))[0], web.WebFile(server.url())]
        for blob in blobs:
            with blob.open() as file:
                for _ in range(8):
                    at = rng.randrange(len(TEXT))
                    assert file.seek(at - len(TEXT), 2) == at
                    assert file.read(100) == TEXT[at : at + 100]
                assert file.seek(len(TEXT)) == file.tell() == len(TEXT)
                assert file.read(1) == b""


# --- what cannot be read ---


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "401 Unauthorized", "500 Oops"])
def test_a_server_that_gives_nothing_is_told_by_its_answer(status):
    with Web(TEXT) as server:
        source = one(server.url(f"/ids.txt?sig={SECRET}"))
        server.refuse = [status] * 9
        with pytest.raises(SourceError, match=f"the server answers {status[:3]}") as caught:
            read(source)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_object_that_is_not_there_is_told(bucket):
    address = bucket("ids.txt", b"1\n")
    with pytest.raises(SourceError, match="there is no such object or bucket"):
        open_sources([address + ".gz"])


def test_a_store_that_cannot_be_reached_is_told_without_the_secret(monkeypatch):
    monkeypatch.setattr(buckets, "_REQUEST_RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with pytest.raises(SourceError, match="s3://lists/ids.txt cannot be read: ") as caught:
        open_sources(["s3://lists/ids.txt"])
    assert SECRET_KEY not in "".join(traceback.format_exception(caught.value))


def test_denied_access_is_told_with_where_credentials_come_from(monkeypatch):
    def deny(connection):
        connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with RawHttp(deny) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        with pytest.raises(SourceError, match="access is denied. Credentials .*AWS_ACCESS_KEY_ID"):
            open_sources(["s3://lists/ids.txt"])


def test_a_missing_library_is_told_by_the_name_of_the_extra(monkeypatch):
    monkeypatch.setattr(buckets, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"bulkjobs\[gs\]"):
        open_sources(["gs://lists/ids.txt"])


@pytest.mark.parametrize(
    "address", ["https://", f"https://host:x/?{SECRET}", f"https://host/a b?{SECRET}", "https://h/ü"]
)
def test_an_address_that_is_none_is_not_shown(address):
    with pytest.raises(ConfigError, match="An address of a file may be") as caught:
        open_sources([address])
    assert SECRET not in str(caught.value)


# --- credentials in addresses ---


def test_the_name_of_a_web_file_is_host_and_path(tmp_path):
    with Web(TEXT) as server:
        source = one(server.url(f"/ids.txt?sig={SECRET}#{SECRET}", login=f"me:{SECRET}@"))
        assert read(source) == TEXT
        assert source.name == server.url("/ids.txt")
        assert all(f"/ids.txt?sig={SECRET} HTTP".encode() in head for head in server.heads)
        assert all(b"\r\nAuthorization: Basic " in head for head in server.heads)
        assert SECRET not in repr(vars(source)["_blob"])
    assert str(default_run_dir(f"https://me:{SECRET}@host/lists/ids.txt?sig={SECRET}")) == "ids.txt.run"


# --- whole runs ---


@pytest.fixture
def office(tmp_path):
    office = Office(tmp_path, chunks=40, clock=SystemClock())
    office.text = "".join(f"{one}\n" for one in office.ids).encode()
    yield office
    office.service.close()


def session(office, *sources):
    return on_loop(office.client(replace(SETTINGS, workers=1)).run(*sources))


def check_run(office, address):
    summary = session(office, address)
    assert (summary.exit_code, summary.ids["accepted"]) == (0, len(office.ids))
    office.check()
    assert audit_run(office.run_dir).agrees
    found = explain_id(office.run_dir, str(office.ids[217]))
    assert "accepted" in str(found.as_dict())
    assert session(office, address).exit_code == session(office).exit_code == 0


def test_an_object_is_submitted_audited_and_explained(bucket, office):
    check_run(office, bucket("ids.txt.gz", packed(office.text)))


def test_a_web_file_is_submitted_audited_and_explained_without_its_signature(office):
    with Web(office.text) as server:
        check_run(office, server.url(f"/ids.txt?sig={SECRET}"))
    assert not [
        path for path in office.run_dir.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


def test_a_changed_object_is_told_before_anything_more_is_sent(bucket, office):
    address = bucket("ids.txt", office.text)
    session(office, address)
    bucket("ids.txt", office.text.replace(b"700001\n", b"1\n"))
    sent = len(office.transport.requests)
    with pytest.raises(SourceChanged, match="changed since the run began"):
        session(office, address)
    assert len(office.transport.requests) == sent
