"""Settings that cannot be used, as a table: the command says which and why, ends with 2, and sends nothing.

A server listens where requests would go; it has to see no connection at all.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.rawhttp import RawHttp, answer

from bulkjobs.__main__ import main

TOKEN = "CANARY-token-of-this-test"
JOB = answer(b'{"jobId":"abc","status":"accepted","type":"contacts"}')
NO_SUCH_API = answer(b"no such page", status="404 Not Found")


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BULKJOBS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", TOKEN)
    (tmp_path / "ids.txt").write_text("1\n2\n3\n")


@pytest.fixture
def server():
    with RawHttp(JOB) as running:
        yield running


def submit(server: RawHttp, *options: str) -> int:
    common = ["--on-unknown", "hold", "--rate", "none", "--max-active-jobs", "none", "--no-forecast"]
    return main(["submit", "ids.txt", *common, "--base-url", server.base_url, *options])


def with_option(name: str, *values: str):
    return [([name, value], name) for value in values]


SETTINGS = {
    "chunk size": [
        *with_option("--chunk-size", "0", "-1", "1.5", "1e3", "0x10", "1_000", "\u0661", "", "10" * 500),
        (["--chunk-size", "10001"], "1 to 10,000 for the endpoint contacts"),
    ],
    "rate": [
        *with_option("--rate", "0/5m", "-1/5m", "nan/5m", "900/nan", "900/inf", "900/0s", "900/-5m", "900"),
        *with_option("--rate", "NaN", "900/5m/5m", "1e400/1s", "900/2d", "9" * 300 + "/1s", ""),
        *with_option("--pace", "0/1s", "NaN", "-1"),
        *with_option("--poll", "NaN", "-1s", "0s", "inf", "2d"),
    ],
    "workers": with_option("--workers", "0", "1000000", "-1", "NaN", "8 9", ""),
    "base URL, http": [(["--base-url", "http://api.example/v1"], "https"), (["--base-url", "http://10.0.0.1"], "https")],
    "base URL, userinfo": [
        (["--base-url", f"https://me:{TOKEN}@api.example/v1"], "user name"),
        (["--base-url", "https://api.example@evil.example/v1"], "user name"),
    ],
    "base URL, other": with_option(
        "--base-url", "https:///v1", "ftp://api.example", "https://api.example/v1?x=1", "https://api.example/#a",
        "https://api.example/a b", "https://api.example\\@evil.example", "https://[::1", "https://a:99999/",
        "https://[2606:4700::1111]1", "https://a[2606:4700::1111]/", "https://[fe80::1%0A]/", "https://" + "a" * 300,
        "//api.example", "https://", "javascript:alert(1)", "https://\u202eelpmaxe", "https://a\x1b[2Jb/", "https://a\nb/",
    ),
    "webhook to localhost": [
        (["--webhook", f"https://{host}/hook?key={TOKEN}"], "webhook")
        for host in (
            "localhost", "LOCALHOST.", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]",
            "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "[fe80::1]", "[fd00::1]", "224.0.0.1",
        )
    ],
    "webhook, other": [
        (["--webhook", f"http://me.example/?key={TOKEN}"], "https"),
        (["--webhook", f"https://me:{TOKEN}@me.example/"], "user name"),
        (["--webhook", f"https://me.example/#{TOKEN}"], "fragment"),
    ],
    "contradictions": [
        (["--json", "--sink", "-"], "both want stdout"),
        (["--access-token-file", "token.txt"], "two access tokens"),
        (["--sink", "ids.txt"], "ids.txt"),
        (["--endpoint", "companies"], "no endpoint of the name given (--endpoint)"),
        (["--accept", "yaml"], "json or xml"),
        (["--config", "absent.toml"], "absent.toml does not exist"),
        (["--sink", "s3://bucket"], "--sink"),
    ],
}  # fmt: skip
CASES = [(name, number) for name, cases in SETTINGS.items() for number in range(len(cases))]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_setting_that_cannot_be_used_is_one_message_and_sends_nothing(name, number, server, capsys):
    options, said = SETTINGS[name][number]
    assert submit(server, *options) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()
    assert len(err) < 600
    assert "Traceback" not in err
    assert TOKEN not in err
    assert server.accepted == 0
    assert not Path("ids.txt.run").exists()


ENVIRONMENT = {
    "token with newline": {"BULKJOBS_ACCESS_TOKEN": f"{TOKEN}\nHost: evil.example"},
    "token with a carriage return": {"BULKJOBS_ACCESS_TOKEN": f"{TOKEN}\r"},
    "token with a blank": {"BULKJOBS_ACCESS_TOKEN": f"Bearer {TOKEN}"},
    "token outside ASCII": {"BULKJOBS_ACCESS_TOKEN": f"{TOKEN}\u202e"},
    "client secret with newline": {"BULKJOBS_CLIENT_ID": "me", "BULKJOBS_CLIENT_SECRET": f"{TOKEN}\n"},
    "client id alone": {"BULKJOBS_CLIENT_ID": "me"},
    "no credentials": {"BULKJOBS_ACCESS_TOKEN": ""},
    "workers": {"BULKJOBS_WORKERS": "0"},
    "pace": {"BULKJOBS_PACE": "NaN"},
    "chunk size": {"BULKJOBS_CHUNK_SIZE": "10001"},
}


@pytest.mark.parametrize("case", ENVIRONMENT)
def test_the_environment_is_held_to_the_same(case, server, capsys, monkeypatch):
    """No text from it is shown that could be a secret."""
    for name, value in ENVIRONMENT[case].items():
        monkeypatch.setenv(name, value)
    assert submit(server) == 2
    err = capsys.readouterr().err
    assert err
    assert TOKEN not in err
    assert "Traceback" not in err
    assert server.accepted == 0


FILES = {
    "no TOML": b"workers = = 3",
    "no UTF-8": b'sink = "\xff"',
    "NUL": b"workers\x00 = 3",
    "unknown option": b"wrokers = 3",
    "a token": f'access-token = "{TOKEN}"'.encode(),
    "a webhook of another kind": b"webhook = 3",
    "NaN": b'pace = "nan"',
    "float workers": b"workers = 3.0",
    "NaN workers": b"workers = nan",
    "huge workers": b"workers = " + b"9" * 5_000,
    "bool workers": b"workers = true",
    "table": b"[workers]\nx = 1",
    "list of lists": b"sink = [[]]",
    "date": b"poll = 2026-01-01",
    "deep": b"a = " + b"[" * 5_000 + b"]" * 5_000,
    "deep keys": b".".join([b"a"] * 5_000) + b" = 1",
    "escape sequence": b'accept = "\\u001b[2J"',
    "escape sequence as a key": b'"\\u001b[2J" = 1',
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_options_is_held_to_the_same(case, server, capsys):
    """Whatever is in it."""
    Path("bulkjobs.toml").write_bytes(FILES[case])
    assert submit(server) == 2
    err = capsys.readouterr().err
    assert "bulkjobs.toml" in err
    assert TOKEN not in err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()
    assert server.accepted == 0


def test_a_trailing_slash_is_no_part_of_the_address(server):
    """One or several of them: the path has no empty part."""
    assert submit(server, "--base-url", server.base_url + "//") == 0
    assert [one.line for one in server.connections] == ["POST /api/v1/contact/job HTTP/1.1"]


# The run directory


def test_a_run_directory_on_a_network_file_system_sends_nothing(server, capsys, monkeypatch):
    """A ledger can be damaged there."""
    monkeypatch.setattr("bulkjobs.ledger.lock.filesystem_at", lambda *_: "nfs4")
    assert submit(server) == 6
    assert "lies on a network file system (nfs4)" in capsys.readouterr().err
    assert server.accepted == 0


@pytest.mark.parametrize("place", ["/proc/ids.run", "/dev/null/ids.run", "x" * 300, "a\x00b"])
def test_a_run_directory_that_cannot_be_made_sends_nothing(place, server, capsys):
    """Read-only, below a file, or with a name that no file can have."""
    assert submit(server, "--run", place) in (2, 6)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "bug" not in err
    assert server.accepted == 0


def test_a_ledger_that_cannot_be_written_sends_nothing(server, capsys):
    """It is no database, or its name is taken by something else."""
    Path("ids.txt.run").mkdir()
    Path("ids.txt.run/ledger.db").mkdir()
    assert submit(server) == 6
    assert "bug" not in capsys.readouterr().err
    assert server.accepted == 0


# Another session of the same run


def begin(server: RawHttp) -> None:
    """Begins a run that stops with everything pending."""
    server.script = NO_SUCH_API
    assert submit(server) == 5
    server.script = JOB
    server.accepted = 0
    server.connections.clear()


def other_sources() -> list[str]:
    Path("other.txt").write_text("4\n")
    return ["submit", "other.txt", "--run", "ids.txt.run"]


RESUMED = {
    "another source": (other_sources, "was begun with ids.txt, not other.txt"),
    "one more source": (
        lambda: [*other_sources()[:2], "ids.txt", "--run", "ids.txt.run"],
        "was begun with ids.txt, not other.txt, ids.txt",
    ),
    "another chunk size": (lambda: ["submit", "ids.txt", "--chunk-size", "2"], "chunk size 10000, not 2"),
    "no duplicates dropped": (lambda: ["submit", "ids.txt", "--no-dedupe"], "dedupe True, not False"),
    "another endpoint": (
        lambda: ["submit", "ids.txt", "--endpoint", "target-contacts"],
        "endpoint 'contacts', not 'target-contacts'",
    ),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_goes_on_only_as_what_it_was_begun_as(case, server, capsys):
    """The alternative is to pay for ids twice."""
    begin(server)
    make, said = RESUMED[case]
    capsys.readouterr()
    common = [
        "--on-unknown",
        "hold",
        "--rate",
        "none",
        "--max-active-jobs",
        "none",
        "--base-url",
        server.base_url,
    ]
    assert main([*make(), *common]) == 2
    assert said in capsys.readouterr().err
    assert server.accepted == 0


def test_a_run_of_another_account_is_refused(server, capsys, monkeypatch):
    """The account is known by the client id; a token alone says nothing of it."""
    monkeypatch.setenv("BULKJOBS_CLIENT_ID", "one-account")
    monkeypatch.setenv("BULKJOBS_CLIENT_SECRET", "its-secret")
    begin(server)
    monkeypatch.setenv("BULKJOBS_CLIENT_ID", "another-account")
    capsys.readouterr()
    assert submit(server) == 2
    assert "account 'one-account', not 'another-account'" in capsys.readouterr().err
    assert server.accepted == 0


def test_a_run_goes_on_with_the_same_settings(server, capsys):
    """Which shows that the refusals above have their reason."""
    begin(server)
    capsys.readouterr()
    assert submit(server, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ids"]["accepted"] == 3
    assert len(server.submits) == 1
