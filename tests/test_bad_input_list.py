"""The list of bad inputs that this project promises to survive, and the case that proves each of them.

A name on the left is a promise; on the right stand rows of the tables in the three modules, or a test of its own.
"""

from __future__ import annotations

import pytest
import test_bad_answers
import test_bad_inputs
import test_bad_settings
import test_parquet

TEXTS, CONTAINERS = test_bad_inputs.TEXTS, test_bad_inputs.CONTAINERS
ANSWERS = test_bad_answers.ANSWERS
SETTINGS, ENVIRONMENT, RESUMED = (
    test_bad_settings.SETTINGS,
    test_bad_settings.ENVIRONMENT,
    test_bad_settings.RESUMED,
)


def rows(table, *names):
    return [(table, name) for name in names]


def proofs(module, *names):
    return [(vars(module), name) for name in names]


SOURCES = {
    "empty file": rows(TEXTS, "empty"),
    "only blanks": rows(TEXTS, "only blanks"),
    "no final newline": rows(TEXTS, "no final newline"),
    "CRLF": rows(TEXTS, "CRLF"),
    "lone CR": rows(TEXTS, "lone CR"),
    "mixed ends": rows(TEXTS, "mixed ends"),
    "UTF-8 BOM": rows(TEXTS, "UTF-8 mark", "UTF-8 mark inside"),
    "UTF-16 LE and BE": rows(TEXTS, "UTF-16 LE", "UTF-16 BE"),
    "Latin-1 bytes": rows(TEXTS, "Latin-1"),
    "invalid UTF-8": rows(TEXTS, "invalid UTF-8"),
    "NUL in a line": rows(TEXTS, "NUL in a line", "NULs only"),
    "U+2028 and U+0085 in a line": rows(TEXTS, "U+2028 and U+0085", "vertical tab and form feed"),
    "non-breaking and zero-width spaces": rows(TEXTS, "no-break and zero-width space"),
    "tabs": rows(TEXTS, "tabs"),
    "Arabic and superscript digits": rows(TEXTS, "other digits"),
    "1_2": rows(TEXTS, "underscore"),
    "+5": rows(TEXTS, "plus"),
    "-5": rows(TEXTS, "minus"),
    "0": rows(TEXTS, "zero"),
    "007": rows(TEXTS, "leading zeros"),
    "20 digits": rows(TEXTS, "20 digits"),
    "2^63 and 2^64": rows(TEXTS, "2^63 and 2^64"),
    "1e5 and 1.0": rows(TEXTS, "exponent and point"),
    "a line of a gibibyte": proofs(test_bad_inputs, "test_a_line_of_a_gibibyte_is_one_invalid_id"),
    "duplicates": rows(TEXTS, "adjacent duplicates")
    + proofs(test_bad_inputs, "test_duplicates_far_apart_and_across_files_are_found"),
    "header row": rows(TEXTS, "header row"),
    "CSV, unclosed quote": rows(TEXTS, "unclosed quote", "quoted column"),
    "CSV, wrong column and short rows": rows(TEXTS, "short and long rows")
    + rows(CONTAINERS, "CSV with columns", "CSV without the column"),
}
FILES = {
    "truncated gzip": rows(CONTAINERS, "truncated gzip", "gzip signature only"),
    "gzip with a bad CRC": rows(CONTAINERS, "bad check sum"),
    "gzip and garbage": rows(CONTAINERS, "garbage behind"),
    "gzip bomb": rows(CONTAINERS, "bomb"),
    "gzip named .txt and the reverse": proofs(test_bad_inputs, "test_a_name_does_not_decide_what_a_file_is"),
    "truncated Parquet": rows(CONTAINERS, "Parquet, truncated"),
    "Parquet without the column, with nulls, float ids": rows(
        CONTAINERS, "Parquet, without the column", "Parquet, float ids"
    )
    + proofs(test_parquet, "test_rows_without_an_id_are_told_on_their_lines"),
    "changed or truncated during the run": proofs(
        test_bad_inputs, "test_a_file_that_changes_during_the_run_ends_with_2"
    ),
    "directory, FIFO, missing, unreadable": proofs(
        test_bad_inputs, "test_what_is_no_readable_file_is_refused_before_there_is_a_run"
    ),
}
RESPONSES = {
    "empty 200": rows(ANSWERS, "empty", "blanks only"),
    "white space first": rows(ANSWERS, "white space first", "white space before XML"),
    "malformed JSON": rows(ANSWERS, "malformed JSON", "trailing data"),
    "unquoted keys": rows(ANSWERS, "unquoted keys"),
    "JSON array": rows(ANSWERS, "JSON array"),
    "jobId of the wrong kind": rows(
        ANSWERS,
        *("jobId missing", "jobId null", "jobId number", "jobId float", "jobId empty", "jobId of 10 KB"),
        *("jobId with ../", "jobId with a newline"),
    ),
    "duplicate keys": rows(ANSWERS, "duplicate keys", "duplicate keys that agree"),
    "wrong case of keys": rows(ANSWERS, "other case of keys", "two spellings that disagree"),
    "wrong root in XML": rows(ANSWERS, "other root in XML"),
    "two jobIds": rows(ANSWERS, "two jobIds", "two jobIds in parts"),
    "DOCTYPE": rows(ANSWERS, "DOCTYPE, internal entity", "DOCTYPE, external entity", "billion laughs"),
    "XML labelled JSON and the reverse": rows(ANSWERS, "XML labelled JSON", "JSON labelled XML"),
    "HTML login page": rows(ANSWERS, "HTML login page"),
    "BOM": rows(ANSWERS, "byte order mark"),
    "UTF-16 XML": rows(ANSWERS, "UTF-16 XML"),
    "depth 100,000": rows(ANSWERS, "depth 100,000 of JSON", "depth 100,000 of XML", "as deep as fits, JSON"),
    "1 GB": rows(ANSWERS, "1 GB with its length", "endless without a length")
    + proofs(test_bad_answers, "test_a_gigabyte_is_read_up_to_the_cap"),
    "error object with 200": rows(ANSWERS, "error object", "error object in XML"),
}
CONFIGURATION = {
    "chunk size": rows(SETTINGS, "chunk size"),
    "rate": rows(SETTINGS, "rate"),
    "workers": rows(SETTINGS, "workers"),
    "base URL": rows(SETTINGS, "base URL, http", "base URL, userinfo")
    + proofs(test_bad_settings, "test_a_trailing_slash_is_no_part_of_the_address"),
    "token with a newline": rows(ENVIRONMENT, "token with newline"),
    "webhook to localhost": rows(SETTINGS, "webhook to localhost"),
    "ledger on NFS or read-only": proofs(
        test_bad_settings,
        "test_a_run_directory_on_a_network_file_system_sends_nothing",
        "test_a_run_directory_that_cannot_be_made_sends_nothing",
    ),
    "resume with another source, endpoint or account": rows(RESUMED, "another source", "another endpoint")
    + proofs(test_bad_settings, "test_a_run_of_another_account_is_refused"),
}
KINDS = {
    "sources": (SOURCES, 28),
    "files": (FILES, 9),
    "answers": (RESPONSES, 18),
    "settings": (CONFIGURATION, 8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_bad_input_is_there_in_full(kind):
    """63 in all."""
    listed, count = KINDS[kind]
    assert len(listed) == count


@pytest.mark.parametrize("kind", KINDS)
def test_each_bad_input_has_a_case_that_proves_it(kind):
    """A row that was renamed or taken out would leave a promise without its proof."""
    missing = [
        (name, case)
        for name, proofs in KINDS[kind][0].items()
        for table, case in proofs
        if not table.get(case)
    ]
    assert missing == []
    assert all(KINDS[kind][0].values())
