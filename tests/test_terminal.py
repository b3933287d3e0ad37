"""Hostile text on a terminal: no byte from outside steers it, wherever the text comes in and wherever it is shown."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support.rawhttp import RawHttp, answer

from bulkjobs.__main__ import main
from bulkjobs.jsonlines import json_line

ROOT = Path(__file__).parent.parent
HOSTILE = (
    "\x1b]0;title\x07", "\x1b[2J", "\x1b[1;31m", "\x9b2J", "\x9d0;t\x9c", "\u202eevil", "\u2066hidden\u2069", "\x7f",
    "\x08\x08", "\rover", "\x00", "\u2028", "\u200b", "\ue000", "\ud800",
)  # fmt: skip
"""Titles, cleared screens, colours, the second control set, turned directions, and what overwrites a line."""
TEXT = "".join(HOSTILE[:-1])
STEERING = {char for char in TEXT if not char.isprintable()}
IDS = f"1\n2\nx{TEXT}y\n{chr(0x202E)}3\n4\n"

LAID_OUT = {"\n"}


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BULKJOBS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", "a-token-of-this-test")


def in_json(**fields: str) -> bytes:
    return json.dumps(fields).encode()


ANSWERS = {
    "accepted": answer(in_json(jobId="abc", status=f"accepted{TEXT}", type=TEXT)),
    "error object with 200": answer(in_json(errorNumber=TEXT, errorMessage=TEXT, diagnosticCode=TEXT)),
    "bad ids": answer(in_json(errorNumber="400-102", errorMessage=TEXT), status="400 Bad"),
    "no quota": answer(in_json(errorMessage=f"quota exceeded {TEXT}"), status="400 Bad"),
    "unknown error": answer(TEXT.encode("utf-8", "replace"), status="500 Oops"),
    "page": answer(TEXT.encode(), status="200 OK", headers=("Content-Type: text/\x9bhtml\u202e",)),
    "bytes": answer(bytes(range(256)) * 4, status="503 Oops"),
    "401": answer(in_json(status=TEXT), status="401 No"),
    "403": answer(in_json(message=TEXT), status="403 No"),
    "garbage": lambda connection: connection.send(b"\x1b[2J\x9b2J BAD\r\n\r\n"),
    "reason phrase": lambda connection: connection.send(
        b"HTTP/1.1 500 \x1b[2J\x9b2J\r\nContent-Length: 0\r\n\r\n"
    ),
}


def command(server: RawHttp, source: str, *more: str) -> list[str]:
    common = ["--on-unknown", "hold", "--rate", "none", "--max-active-jobs", "none", "--chunk-size", "2"]
    return ["submit", source, *common, "--workers", "1", "--base-url", server.base_url, *more]


def is_harmless(text: str) -> None:
    found = {char for char in text if not char.isprintable() and char not in LAID_OUT}
    assert found == set(), text


def all_files_are_harmless(folder: Path) -> None:
    """Those that people look at; the ledger and the ids of refused chunks are not text or only digits."""
    reports = [path for path in folder.rglob("*") if path.suffix in (".jsonl", ".json", ".txt")]
    assert reports
    for path in reports:
        is_harmless(path.read_text("utf-8"))


@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_answer_steers_a_terminal(case, form, tmp_path, capsys):
    """Not by the log, the account, `status`, or a report that somebody prints."""
    (tmp_path / "ids.txt").write_text(IDS, "utf-8")
    with RawHttp(ANSWERS[case]) as server:
        code = main(command(server, "ids.txt", "--log-format", form))
    assert code in (3, 4, 5)
    assert main(["status", "ids.txt.run"]) == 0
    assert main(["status", "ids.txt.run", "--json"]) == 0
    out, err = capsys.readouterr()
    is_harmless(out)
    is_harmless(err)
    all_files_are_harmless(tmp_path / "ids.txt.run")


NAMES = {
    "escape": "a\x1b[2J\x1b]0;t\x07.txt",
    "direction": "a\u202etxt.exe",
    "second control set": "a\x9b2J.txt",
    "line end": "a\nbulkjobs: all is well\r.txt",
    "no UTF-8": os.fsdecode(b"a\xff\x9b2J.txt"),
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("more", [[], ["--json"], ["--log-format", "json"], ["--sink", "-"]], ids=repr)
def test_no_file_name_steers_a_terminal(case, more, tmp_path, capsys):
    """Archives and shares bring names that nobody has typed."""
    name = NAMES[case]
    Path(name).write_text(IDS, "utf-8")
    with RawHttp(ANSWERS["unknown error"]) as server:
        assert main(command(server, name, *more)) == 4
        assert main(command(server, name, *more)) == 4
        main(command(server, "missing" + name))
    main(["status", name + ".run"])
    main(["status", name])
    main(["resume", "missing" + name])
    main(["submit", name, "--config", name])
    main(["submit", name, "--access-token-file", name])
    main(["submit", name, "--sink", f"missing/{name}.jsonl"])
    main(["submit", name, "--run", name])
    main(["submit", name, f"--{name}"])
    main([name])
    out, err = capsys.readouterr()
    is_harmless(out)
    is_harmless(err)
    assert "bulkjobs: all is well" not in err.splitlines()
    all_files_are_harmless(tmp_path / (name + ".run"))


def on_a_terminal(server: RawHttp, source: str) -> str:
    control, terminal = pty.openpty()
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "BULKJOBS_ACCESS_TOKEN": "a-token-of-this-test",
        "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bulkjobs", *command(server, source)],
        env={**environ, "TERM": "xterm-256color", "COLUMNS": "300", "LINES": "50", "LC_ALL": "C.UTF-8"},
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(control, 65_536):
            shown += piece
    except OSError:  # the other side was closed
        pass
    finally:
        os.close(control)
        process.kill()
        process.wait()
    return shown.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("case", ["unknown error", "401", "error object with 200"])
def test_the_display_steers_the_terminal_by_itself_alone(case, tmp_path):
    """It moves the cursor, so only what came from outside is looked for."""
    name = NAMES["escape"] + "\u202e\x9b"
    Path(name).write_text(IDS, "utf-8")
    with RawHttp(ANSWERS[case]) as server:
        shown = on_a_terminal(server, name)
    assert "ids read" in shown or "read" in shown
    for piece in ("\x1b]0;", "\x07", "\x1b[2J", "\u202e", "\u2066", "\x9b", "\x7f", "\x08", "\u200b", "\x00"):
        assert piece not in shown, repr(piece)


@pytest.mark.parametrize("char", sorted(STEERING), ids=ascii)
def test_a_line_of_json_is_printable_and_says_the_same(char):
    """Escaped, not taken out: a program reads what was there."""
    line = json_line({"text": f"a{char}b\U000e0041"})
    assert json.loads(line) == {"text": f"a{char}b\U000e0041"}
    is_harmless(line.decode())
    assert line.endswith(b"\n")
