"""Answers: golden files, drifts, hostile bytes. Any bytes give a value or MalformedAnswer, nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkjobs.model import JobState, JobStatus, RequestKind
from bulkjobs.wire.answer import (
    ANSWER_CAP_BYTES,
    ErrorAnswer,
    MalformedAnswer,
    Submission,
    Token,
    find_job_hint,
    parse_error,
    parse_status,
    parse_submission,
    parse_token,
)
from bulkjobs.wire.fields import printable
from bulkjobs.wire.times import MAX_RETRY_AFTER_S, parse_expiry, parse_retry_after

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text("utf-8"))
PARSERS = {"submission": parse_submission, "status": parse_status, "error": parse_error, "token": parse_token}


# Golden answers


@pytest.mark.parametrize("case", MANIFEST, ids=[case["file"] for case in MANIFEST])
def test_a_golden_answer_reads_as_its_manifest_says(case):
    """Each file is one real, published or hostile answer; `expect` null means that it is refused."""
    body = (GOLDEN / case["file"]).read_bytes()
    parse = PARSERS[case["kind"]]
    if case["expect"] is not None:
        assert asdict(parse(body)) == case["expect"]
    elif case["kind"] == "error":
        assert parse(body) is None
    else:
        with pytest.raises(MalformedAnswer):
            parse(body)


def test_every_golden_file_is_in_the_manifest():
    """A file nobody reads would prove nothing."""
    files = {path.name for path in GOLDEN.iterdir()} - {"manifest.json"}
    assert files == {case["file"] for case in MANIFEST}


def test_the_vendors_two_submission_samples_say_the_same():
    """What was asked for does not matter: both formats give one value."""
    in_json = parse_submission((GOLDEN / "submission-contacts.json").read_bytes())
    in_xml = parse_submission((GOLDEN / "submission-contacts.xml").read_bytes())
    assert in_json == in_xml
    assert in_json.state is JobState.ACCEPTED


@pytest.mark.parametrize("name", ["error-insideview.json", "error-demandbase.xml"])
def test_an_error_envelope_is_a_value_wherever_it_comes(name):
    """Submission and status requests get the same envelope, whatever the HTTP status says."""
    body = (GOLDEN / name).read_bytes()
    assert parse_submission(body) == parse_status(body) == parse_error(body)
    assert isinstance(parse_error(body), ErrorAnswer)


def test_an_error_answer_prints_in_one_line_what_support_needs():
    error = parse_error((GOLDEN / "error-insideview.json").read_bytes())
    assert str(error) == "404-11 Company not found. (diagnostic code mhidirbsjnls43ff2682)"


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("accepted", "accepted"),
        ("Processing", "processing"),
        ("FINISHED", "finished"),
        ("failed", "failed"),
        ("aborted", "aborted"),
        ("-1", "unknown"),
        ("0", "failed"),
        ("1", "accepted"),
        ("2", "processing"),
        ("3", "finished"),
        ("4", "aborted"),
        ("5", "unknown"),
        ("unknown", "unknown"),
        ("paused", "unknown"),
    ],
)
def test_states_are_words_or_the_numbers_of_the_jobs_list(word, state):
    """Case does not count, and a word we do not know is kept."""
    status = parse_status(json.dumps({"jobId": "a", "jobStatus": word}).encode())
    assert isinstance(status, JobStatus)
    assert (status.state.value, status.word) == (state, word)


@pytest.mark.parametrize(
    ("processed", "count"),
    [(3, 3), ("3", 3), (3.0, None), (-1, None), (True, None), ("many", None), (None, None)],
)
def test_a_count_that_cannot_be_read_is_no_reason_to_lose_the_state(processed, count):
    body = json.dumps({"jobId": "a", "status": "finished", "totalProcessed": processed}).encode()
    assert parse_status(body).processed == count


# Hostile bytes


def only_malformed(body: bytes) -> None:
    for parse in (parse_submission, parse_status, parse_token):
        message = ""
        try:
            parse(body)
        except MalformedAnswer as exc:
            message = str(exc)
        assert len(message) < 1000
        assert message.isprintable()
    parse_error(body)
    find_job_hint(body)


@given(st.binary(max_size=300))
@example(b"\xff\xfe")
@example(b"\xfe\xff<")
@example(b"{" * 100_000)
@example(b"[" * 100_000)
@example(b'{"a":' * 1000 + b"1" + b"}" * 1000)
@example(b"<a>" * 100_000)
@example(b"<a>" * 200 + b"x" + b"</a>" * 200)
@example(b'{"jobId":"\xed\xa0\x80"}')
@example(b'<?xml version="1.0" encoding="no-such-encoding"?><a><b>c</b></a>')
@example(b'<?xml version="1.0" encoding="UTF-16"?><a><b>c</b></a>')
@example(b"<a>&undefined;</a>")
@example(b"<a:b><c>d</c></a:b>")
def test_any_bytes_give_a_value_or_a_malformed_answer(body):
    """Nothing else ever comes out of the boundary, and its messages are short and printable."""
    only_malformed(body)


PIECES = st.sampled_from(
    b"< > { } \" : , & &amp; jobId null 1e999 <!DOCTYPE <![CDATA[ ]]> <?p?> <!-- --> \\ud800 xmlns:a='b' \x00 \xff\xfe".split()
)
EDITS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 6), PIECES | st.binary(max_size=4)), max_size=4
)


@given(st.sampled_from([case["file"] for case in MANIFEST]), EDITS)
def test_a_damaged_golden_answer_gives_a_value_or_a_malformed_answer(name, edits):
    """Damage next to the truth reaches deeper than random bytes do."""
    body = (GOLDEN / name).read_bytes()
    for place, length, piece in edits:
        at = place % (len(body) + 1)
        body = body[:at] + piece + body[at + length :]
    only_malformed(body)


@pytest.mark.parametrize("attack", ["xinclude", "quadratic", "external-dtd"])
def test_xml_attacks_have_no_effect(attack, tmp_path):
    """Nothing is included, expanded or fetched."""
    secret = tmp_path / "secret"
    secret.write_text("fromthefile")
    body = {
        "xinclude": f'<a xmlns:xi="http://www.w3.org/2001/XInclude"><jobId><xi:include href="{secret}" parse="text"/></jobId></a>',
        "quadratic": f'<!DOCTYPE a [<!ENTITY x "{"x" * 50_000}">]><a><jobId>{"&x;" * 5_000}</jobId></a>',
        "external-dtd": f'<!DOCTYPE a SYSTEM "{secret}"><a><jobId>b</jobId></a>',
    }[attack].encode()
    with pytest.raises(MalformedAnswer) as caught:
        parse_submission(body)
    assert "fromthefile" not in str(caught.value)


def test_an_answer_over_every_cap_is_not_parsed():
    body = b'{"jobId":"a","x":"' + b"y" * ANSWER_CAP_BYTES[RequestKind.LIST] + b'"}'
    with pytest.raises(MalformedAnswer, match="longer than any answer"):
        parse_submission(body)


def test_a_malformed_answer_shows_its_first_bytes_escaped_and_no_more():
    """A person sees what came; a terminal and a log are safe from it."""
    with pytest.raises(MalformedAnswer) as caught:
        parse_submission(b"\x1b[31mBad\r\nnews" + b"!" * 10_000)
    assert r"It begins with b'\x1b[31mBad\r\nnews!" in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.text(max_size=600), st.integers(1, 600))
def test_foreign_text_becomes_one_printable_line(text, limit):
    line = printable(text, limit=limit)
    assert line.isprintable()
    if len(text) <= limit and text.isprintable():
        assert line == text


# JSON and XML agree

XML_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "jobId": st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True) | XML_TEXT,
        "status": st.sampled_from(["accepted", "Finished", "2", "nonsense"]) | XML_TEXT,
        "jobStatus": st.sampled_from(["accepted", "-1"]) | XML_TEXT,
        "type": XML_TEXT,
        "jobType": XML_TEXT,
        "totalProcessed": st.integers(0, 10**9).map(str) | XML_TEXT,
        "errorNumber": st.sampled_from(["404-11", ""]),
        "errorMessage": XML_TEXT,
        "message": XML_TEXT,
        "diagnosticCode": XML_TEXT,
        "other": st.fixed_dictionaries({"inner": XML_TEXT}),
    },
)


def as_xml(fields: dict[str, object]) -> str:
    return "".join(
        f"<{name}>{as_xml(value) if isinstance(value, dict) else escape(value)}</{name}>"
        for name, value in fields.items()
    )


def outcome(parse, body: bytes) -> object:
    try:
        return parse(body)
    except MalformedAnswer:
        return MalformedAnswer


@given(FIELDS)
def test_json_and_xml_with_the_same_content_read_the_same(fields):
    """orjson and lxml are two opinions on one document; the XML is written by the standard library."""
    in_json = json.dumps(fields).encode()
    in_xml = f"<any>{as_xml(fields)}</any>".encode()
    for parse in (parse_submission, parse_status, parse_error):
        assert outcome(parse, in_json) == outcome(parse, in_xml)


# Tokens


def test_a_token_is_not_in_its_repr():
    token = parse_token((GOLDEN / "token.json").read_bytes())
    assert isinstance(token, Token)
    assert token.access_token not in repr(token)


@pytest.mark.parametrize(
    "body", [b'{"accessToken":"CANARY-1",}', b"<a><accessToken>CANARY-1</b></a>", b"CANARY-1"]
)
def test_a_broken_token_answer_shows_nothing_of_itself(body):
    """The token may stand anywhere in it, also in what the JSON and XML libraries quote."""
    with pytest.raises(MalformedAnswer) as caught:
        parse_token(body)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_token_answer_that_is_an_error_says_which():
    with pytest.raises(MalformedAnswer, match="401-1 Bad client"):
        parse_token((GOLDEN / "token-error.json").read_bytes())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Tue, Jul 21, 2015 09:08:17 PM GMT", 1437512897.0),
        ("Tue, Jul 21, 2015 09:08:17 AM GMT", 1437469697.0),
        ("Tue, Jul 21, 2015 12:00:00 AM GMT", 1437436800.0),
        ("Tue, Jul 21, 2015 12:00:00 PM GMT", 1437480000.0),
        ("Thu, Feb 29, 2024 01:00:00 AM GMT", 1709168400.0),
        ("Wed, Feb 29, 2023 01:00:00 AM GMT", None),
        ("Tue, Jul 21, 2015 13:08:17 PM GMT", None),
        ("Tue, Jul 21, 2015 00:08:17 AM GMT", None),
        ("Tue, Jul 21, 2015 21:08:17 GMT", None),
        ("Di, Jul 21, 2015 09:08:17 PM GMT", None),
        ("Tue, Xxx 21, 2015 09:08:17 PM GMT", None),
        ("Tue, Jul 21, 2015 09:08:17 PM PST", None),
        ("", None),
    ],
)
def test_an_expiry_is_read_on_a_dial_of_twelve_hours_in_english(text, seconds):
    assert parse_expiry(text) == seconds


# Retry-After

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the instant in RFC 9110


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120\t", 120.0),
        ("0120", 120.0),
        ("86401", MAX_RETRY_AFTER_S),
        ("9" * 5_000, MAX_RETRY_AFTER_S),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:48:37 GMT", 0.0),
        ("Saturday, 06-Nov-93 08:50:37 GMT", 0.0),
        ("Saturday, 06-Nov-45 08:50:37 GMT", 0.0),
        ("Sunday, 06-Nov-44 08:50:37 GMT", MAX_RETRY_AFTER_S),
        ("Friday, 06-Nov-09 08:50:37 GMT", MAX_RETRY_AFTER_S),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_S),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("١٢٠", None),
        ("1_0", None),
        ("soon", None),
        ("", None),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 25:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 PST", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(value, seconds):
    """RFC 9110, 10.2.3; a two-digit year means the one at most 50 years ahead."""
    assert parse_retry_after(value, now_utc=NOW) == seconds


@given(st.text(max_size=60), st.floats(0, 4e9))
def test_any_retry_after_gives_none_or_a_bounded_wait(value, now_utc):
    wait_s = parse_retry_after(value, now_utc=now_utc)
    assert wait_s is None or 0.0 <= wait_s <= MAX_RETRY_AFTER_S


# Hints


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b'{"jobId":"v9qh2to86kg85s03trag","sta', "v9qh2to86kg85s03trag"),
        (b'{jobId: "abc", status:', "abc"),
        (b"<jobId>abc</jobId><sta", "abc"),
        (b'{"jobId":"v9qh2to86', None),
        (b"<jobId>v9qh2to86", None),
        (b'{"jobId":null}', None),
        (b'{"jobId":"one"}{"jobId":"two"}', None),
        (b'{"jobId":"one"}{"jobId":"one"}', "one"),
        (b'{"jobId":"../x"}', None),
        (b"jobId" * 20_000, None),
        (b"", None),
    ],
)
def test_a_hint_is_a_whole_job_id_and_the_only_one(body, hint):
    """An id that was cut off, or one of several, would lead reconciling astray."""
    assert find_job_hint(body) == hint


def test_a_submission_is_a_plain_value():
    body = b'{"jobId":"a","status":"accepted","type":"contacts"}'
    assert parse_submission(body) == Submission(
        job_id="a", state=JobState.ACCEPTED, word="accepted", job_type="contacts"
    )
