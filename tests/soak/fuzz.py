"""Hostile bytes against everything that reads them: answers, ids, headers, addresses, options.

    python -m tests.soak fuzz --seconds 600 --seed 7

Each target has a corpus of good inputs and a check. An input is a good one after some rounds of damage that knows what
it damages: bits flip, pieces are spliced in from other inputs, repeated or cut out, numbers blow up, texts change their
encoding. A check fails when anything is raised but what is documented, when an answer says more than an independent
reading of the same bytes, when a message could steer a terminal, or when it takes too long.

Input `n` of a target follows from seed, target and `n` alone: `--target NAME --only N` runs it again by itself. The
suite runs the first inputs of each target with other seeds, see `test_fuzz.py`.
"""

from __future__ import annotations

import argparse
import base64
import calendar
import contextlib
import gzip
import html
import io
import itertools
import json
import os
import random
import re
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from unittest import mock
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

from yarl import URL

import bulkjobs.client
from bulkjobs import chunking
from bulkjobs.__main__ import main as bulkjobs_main
from bulkjobs.api import _without_secrets
from bulkjobs.chunking import Chunker
from bulkjobs.errors import ConfigError, SourceError
from bulkjobs.jsonlines import json_line
from bulkjobs.model import Accepted, Evidence, JobStatus, Phase, RunSummary, Tally
from bulkjobs.observers.totals import one_line
from bulkjobs.settings import OPTIONS, Settings, merge
from bulkjobs.settings.values import check_url, check_webhook, parse_duration, parse_rate
from bulkjobs.sources import compression
from bulkjobs.sources.compression import UNPACKED_BYTES, unpacker
from bulkjobs.verdict import judge
from bulkjobs.wire.answer import (
    ErrorAnswer,
    MalformedAnswer,
    Submission,
    find_job_hint,
    parse_error,
    parse_job_list,
    parse_status,
    parse_submission,
    parse_token,
)
from bulkjobs.wire.request import results_link_request
from bulkjobs.wire.results import ResultsLink, parse_results
from bulkjobs.wire.times import MAX_RETRY_AFTER_S, parse_expiry, parse_retry_after

GOLDEN: Final = Path(__file__).parents[1] / "golden"
LONGEST_S: Final = 2.0
"""Processor time for one input; all of them take milliseconds."""

