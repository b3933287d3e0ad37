"""The first inputs of each fuzz target, so that every commit meets hostile bytes; `soak/fuzz.py` goes on from there."""

from __future__ import annotations

import gzip
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from soak.fuzz import check_one, damaged, main, targets

TARGETS = {target.name: target for target in targets()}


@pytest.mark.parametrize("name", TARGETS)
@given(seed=st.integers(0, 2**64))
@settings(max_examples=60, deadline=None)
def test_damaged_inputs_have_no_surprise_for_anybody(name, seed):
    """A failure shows the seed, and the input as base64."""
    target = TARGETS[name]
    draw = random.Random(seed)
    check_one(target, damaged(draw, target.corpus), draw)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
@settings(max_examples=40, deadline=None)
def test_arbitrary_bytes_have_no_surprise_for_anybody(name, data):
    """What damage to good inputs never makes."""
    check_one(TARGETS[name], data, random.Random(len(data)))


CUT_HEADER = b"\x1f\x8b\x08\x0a\0\0\0\0\0\xffids.txt\0" + gzip.compress(b"1\n2\n", mtime=0)[10:]
ODD_CODES = bytes.fromhex("1f8b0800000000000203edc1310100000c02a0df3e7633fe4aec4436") + bytes(67)
ODD_CODES += bytes.fromhex("e05b7a3f9cdfc872110100")
FOUND = {
    "a backslash of a secret, escaped": ("masking", b"abc"),
    "text behind an address in brackets": ("addresses", b"https://[::ffff:10.0.0.1]1"),
    "text before an address in brackets": ("addresses", b"https://1e999[2606:4700::1111]/x"),
    "an escape in an address in brackets": ("addresses", b"https://[::fff%0Af:10.0.0.1]/"),
    "a host of any length": ("addresses", b"http://127." + b"9" * 4_000),
    "a second job id under an escaped name": ("answers", b'{"jobId":"one","jobI\\u0064":"two"}'),
    "a source without a name": ("command", b""),
    "the root as a source": ("command", b"/"),
    "a name that no file can have": ("command", b"x" * 300),
    "an escape sequence as an option": ("command", b"ids.txt\n--x\x1b[2J"),
    "an escape sequence as a file": ("command", b"ids.txt\n--config\n\x1b[2J"),
    "a host of the greatest length": ("addresses", b"http://" + b"a." * 123 + b"example"),
    "a host that begins like an address": ("addresses", b"https://127.1e.e92xample:8443/hook?key=a&b=c"),
    "a year of four digits below 100": ("times", b"Sun, 06 Nov 0044 08:49:37 GMT"),
    "the fields of a header of gzip, cut": ("gzip", CUT_HEADER),
    "codes in gzip that zlib does not take": ("gzip", ODD_CODES),
    "an address as another option": ("option-file", b'accept = "ps://me.example/?key=cAnArY"'),
    "options nested too deep": ("option-file", b"a = " + b"[" * 5_000),
}
"""What was found once."""


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_once_is_mended(case):
    name, data = FOUND[case]
    for seed in range(20):
        check_one(TARGETS[name], data, random.Random(seed))


def test_the_long_command_ends_with_1_and_says_how_to_see_a_finding_again(monkeypatch, capsys):
    """A fuzzer that cannot fail proves nothing."""
    assert main(["--seconds", "0.2", "--target", "times"]) == 0
    monkeypatch.setattr("soak.fuzz.parse_retry_after", lambda *_, **__: -1.0)
    assert main(["--seconds", "5", "--seed", "7", "--target", "times", "--findings", "1"]) == 1
    assert "FOUND: --seed 7 --target times --only 0" in capsys.readouterr().err
