"""The words of live control and their lines: what a person may say, and what a process makes of any bytes."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.control.protocol import (
    MAX_LINE_BYTES,
    Ask,
    Drain,
    Pause,
    ProtocolError,
    Refusal,
    Resume,
    SetRate,
    SetWorkers,
    State,
    answer_line,
    command_of,
    read_answer,
    read_request,
    request_line,
    words_of,
)
from bulkjobs.errors import ConfigError
from bulkjobs.settings import Rate

COMMANDS = {
    ("state", None): Ask(),
    ("pause", None): Pause(),
    ("resume", None): Resume(),
    ("drain", None): Drain(),
    ("rate", "900/5m"): SetRate(Rate(count=900, period_s=300.0)),
    ("rate", "none"): SetRate(None),
    ("workers", "12"): SetWorkers(12),
}
STATE = State(
    run_id="r1",
    pid=42,
    paused=True,
    draining=False,
    rate="900/5m",
    window_used=17,
    locked_until="2026-01-01T12:00:00.000Z",
    workers=8,
    in_flight=3,
)


@pytest.mark.parametrize(("words", "command"), COMMANDS.items())
def test_each_command_is_what_its_words_say(words, command):
    assert command_of(*words) == command
    assert words_of(command) == words
    assert read_request(request_line(command)) == command


def test_a_limit_that_is_to_be_found_out_stays_one():
    command = command_of("rate", "auto/1m")
    assert command.rate.auto
    assert read_request(request_line(command)) == command


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fly", None), "'fly' is no command; it may be pause, resume, drain, rate N/TIME or workers N"),
        (("", None), "is no command"),
        (("pause", "5m"), "`pause` takes no value"),
        (("rate", None), "`rate` needs a value; it may be N/TIME"),
        (("rate", "0/5m"), "rate is '0/5m'; it may be N/TIME with N from 1"),
        (("rate", "900/0s"), "rate is '900/0s'"),
        (("workers", None), "`workers` needs a value"),
        (("workers", "0"), "workers is '0'"),
        (("workers", "1025"), "workers is '1025'"),
        (("workers", "some"), "workers is 'some'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(words, says):
    with pytest.raises(ConfigError) as told:
        command_of(*words)
    assert says in str(told.value)


def test_the_name_of_no_command_is_not_repeated_at_length():
    with pytest.raises(ConfigError) as told:
        command_of("x" * 4000, None)
    assert len(str(told.value)) < 200


@pytest.mark.parametrize("answer", [STATE, Refusal("refused", "why"), Refusal("storage", "full")])
def test_an_answer_is_read_as_it_was_written(answer):
    line = answer_line(answer)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) < MAX_LINE_BYTES
    assert read_answer(line) == answer


def test_a_newer_side_may_say_more():
    told = json.loads(answer_line(STATE))
    told["mood"] = "good"
    told["state"]["speed"] = 9
    assert read_answer(json.dumps(told).encode()) == STATE
    assert read_request(b'{"bulkjobs": 1, "command": "pause", "why": "lunch"}') == Pause()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "not JSON"),
        (b"GET / HTTP/1.1\r", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 4000, "not JSON"),
        (b"1" * 4090, "JSON|no object"),
        (b"[]", "no object"),
        (b"null", "no object"),
        (b'{"command": "pause"}', "no object with"),
        (b'{"bulkjobs": 2, "command": "pause"}', "another version of the protocol than 1"),
        (b'{"bulkjobs": "1", "command": "pause"}', "another version"),
        (b'{"bulkjobs": 1}', "A request has a `command`"),
        (b'{"bulkjobs": 1, "command": ["pause"]}', "A request has a `command`"),
        (b'{"bulkjobs": 1, "command": "workers", "value": 8}', "`value` that is text or null"),
        (b'{"bulkjobs": 1, "command": "fly"}', "is no command"),
    ],
)
def test_a_line_that_is_no_request_is_refused_in_words(line, says):
    with pytest.raises(ProtocolError, match=says):
        read_request(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'{"bulkjobs": 1}',
        b'{"bulkjobs": 1, "done": true}',
        b'{"bulkjobs": 1, "done": true, "state": {}}',
        b'{"bulkjobs": 1, "done": false}',
        b'{"bulkjobs": 1, "done": 1, "state": {}}',
    ],
)
def test_a_line_that_is_no_answer_is_refused(line):
    with pytest.raises(ProtocolError):
        read_answer(line)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(line):
    command = None
    with suppress(ProtocolError):
        command = read_request(line)
    assert command is None or words_of(command)