Check = Callable[[bytes, random.Random], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Is something that reads foreign bytes."""

    name: str
    corpus: Sequence[bytes]
    check: Check
    share: int = 1
    """How many inputs it gets in a round."""


# Damage

WORDS: Final = (
    b"{} [] : , \" ' < > / & &amp; &#0; &#x41; <!DOCTYPE a> <![CDATA[ ]]> <?p?> <!-- --> \\ud800 \\u0000 \\x00 %00 %0a "
    b"jobId JOBID jobid null true false NaN Infinity -0 1e999 0x10 1_000 +5 007 errorNumber errorCode status message "
    b"400-184 400-102 accepted finished xmlns:a='b' encoding='utf-16' quota exceeded 9223372036854775808 "
    b"18446744073709551616 99999999999999999999 localhost 127.1 [::1] @ # ? .. // \\ ; \xff \xfe\xff \xef\xbb\xbf "
    b"\xc2\x9b \xe2\x80\xae \xed\xa0\x80 \x1b[2J \x00 \r \n \r\n \t \x7f \xd9\xa3 \xc2\xb2 inf nan none 5m 1d"
).split(b" ")
NUMBERS: Final = (
    b"0",
    b"-1",
    b"1e999",
    b"9" * 19,
    b"9" * 20,
    b"9" * 5_000,
    b"00",
    b"2147483648",
    b"1.5",
    b"NaN",
)
MOST_BYTES: Final = 200_000


def place(random: random.Random, data: bytes) -> tuple[int, int]:
    """Gives a piece of the data: often short, sometimes long."""
    at = random.randrange(len(data) + 1)
    return at, min(len(data), at + int(len(data) ** random.random()))


def flip(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _time in range(random.choice((1, 1, 2, 8))):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, end = place(random, data)
    return random.choice((data[:at], data[at:], data[:at] + data[end:]))


def splice(random: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = random.choice(corpus)
    at, end = place(random, data)
    begin, stop = place(random, other)
    return data[:at] + other[begin:stop] + data[end:]


def again(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, end = place(random, data)
    return data[:at] + data[at:end] * random.choice((2, 2, 3, 300)) + data[end:]


def word(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, end = place(random, data)
    return data[:at] + random.choice(WORDS) + data[random.choice((at, end)) :]


def noise(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, end = place(random, data)
    return data[:at] + random.randbytes(random.randrange(9)) + data[random.choice((at, end)) :]


def blow_up(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"[0-9]+", data))
    if not found:
        return data
    one = random.choice(found)
    return data[: one.start()] + random.choice(NUMBERS) + data[one.end() :]


def recode(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    text = data.decode("utf-8", "replace")
    code = random.choice(
        ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-7", "utf-8-sig", "cp037")
    )
    return text.encode(code, "replace")


def other_case(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, end = place(random, data)
    return data[:at] + data[at:end].swapcase() + data[end:]


def nest(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    before, after = random.choice(((b'{"a":', b"}"), (b"[", b"]"), (b"<a>", b"</a>"), (b"(", b")")))
    depth = random.choice((1, 2, 255, 257, 1_025, 5_000))
    return before * depth + data + after * depth


def twice_named(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb'"[^"]*"\s*:\s*("[^"]*"|[0-9]+)|<(\w+)>[^<]*</\2>', data))
    if not found:
        return data
    one = random.choice(found)
    comma = b"," if one[0].startswith(b'"') else b""
    copy = one[0] if random.random() < 0.5 else flip(random, one[0], ())
    return data[: one.end()] + comma + copy + data[one.end() :]


def escaped(random: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, end = place(random, data)
    piece = data[at:end].decode("latin-1")
    how: Callable[[str], str] = random.choice(
        (
            quote,
            html.escape,
            lambda text: json.dumps(text)[1:-1],
            lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
            lambda text: "".join(f"&#{ord(char)};" for char in text),
        )
    )
    return data[:at] + how(piece).encode() + data[end:]


DAMAGE: Final = (
    flip, flip, cut, splice, splice, again, word, word, noise, blow_up, recode, other_case, nest, twice_named, escaped,
)  # fmt: skip


def damaged(random: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Gives one of the corpus after some rounds of damage; now and then none, and now and then mere noise."""
    if random.random() < 0.02:
        return random.randbytes(random.randrange(400))
    data = random.choice(corpus)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        data = random.choice(DAMAGE)(random, data, corpus)[:MOST_BYTES]
    return data


# Answers


def golden() -> list[bytes]:
    return [path.read_bytes() for path in sorted(GOLDEN.iterdir()) if path.name != "manifest.json"]


def is_line(text: str | None, most: int = 600) -> None:
    """Fails for a text that is no line for people."""
    assert text is None or (text.isprintable() and len(text) <= most), f"not for people: {text!r}"


def values_of(body: bytes, name: str) -> set[object] | None:
    """Reads, slowly and with other parsers, every value that stands under a name; None when these cannot read it."""
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    found: list[object] = []
    if text.startswith((b"{", b"[")):

        def gather(pairs: list[tuple[str, object]]) -> dict[str, object]:
            found.extend(value for key, value in pairs if key.lower() == name)
            return {}

        try:
            json.loads(text, object_pairs_hook=gather)
        except (ValueError, RecursionError):
            return None
    else:
        try:
            for element in ET.fromstring(text).iter():
                if element.tag.rpartition("}")[2].lower() == name:
                    found.append("".join(element.itertext()))
        except (ET.ParseError, ValueError, LookupError):
            return None
    return {value for value in found if isinstance(value, str)}


def check_parsers(body: bytes, _: random.Random) -> None:
    for parse in (parse_submission, parse_status):
        try:
            answer = parse(body)
        except MalformedAnswer as error:
            is_line(str(error), 1_000)
            continue
        match answer:
            case ErrorAnswer():
                for text in (answer.error_number, answer.message, answer.diagnostic_code, answer.error_type):
                    is_line(text)
                is_line(str(answer), 3_000)
            case Submission() | JobStatus():
                assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", answer.job_id)
                is_line(answer.word)
                is_line(answer.job_type)
                slowly = values_of(body, "jobid")
                assert slowly is None or slowly == {answer.job_id}, f"{answer.job_id} is not all of {slowly}"
                if isinstance(answer, JobStatus):
                    assert answer.processed is None or 0 <= answer.processed < 10**18
    envelope = parse_error(body)
    is_line(None if envelope is None else str(envelope), 3_000)
    hint = find_job_hint(body)
    assert hint is None or (re.fullmatch(r"[A-Za-z0-9_-]{1,64}", hint) and hint.encode() in body)


def check_job_list(body: bytes, _: random.Random) -> None:
    try:
        jobs = parse_job_list(body)
    except MalformedAnswer as error:
        is_line(str(error), 1_000)
        return
    if isinstance(jobs, ErrorAnswer):
        is_line(str(jobs), 3_000)
        return
    for job in jobs:
        is_line(job.word)
        is_line(job.job_type)
        assert job.credits is None or 0 <= job.credits < 10**18
    names = {job.job_id for job in jobs}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names)
    slowly = values_of(body, "jobid")
    assert slowly is None or names == slowly, f"{names} are not the jobs of {slowly}"


