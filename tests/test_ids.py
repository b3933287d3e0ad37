"""What is an id and what is not, with the reason a person reads."""

import pytest

from bulkjobs.ids import fault_of, shown


@pytest.mark.parametrize("text", [b"1", b"225", b"13496440", b"9" * 19, b"9223372036854775808"])
def test_plain_digits_are_an_id(text):
    assert fault_of(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"0", "zero is not an id"),
        (b"000", "zero is not an id"),
        (b"007", "leading zero"),
        (b"12345678901234567890", "more than 19 digits"),
        (b"18446744073709551616", "more than 19 digits"),
        (b"00000000000000000007", "more than 19 digits"),
        (b"+5", "signed number"),
        (b"-5", "signed number"),
        (b"1_2", "not a number"),
        (b"1e5", "not a number"),
        (b"1.0", "decimal point"),
        (b"0x1f", "not a number"),
        (b"contactId", "not a number"),
        (b'"225"', "not a number"),
        (b'"225', "not a number"),
        (b"225;226", "not a number"),
        (b"1 2", "blank inside"),
        (b"1\t2", "blank inside"),
        (b"1\r2", "carriage return"),
        (b"12\r", "carriage return"),
        (b"1\x002", "NUL byte"),
        (b"\xff\xfe1", "UTF-16"),
        ("٣".encode(), "not an ASCII digit"),
        ("²".encode(), "not an ASCII digit"),
        ("１２".encode(), "not an ASCII digit"),
        ("1\u00a0".encode(), "not an ASCII digit"),
        ("\u200b1".encode(), "not an ASCII digit"),
        ("1\u20282".encode(), "not an ASCII digit"),
        ("1\u00852".encode(), "not an ASCII digit"),
        ("é".encode("latin-1"), "not an ASCII digit"),
        (b"\x80\xff", "not an ASCII digit"),
        (b"1\x0b", "not a number"),
        (b"12\x1a", "not a number"),
    ],
)
def test_anything_else_is_refused_with_a_reason(text, reason):
    assert reason in (fault_of(text) or "")


def test_what_is_shown_is_printable_and_short():
    """A report never carries control bytes or a megabyte of rubbish."""
    assert shown(b"a\x00b\n\xff") == "a\\x00b\\n\\xff"
    assert shown("é".encode()) == "é"
    assert len(shown(b"9" * 10_000)) == 200
    assert len(shown(b"\x00" * 10_000)) == 200