def check_results(body: bytes, _: random.Random) -> None:
    try:
        read = parse_results(body)
    except MalformedAnswer as error:
        is_line(str(error), 1_000)
        return
    if isinstance(read, ResultsLink):
        try:
            request = results_link_request(read.url, base_url="http://127.0.0.1:9/api/v1")
        except ConfigError as error:
            is_line(str(error))
            return
        assert request.url.startswith(("https://", "HTTPS://", "http://127.0.0.1:9")) or "://" in request.url
        assert request.url.isascii()
        assert request.url.isprintable()
        assert not [name for name, _value in request.headers if name.lower() == "accesstoken"]
        return
    for one in read:
        assert re.fullmatch(rb"[1-9][0-9]{0,18}", one)
        assert body[:2] in (b"\x1f\x8b", b"PK") or one in body


def check_token(body: bytes, _: random.Random) -> None:
    try:
        token = parse_token(body)
    except MalformedAnswer as error:
        is_line(str(error), 3_000)
        behind = None if error.__suppress_context__ else error.__context__
        if error.__cause__ or behind:  # it may quote the answer
            raise AssertionError("the cause would be shown") from error
        return
    assert re.fullmatch(r"[!-~]{1,8000}", token.access_token)
    assert token.access_token not in repr(token) or len(token.access_token) < 12
    slowly = values_of(body, "accesstoken")
    assert slowly is None or token.access_token in slowly
    assert token.expires_utc is None or 0 < token.expires_utc < 1e12 or token.expires_utc < 0


STATUSES: Final = (
    200,
    201,
    204,
    299,
    301,
    303,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    413,
    421,
    422,
    429,
    500,
    502,
    503,
    999,
)


def check_verdict(body: bytes, random: random.Random) -> None:
    evidence = Evidence(
        phase=random.choice(tuple(Phase)),
        started_utc=1e9,
        ended_utc=1e9 + 1,
        status=random.choice((None, *STATUSES)),
        body=body[: 64 * 1024],
        body_cut=random.random() < 0.1,
        retry_after=random.choice((None, "5", body[:30].decode("latin-1"))),
        error=random.choice((None, "ClientOSError")),
    )
    verdict = judge(evidence)
    if isinstance(verdict, Accepted):
        assert evidence.phase is Phase.COMPLETE
        assert not evidence.body_cut
        assert 200 <= (evidence.status or 0) <= 299
        slowly = values_of(evidence.body, "jobid")
        assert slowly is None or slowly == {verdict.job_id}
        is_line(verdict.remark)
    else:
        is_line(verdict.reason, 4_000)
    assert verdict == judge(replace(evidence)), "one evidence, two verdicts"


MARK: Final = "cAnArY"
SECRETS: Final = (
    f"{MARK}/t0k+en==&<x>'\"_%;\\",
    f"https://me.example/hook?key={MARK}-p4ss&bulkjobs=0123456789abcdef",
    f"{MARK}abcdefghijkl",
)


def check_masking(body: bytes, random: random.Random) -> None:
    secret = random.choice(SECRETS)
    how: list[Callable[[str], str]] = [
        lambda text: text,
        lambda text: quote(text, safe=""),
        lambda text: quote(quote(text, safe=""), safe=""),
        quote,
        html.escape,
        lambda text: html.escape(html.escape(text)),
        lambda text: json.dumps(text)[1:-1],
        lambda text: json.dumps(text).replace("/", "\\/").replace("&", "\\u0026")[1:-1],
        lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
        lambda text: json.dumps(html.escape(text))[1:-1],
        lambda text: "".join(f"&#{ord(char)};" for char in text),
        lambda text: "".join(f"&#x{ord(char):04X};" for char in text),
        lambda text: "".join(f"\\u{ord(char):04X}" for char in text),
        lambda text: "".join(f"%{ord(char):02x}" for char in text),
        lambda text: "".join(random.choice((char, f"%{ord(char):02x}", f"&#{ord(char)};")) for char in text),
    ]
    text = random.choice(how)(secret)
    at = random.randrange(len(body) + 1)
    if MARK.encode() in body or body[:at].endswith((b"\\", b"%", b"&")):
        return
    masked = _without_secrets(body[:at] + b" " + text.encode() + b" " + body[at:], SECRETS)
    assert MARK.encode() not in masked
    assert b" *** " in masked, masked


# Times and addresses


def check_times(data: bytes, random: random.Random) -> None:
    text = data.decode("latin-1") if random.random() < 0.5 else data.decode("utf-8", "replace")
    wait_s = parse_retry_after(text, now_utc=1e9)
    assert wait_s is None or 0 <= wait_s <= MAX_RETRY_AFTER_S
    if re.fullmatch(
        r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", text, re.ASCII
    ):
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            # Not email.utils, which takes the year 0044 for 2044: by RFC 9110 four digits are the year.
            slowly = calendar.timegm(time.strptime(text, "%a, %d %b %Y %H:%M:%S GMT"))
            assert wait_s is None or wait_s == min(max(slowly - 1e9, 0.0), MAX_RETRY_AFTER_S)
    expires_utc = parse_expiry(text)
    assert expires_utc is None or -1e11 < expires_utc < 1e12
    for read in (parse_duration, parse_rate):
        with contextlib.suppress(ConfigError):
            read(text)


def leads_inside(host: str) -> bool:
    """Reads a host as the C library does, and tells whether it is this machine or one of a private network."""
    host = host.rstrip(".")
    packed = b""
    with contextlib.suppress(OSError):  # a name
        packed = socket.inet_pton(socket.AF_INET6, host) if ":" in host else socket.inet_aton(host)
    packed = packed.removeprefix(bytes(10) + b"\xff\xff")
    private = len(packed) == 4 and packed.startswith((b"\x7f", b"\x0a", b"\xc0\xa8"))
    return private or host == "localhost" or packed == bytes(15) + b"\x01"


def check_addresses(data: bytes, _: random.Random) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for check in (check_url, check_webhook):
        for allow_http in (False, True):
            try:
                check(text, "--x", allow_http=allow_http)
            except ConfigError as error:
                is_line(str(error), 253 + 100)  # a host is shown whole
                continue
            parts, used = urlsplit(text), URL(text, encoded=True)
            called = (used.raw_host or "").lower()
            assert called == parts.hostname, f"checked {parts.hostname}, but {called} would be called"
            assert used.scheme == parts.scheme
            assert used.user is used.password is None
            assert text.isascii()
            assert text.isprintable()
            assert allow_http or parts.scheme == "https" or check is check_url
            if check is check_webhook and not allow_http:
                assert not leads_inside(called), f"{called} is no public address"


# Ids


def plainly(text: bytes, *, dedupe: bool) -> tuple[list[bytes], list[int], int]:
    """Reads ids token by token, as slowly and obviously as possible."""
    ids: list[bytes] = []
    invalid: list[int] = []
    duplicates, seen = 0, set()
    lines = (text.removeprefix(b"\xef\xbb\xbf") + b"\n").replace(b"\r\n", b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        for token in line.split(b","):
            stripped = token.strip(b" \t")
            if not stripped:
                continue
            if not re.fullmatch(rb"[1-9][0-9]{0,18}", stripped):
                invalid.append(number)
            elif dedupe and stripped in seen:
                duplicates += 1
            else:
                seen.add(stripped)
                ids.append(stripped)
    return ids, invalid, duplicates


def check_chunker(text: bytes, random: random.Random) -> None:
    size, dedupe = random.choice((1, 2, 7, 10_000)), random.random() < 0.7
    edges = [0, *sorted(random.randrange(len(text) + 1) for _ in range(random.randrange(9))), len(text)]
    chunker = Chunker(size, dedupe=dedupe)
    chunker.begin("a")
    bodies, tally, bad = [], Tally(), []
    longest = random.choice((64 * 1024, 30))
    with mock.patch.object(chunking, "_LONGEST_TOKEN_BYTES", longest):
        for cut in [*(chunker.feed(text[at:end]) for at, end in itertools.pairwise(edges)), chunker.end()]:
            bodies += [(chunk.body, chunk.ids) for chunk in cut.chunks]
            tally = sum((chunk.tally for chunk in cut.chunks), tally)
            bad += [one.line for one in cut.invalid]
            for one in cut.invalid:
                is_line(one.text, 200)
                is_line(one.reason)
    last, tail = chunker.finish()
    if last is not None:
        bodies.append((last.body, last.ids))
        tally += last.tally
    ids, invalid, duplicates = plainly(text, dedupe=dedupe)
    assert [one for body, _ in bodies for one in body.split(b"\n")] == ids
    assert all(count == size for _, count in bodies[:-1])
    assert all(body.count(b"\n") == count - 1 for body, count in bodies)
    assert bad == invalid
    assert tally + tail == chunker.totals == Tally(invalid=len(invalid), duplicate=duplicates)


def unpacked(stored: bytes, edges: Sequence[int]) -> tuple[bytes, bool]:
    """Gives what comes out of stored bytes that are cut at the edges, and whether that ended in an error."""
    read, reader = bytearray(), unpacker("a", stored)
    assert reader is not None
    try:
        for at, end in itertools.pairwise(edges):
            reader.start(stored[at:end])
            while block := reader.next():
                assert len(block) <= UNPACKED_BYTES
                read += block
        reader.finish()
    except SourceError as error:
        is_line(str(error), 1_000)
        return bytes(read), True
    return bytes(read), False


def fits_its_sums(text: bytes, stored: bytes) -> bool:
    """Tells whether a text is, member by member, what the check sums and lengths behind the members say."""
    at = 0
    while at + 8 <= len(stored):
        sum_of, length = struct.unpack_from("<II", stored, at)
        at += 1
        if length <= len(text) and zlib.crc32(text[:length]) == sum_of:
            rest = stored[at + 7 :].lstrip(b"\0")
            if not rest and length == len(text):
                return True
            if rest.startswith(b"\x1f\x8b"):
                text, stored, at = text[length:], rest, 0
    return False


def check_gzip(stored: bytes, random: random.Random) -> None:
    if not stored.startswith(b"\x1f\x8b"):
        return  # no longer gzip
    edges = [0, *sorted(random.randrange(len(stored) + 1) for _ in range(random.randrange(5))), len(stored)]
    with contextlib.ExitStack() as stack:
        if random.random() < 0.3:  # as without the extra
            stack.enter_context(
                mock.patch.object(compression, "_gzip_library", return_value=compression._ZlibMember)
            )
        text, failed = unpacked(stored, edges)
    reference = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(stored)) as file:
            while piece := file.read1(65_536):
                reference += piece
        broken = False
    except (OSError, EOFError, zlib.error):
        broken = True
    slowly = bytes(reference)
    # The standard library checks less of a header, so more may be wrong for us than for it. Less may be wrong where
    # isal takes tables of codes that zlib refuses, if the text is still the one that was packed.
    assert failed or not broken or fits_its_sums(text, stored), "read without a word what is damaged"
    assert failed or broken or text == slowly
    assert slowly.startswith(text) or text.startswith(slowly)


# Options


def check_options(data: bytes, _: random.Random) -> None:
    path = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.toml"
    path.write_bytes(data)
    try:
        Settings.of(merge({}, {}, path))
    except ConfigError as error:
        said = str(error)
        is_line(one_line(said), 3_000)
        # Only where it stands as a secret: damage also puts it into names, which are shown.
        if MARK in said and data.count(MARK.encode()) == data.count(b"?key=" + MARK.encode()):
            raise AssertionError(f"a secret is shown: {said}") from None
    finally:
        path.unlink()


def check_environment(data: bytes, random: random.Random) -> None:
    text = os.fsdecode(data.replace(b"\0", b"")[:2_000])
    names = [option.environ for option in OPTIONS] + ["BULKJOBS_ACCESS_TOKEN", "BULKJOBS_CLIENT_SECRET"]
    try:
        Settings.of(merge({}, {random.choice(names): text}, Path(os.devnull)))
    except ConfigError as error:
        is_line(one_line(str(error)), 15_000)  # a path may be as long as it likes


class Idle:
    """Stands in for the client: takes everything and does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    async def __aenter__(self) -> Idle:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def run(self, *_: str) -> RunSummary:
        ids = dict.fromkeys(("read", "invalid", "duplicate", "accepted", "refused", "held", "pending"), 0)
        return RunSummary(
            run_id="r1",
            endpoint="contacts",
            ids=ids,
            chunks={"total": 0},
            jobs={},
            requests={},
            lockouts=0,
            elapsed_s=0.0,
            exit_code=0,
        )


def check_command(data: bytes, random: random.Random) -> None:
    arguments = [os.fsdecode(part) for part in data.replace(b"\0", b"").split(b"\n")[:20]]
    command = random.choice(("submit", "submit", "resume", "status"))
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(bulkjobs.client, "Client", Idle),
        mock.patch.dict(os.environ, {"BULKJOBS_ACCESS_TOKEN": MARK * 4}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = bulkjobs_main([command, *arguments])
    assert code in (0, 2, 6), f"exit code {code}: {err.getvalue()}"
    for text in (out.getvalue(), err.getvalue()):
        assert "Traceback" not in text
        assert MARK not in text or MARK.encode() in data
        assert all(line.isprintable() for line in text.split("\n")), repr(text)


def check_json_line(data: bytes, _: random.Random) -> None:
    text = data.decode("utf-8", "backslashreplace")
    line = json_line({"a": text, text: [text]})
    assert json.loads(line) == {"a": text, text: [text]}
    assert line.endswith(b"\n")
    assert line[:-1].decode().isprintable()


# The targets

TIMES: Final = (
    b"120", b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994",
    b"Sun, 06 Nov 2044 08:49:37 GMT", b"Tue, Jul 21, 2015 09:08:17 PM GMT", b"900/5m", b"1.5h", b"250ms", b"none",
)  # fmt: skip
ADDRESSES: Final = (
    b"https://api.insideview.com/api/v1", b"http://127.0.0.1:8080/api", b"https://me.example:8443/hook?key=a&b=c",
    b"https://[2606:4700::1111]/x", b"http://localhost/", b"https://user:pass@host/", b"https://xn--bcher-kva.example/",
    b"https://a_b.example./", b"https://0x7f.1/", b"https://[::ffff:10.0.0.1]/", b"https://h/#f", b"//h/x",
)  # fmt: skip
TEXTS: Final = (
    b"1\n2\n3\n", b"8802619\r\n13496440\r\n225\r\n" * 20, b"1, 2, 3\n4,5,,6\n", b"\xef\xbb\xbf7\n8", b" 9 \n\t10\t\n",
    b"007\n+5\n1_2\n1e5\n0\n9999999999999999999\n99999999999999999999\n", b"id\n1\n1\n1\n", b"1\r2\r3", b"x" * 70_000 + b"\n5",
    "\u0663\n\u00b2\n\u00a01\n2\u20283\n".encode(), b"\xff\xfe1\x00\n\x00", b"5" * 31 + b" " * 40 + b"\n6\n", b",\n,\r\n,",
)  # fmt: skip
OPTION_FILES: Final = (
    b'workers = 3\nrate = "5/1s"\nsink = ["a.jsonl", "-"]\ndedupe = false\n', b'base-url = "https://a.example/v1"\n',
    b'webhook = "https://me.example/?key=cAnArY"\npace = "none"\npoll = "2s"\nmax-active-jobs = 2\n',
    b'access-token = "cAnArYcAnArY"\n', b'[a]\nb = {c = [1, 2.0, "x", 2026-01-01]}\n', b'accept = "xml"\nlockout = "5m"\n',
)  # fmt: skip
COMMANDS: Final = (
    b"ids.txt\n--workers\n3\n--rate\n5/1s", b"ids.txt\n--sink\n-\n--sink\na.jsonl\n--no-dedupe", b"a\nb\n--run\nc", b"-",
    b"ids.txt\n--json\n--quiet\n--log-format\njson", b"ids.txt\n--webhook\nhttps://me.example/?key=x", b"--help",
    b"ids-*.txt\n--poll=2s\n--config\nx.toml", b"ids.txt\n--base-url\nhttps://a.example\n--allow-http", b"x.run\n--json",
    b"ids.txt\n--max-active-jobs\nnone\n--chunk-size\n5\n--accept\nxml\n--pace\nnone\n--lockout\n1m\n--\n--x",
)  # fmt: skip


LISTS: Final = (
    (b'{"bulkJobs":[{"jobId":"v9qh2to86kg85s03trag","jobType":"contactDetails","jobStatus":"finished",'
    b'"createdDate":"2015-09-08","creditsConsumed":90},{"jobId":"b-2","jobStatus":1,"creditsConsumed":0}]}'),
    (b"<bulkJobs><bulkJob><jobId>a1</jobId><jobStatus>3</jobStatus></bulkJob><bulkJob><jobId>a2</jobId></bulkJob>"
    b"</bulkJobs>"),
    b'{"page":1,"bulkJobs":[]}', b"<bulkJobs/>", b'{"response":{"BulkJobs":{"bulkJob":{"JobId":"x"}}}}',
)  # fmt: skip
RESULTS: Final = (
    b'contactId,name\r\n11,Ada\r\n22,"Bj\xc3\xb6rn, B"\r\n' * 3, b"\xef\xbb\xbfname,Contact ID\na,11\nb,22\n",
    b'{"jobId":"a","resultsUrl":"https://files.example.com/a.csv?Expires=1&Signature=x"}',
    b"<bulkJob><resultsUrl>http://127.0.0.1:9/_files/a.csv?Expires=1</resultsUrl></bulkJob>",
    b"id,inputId,contactId\n1,2,11\n", b'{"status":"failed","message":"no rows"}',
)  # fmt: skip


def archives() -> list[bytes]:
    found = [gzip.compress(text, mtime=0) for text in RESULTS]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a.csv"), RESULTS[0], compress_type=method)
        found.append(out.getvalue())
    return [*found, gzip.compress(b"contactId\n" + b"1\n" * 200_000)]


def zipped() -> list[bytes]:
    good = [gzip.compress(text, mtime=0) for text in TEXTS]
    named = b"\x1f\x8b\x08\x08\0\0\0\0\0\xffids.txt\0" + gzip.compress(b"1\n2\n", mtime=0)[10:]
    return [
        *good,
        good[0] + good[1],
        good[0] + bytes(50),
        good[1] + b"6\n7\n",
        named,
        gzip.compress(b"1\n" * 200_000),
    ]


def targets() -> list[Target]:
    """Gives all targets, with their corpora read."""
    answers = golden()
    return [
        Target("answers", answers, check_parsers, 4),
        Target("tokens", [body for body in answers if b"oken" in body] * 3 + answers, check_token, 2),
        Target("verdicts", answers, check_verdict, 4),
        Target("job-lists", (*LISTS, *answers), check_job_list, 3),
        Target("results", (*RESULTS, *archives(), *LISTS), check_results, 3),
        Target("masking", answers, check_masking, 2),
        Target("times", TIMES, check_times, 4),
        Target("addresses", ADDRESSES, check_addresses, 4),
        Target("chunker", TEXTS, check_chunker, 3),
        Target("gzip", zipped(), check_gzip, 3),
        Target("option-file", OPTION_FILES, check_options, 2),
        Target("environment", (*TIMES, *ADDRESSES, b"3", b"true", b"json"), check_environment, 2),
        Target("command", COMMANDS, check_command),
        Target("json-lines", (*TEXTS, *answers), check_json_line),
    ]


def run_one(target: Target, seed: str, number: int) -> bytes:
    """Makes one input and checks it. Whatever it raises is a finding.

    Returns:
        The input.
    """
    draw = random.Random(f"{seed}/{target.name}/{number}")
    data = damaged(draw, target.corpus)
    check_one(target, data, draw)
    return data


def check_one(target: Target, data: bytes, draw: random.Random) -> None:
    """Checks one input, and that it took no long time."""
    began_s = time.process_time()
    try:
        target.check(data, draw)
    except Exception as error:
        error.add_note(f"target {target.name}, {len(data)} bytes: {base64.b64encode(data[:3_000]).decode()}")
        raise
    took_s = time.process_time() - began_s
    assert took_s < LONGEST_S, f"{target.name} took {took_s:.1f} s for {data[:200]!r}"


def rounds(chosen: Sequence[Target]) -> Iterator[tuple[Target, int]]:
    for number in itertools.count():
        for target in chosen:
            for one in range(target.share):
                yield target, number * target.share + one


def _too_long(_number: int, _frame: object) -> None:
    raise TimeoutError("it takes too long; this is where")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until the time is over; gives 1 when anything was found."""
    parser = argparse.ArgumentParser(
        prog="fuzz", description="Hostile bytes against everything that reads them."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time to spend [60]")
    parser.add_argument("--seed", default="1", help="another seed, other inputs [1]")
    parser.add_argument("--target", help="only this target")
    parser.add_argument("--only", type=int, help="only this input of the target")
    parser.add_argument("--findings", type=int, default=10, help="end after so many [10]")
    given = parser.parse_args(argv)
    chosen = [target for target in targets() if given.target in (None, target.name)]
    if not chosen:
        parser.error(f"there is no target {given.target}")
    counts, found = dict.fromkeys((target.name for target in chosen), 0), 0
    before = signal.signal(signal.SIGPROF, _too_long)
    until_s = time.process_time() + given.seconds
    numbered = rounds(chosen) if given.only is None else iter([(chosen[0], given.only)])
    for target, number in numbered:
        if time.process_time() >= until_s or found >= given.findings:
            break
        counts[target.name] += 1
        try:
            signal.setitimer(signal.ITIMER_PROF, 4 * LONGEST_S)
            run_one(target, given.seed, number)
        except Exception:  # noqa: BLE001 - that is what is looked for
            found += 1
            print(f"FOUND: --seed {given.seed} --target {target.name} --only {number}", file=sys.stderr)
            traceback.print_exc()
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
    print(json.dumps({"seed": given.seed, "seconds": given.seconds, "found": found, "inputs": counts}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
