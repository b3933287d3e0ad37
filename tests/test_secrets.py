"""Canaries: whatever goes wrong, no secret is written anywhere, in no form in which anybody could read it.

The real command runs against a server that misbehaves and echoes everything it was sent. Afterwards every byte that was
written is searched: both streams, the run directory with its ledger, and the temporary folder.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import logging
import os
import pty
import signal
import ssl
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from support.rawhttp import RawHttp, answer, unused_port

import bulkjobs.client
from bulkjobs import Client, Settings
from bulkjobs.__main__ import main
from bulkjobs.settings import Secret

MARK = "cAnArY"
"""Begins every secret and is searched for, so that a part of one is found too."""
TOKEN = f"{MARK}/t0k3n+<&>'\"==x"
CLIENT_ID = f"{MARK}-client-id"
CLIENT_SECRET = f"{MARK}&s3cr3t<>\"'+/=%_;x"
PASSWORD = f"{MARK}-p4ssw0rd"
WEBHOOK = f"https://me.example/hook?key={PASSWORD}&x=%3Cy%3E"
PATIENCE_S = 30.0
ROOT = Path(__file__).parent.parent

WRITERS = {
    "plain": lambda text: text,
    "quoted": lambda text: quote(text, safe=""),
    "quoted twice": lambda text: quote(quote(text, safe=""), safe=""),
    "every character quoted": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "HTML": html.escape,
    "HTML twice": lambda text: html.escape(html.escape(text)),
    "XML by number": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "XML by name": lambda text: (
        html.escape(text)
        .replace("/", "&sol;")
        .replace("+", "&plus;")
        .replace("=", "&equals;")
        .replace("_", "&lowbar;")
    ),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON of HTML": lambda text: json.dumps(html.escape(text)).replace("&", "\\u0026")[1:-1],
    "JSON of JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "JSON by number": lambda text: "".join(f"\\u{ord(char):04X}" for char in text),
}
"""What servers do to a text before they show it."""


def forms_of_mark() -> list[bytes]:
    """Gives the mark as it would look after each of these, and in base64 at each place of three."""
    forms = {write(MARK).lower() for write in WRITERS.values()}
    for before in range(3):
        text = base64.b64encode(b"x" * before + MARK.encode() + b"xxx").decode()
        forms.add(text[before + 1 : 8])
    return sorted(form.encode() for form in forms)


FORMS = forms_of_mark()


def shows(content: bytes) -> list[bytes]:
    """Gives every form of the mark that is in some bytes."""
    lower = content.lower()
    return [form for form in FORMS if form in (content if form.isalnum() and not form.islower() else lower)]


def echo(connection, *, how="plain") -> bytes:
    """Gives all that a request held, as a server might show it."""
    text = connection.head.decode("latin-1")
    return f"<pre>{WRITERS[how](text)}</pre> {WRITERS[how](TOKEN)} {WRITERS[how](WEBHOOK)}".encode()


def echoing(status: str, *headers: str, how="plain"):
    return lambda connection: answer(echo(connection, how=how), status=status, headers=headers)(connection)


def cut_in(secret: str):
    """Breaks off in the middle of a secret, after a status."""

    def script(connection):
        at = connection.head.decode("latin-1").find(secret) + len(MARK) + 3
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + connection.head[:at])

    return script


def flood(connection):
    """Cuts the token with the cap of 64 KiB."""
    connection.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n" + b"x" * (65_536 - 9))
    connection.send_for_ever(TOKEN.encode())


def garbage(connection):
    connection.send(b"BAD " + connection.head.replace(b"\r\n", b" ") + b"\r\n\r\n")


def job_named_after_the_token(connection):
    answer(json.dumps({"jobId": MARK + "abcdefgh", "status": TOKEN, "message": WEBHOOK}).encode())(connection)


FAULTS = {
    "401": echoing("401 Unauthorized"),
    "403": echoing("403 Forbidden"),
    "429": echoing("429 Slow down", f"Retry-After: {TOKEN}"),
    "400 unknown": answer(
        json.dumps({"errorNumber": "400-999", "message": TOKEN}).encode(), status="400 Bad"
    ),
    "400 bad ids": answer(
        json.dumps({"errorNumber": "400-102", "errorMessage": f"{TOKEN} {WEBHOOK}"}).encode(),
        status="400 Bad",
    ),
    "500 plain": echoing("500 Oops"),
    "503 in the content type": echoing("503 Busy", f"Content-Type: text/{TOKEN}", "X: y"),
    "503 at the end of a long header": echoing("503 Busy", f"Content-Type: {'x' * 195}{TOKEN}"),
    **{f"500 {how}": echoing("500 Oops", how=how) for how in WRITERS if how != "plain"},
    "200 HTML": echoing("200 OK", "Content-Type: text/html"),
    "200 a used token as job": answer(json.dumps({"jobId": TOKEN, "status": "accepted"}).encode()),
    "redirect": echoing("302 Found", f"Location: https://evil.example/?accessToken={quote(TOKEN)}"),
    "redirect to the webhook": echoing("307 Moved", f"Location: {WEBHOOK}"),
    "cut in the token": cut_in(TOKEN),
    "cut by the cap": flood,
    "garbage": garbage,
    "reset": lambda connection: connection.reset(),
    "close": lambda connection: None,
}


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    home = tmp_path / "work"
    home.mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(home)
    for name in [name for name in os.environ if name.startswith("BULKJOBS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    # One nonce for every run: the pattern of an address with a nonce takes longer to make than a run.
    monkeypatch.setattr("bulkjobs.ledger.ledger.secrets.token_bytes", bytes)
    (home / "ids.txt").write_text("1\n2\n3\n")


def options(server: RawHttp, *more: str) -> list[str]:
    common = ["--on-unknown", "hold", "--rate", "none", "--max-active-jobs", "none", "--chunk-size", "2"]
    common += ["--workers", "1", "--webhook", WEBHOOK, "--base-url", server.base_url]
    return ["submit", "ids.txt", *common, "--login-url", server.base_url + "/login", *more]


def nothing_shows(folder: Path, *texts: str) -> None:
    """Searches everything that was written."""
    for text in texts:
        assert shows(text.encode("utf-8", "surrogateescape")) == [], text
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert shows(path.read_bytes()) == [], path
        assert shows(os.fsencode(path)) == []


def test_the_search_finds_a_secret_in_every_form():
    """A search that finds nothing proves nothing."""
    for write in WRITERS.values():
        for secret in (TOKEN, CLIENT_SECRET, WEBHOOK):
            assert shows(f"x {write(secret)} y".encode()), write(secret)
    for before in range(4):
        assert shows(base64.b64encode(b"x" * before + TOKEN.encode()))
    assert shows(b"an innocent text with birds, 100%25 &amp; \\u0041") == []


SHAPES = {"text": [], "JSON log": ["--log-format", "json"], "JSON": ["--json"]}


IN_EVERY_SHAPE = ("401", "500 plain", "500 HTML", "400 bad ids", "200 HTML", "cut in the token")
CASES = [(fault, shape) for fault in FAULTS for shape in SHAPES if shape == "text" or fault in IN_EVERY_SHAPE]


@pytest.mark.parametrize(("fault", "shape"), CASES)
def test_no_secret_is_written_whatever_the_server_answers(
    *, fault, shape, tmp_path, monkeypatch, capfd, caplog
):
    """In the streams, the reports, the ledger and its log, and in what the libraries log at DEBUG."""
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", TOKEN)
    more = list(SHAPES[shape])
    if fault == "429":
        more += ["--lockout", "50ms"]
    caplog.set_level(logging.DEBUG)
    calls = []

    def script(connection):
        calls.append(1)
        if fault != "429" or len(calls) < 3:
            FAULTS[fault](connection)
        else:
            answer(b'{"message":"gone"}', status="410 Gone")(connection)

    with RawHttp(script) as server:
        code = main(options(server, *more))
    out, err = capfd.readouterr()
    assert code in (3, 4, 5)
    assert server.submits
    assert TOKEN.encode() in server.submits[0].head  # it was sent, and could have been shown
    nothing_shows(tmp_path, out, err, caplog.text)


@pytest.mark.parametrize("how", ["plain", "quoted", "XML by name", "JSON of HTML"])
@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "500 Oops"])
def test_no_secret_is_written_whatever_a_login_is_answered(
    *, how, status, tmp_path, monkeypatch, capfd, caplog
):
    """Its address holds the client secret, which servers echo; its good answer holds the token."""
    monkeypatch.setenv("BULKJOBS_CLIENT_ID", "a-client")
    monkeypatch.setenv("BULKJOBS_CLIENT_SECRET", CLIENT_SECRET)
    monkeypatch.setattr("bulkjobs.account.auth._RETRY_BASE_S", 0.001)
    caplog.set_level(logging.DEBUG)
    with RawHttp(echoing(status, how=how)) as server:
        assert main(options(server, "--log-format", "json")) == 5
    out, err = capfd.readouterr()
    assert "BULKJOBS_CLIENT_SECRET" in err or "login" in err
    nothing_shows(tmp_path, out, err, caplog.text)


def test_no_secret_is_written_by_a_run_that_goes_well(tmp_path, monkeypatch, capfd, caplog):
    """A minted token too; the run directory knows the account by the client id, which is no secret."""
    monkeypatch.setenv("BULKJOBS_CLIENT_ID", "a-client")
    monkeypatch.setenv("BULKJOBS_CLIENT_SECRET", CLIENT_SECRET)
    caplog.set_level(logging.DEBUG)

    def script(connection):
        if "/login" in connection.line:
            answer(json.dumps({"accessTokenDetails": {"accessToken": TOKEN}}).encode())(connection)
        else:
            answer(
                json.dumps({"jobId": f"job{connection.number}", "status": "accepted", "type": TOKEN}).encode()
            )(connection)

    with RawHttp(script) as server:
        assert main(options(server)) == 0
    assert "a-client" not in "".join(capfd.readouterr())
    nothing_shows(tmp_path, *capfd.readouterr(), caplog.text)


class NoTls(RawHttp):
    """Speaks as soon as a connection stands; a TLS greeting has no end that it could wait for."""

    def _answer(self, sock):
        sock.sendall(b"no TLS at all")


def test_no_secret_is_written_when_nobody_listens_or_tls_fails(tmp_path, monkeypatch, capfd, caplog):
    """What the libraries say of a connection that never stood."""
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    with NoTls(garbage) as server:
        for base_url in (f"http://127.0.0.1:{unused_port()}", server.base_url.replace("http:", "https:")):
            stop_soon(monkeypatch)
            main([*options(server), "--base-url", base_url, "--run", f"run-{len(base_url)}"])
    nothing_shows(tmp_path, *capfd.readouterr(), caplog.text)


def stop_soon(monkeypatch) -> None:
    """Has a run that would try for ever end by a signal at its second wait."""
    waits = []
    original = bulkjobs.client.Client.run

    async def run(self, *sources):
        loop = asyncio.get_running_loop()
        loop.call_later(0.5, lambda: self.drain("the test has seen enough", exit_code=130))
        waits.append(1)
        return await original(self, *sources)

    monkeypatch.setattr(bulkjobs.client.Client, "run", run)


@pytest.mark.parametrize("debug", ["0", "1"])
def test_no_secret_is_written_by_a_crash(debug, tmp_path, monkeypatch, capfd):
    """A bug in the middle of a request, with secrets in every frame and in the message."""
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", TOKEN)
    monkeypatch.setenv("BULKJOBS_DEBUG", debug)

    def judge(evidence):
        raise RuntimeError(TOKEN, WEBHOOK, evidence) from KeyError(TOKEN)

    monkeypatch.setattr("bulkjobs.worker.judge", judge)
    with RawHttp(FAULTS["500 plain"]) as server:
        assert main(options(server)) == 1
    assert (tmp_path / "work" / "ids.txt.run" / "crash.txt").exists() == (debug == "0")
    nothing_shows(tmp_path, *capfd.readouterr())


@pytest.mark.parametrize("fault", ["401", "500 HTML", "garbage", "redirect", "cut in the token"])
def test_the_library_shows_no_secret(fault, tmp_path, caplog):
    """In no event, exception, traceback or repr, with asyncio's debug mode on."""
    caplog.set_level(logging.DEBUG)
    seen: list[object] = []

    async def work(server):
        settings = Settings(
            base_url=server.base_url, access_token=Secret(TOKEN), webhook=WEBHOOK, rate=None, max_active_jobs=None,
            allow_http=True, on_unknown="hold",
        )  # fmt: skip
        seen.append(settings)
        async with Client(settings, run=tmp_path / "run", observers=[seen.append]) as client:
            try:
                seen.append(await client.run([1, 2, 3]))
            except Exception as error:  # noqa: BLE001 - all of them are looked at
                seen.append(error)
                seen.extend(traceback.format_exception(error))

    with RawHttp(FAULTS[fault]) as server, asyncio.Runner(debug=True) as runner:
        runner.get_loop().slow_callback_duration = 0.0
        runner.run(work(server))
    assert len(seen) > 3
    nothing_shows(tmp_path, caplog.text, *map(repr, seen), *map(str, seen))


# Processes


def start(
    server: RawHttp, *more: str, interpreter: tuple[str, ...] = (), **streams
) -> subprocess.Popen[bytes]:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "BULKJOBS_ACCESS_TOKEN": TOKEN,
        "TMPDIR": "../tmp",
        "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"],
    }
    command = [sys.executable, *interpreter, "-m", "bulkjobs", *options(server, *more)]
    return subprocess.Popen(command, env={**environ, "TERM": "xterm-256color", "COLUMNS": "200"}, **streams)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT, signal.SIGQUIT])
def test_no_secret_is_written_by_a_process_that_is_ended(number, tmp_path):
    """In the middle of a request; `-X dev` prints the stacks of a fatal signal."""
    go_on = threading.Event()

    def script(connection):
        go_on.wait(PATIENCE_S)
        connection.send(b"HTTP/1.1 500 Oops\r\n\r\n" + echo(connection))

    with (
        RawHttp(script) as server,
        (tmp_path / "out").open("wb") as out,
        (tmp_path / "err").open("wb") as err,
    ):
        process = start(server, interpreter=("-X", "dev", "-W", "ignore"), stdout=out, stderr=err)
        try:
            assert server.arrived.acquire(timeout=PATIENCE_S)
            process.send_signal(number)
            if number == signal.SIGTERM:
                time.sleep(0.05)
                go_on.set()
            code = process.wait(PATIENCE_S)
        finally:
            go_on.set()
            process.kill()
            process.wait()
    assert code == (143 if number == signal.SIGTERM else -number)
    assert (tmp_path / "work" / "ids.txt.run" / "ledger.db").exists()
    nothing_shows(tmp_path)


def on_a_terminal(server: RawHttp, *more: str) -> bytes:
    """Runs the command with a pseudo-terminal for all streams and gives what was shown there."""
    control, terminal = pty.openpty()
    process = start(server, *more, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while True:
            try:
                piece = os.read(control, 65_536)
            except OSError:  # the other side was closed
                break
            if not piece:
                break
            shown += piece
    finally:
        os.close(control)
        process.kill()
        process.wait()
    return shown


@pytest.mark.parametrize("fault", ["500 plain", "500 HTML", "401", "200 HTML"])
def test_no_secret_is_shown_on_a_terminal(fault, tmp_path):
    """By the display and the lines above it."""
    with RawHttp(FAULTS[fault]) as server:
        shown = on_a_terminal(server)
    assert b"read" in shown
    nothing_shows(tmp_path, shown.decode("utf-8", "replace"))


def test_a_private_authority_that_is_not_known_shows_no_secret(tmp_path, monkeypatch, capfd, caplog):
    """A certificate that does not belong to the host: nothing was sent, and the message says no more."""
    openssl = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=evil.example", "-days", "2",
         "-keyout", "key.pem", "-out", "certificate.pem"], capture_output=True, check=False,
    )  # fmt: skip
    if openssl.returncode:
        pytest.skip("no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("certificate.pem", "key.pem")
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    stop_soon(monkeypatch)
    with RawHttp(FAULTS["500 plain"], ssl_context=context) as server:
        assert main(options(server)) == 130
        assert server.connections == []
    out, err = capfd.readouterr()
    assert "certificate" in err
    nothing_shows(tmp_path, out, err, caplog.text)


SOURCES = {
    "a database that cannot be reached": lambda server: f"postgresql://me:{PASSWORD}@127.0.0.1:{unused_port()}/crm",
    "a password in the query of an address": lambda server: f"postgresql://127.0.0.1:{unused_port()}/c?password={PASSWORD}",
    "an address that is none": lambda server: f"postgresql://me:{PASSWORD}@[127.0.0.1/crm",
    "a signed address that is refused": lambda server: f"{server.base_url}/gone.txt?signature={PASSWORD}",
    "a signed address": lambda server: f"{server.base_url}/ids.txt?signature={PASSWORD}#{PASSWORD}",
    "a login in an address": lambda server: f"{server.base_url.replace('//', f'//me:{PASSWORD}@')}/ids.txt",
    "a bucket": lambda server: "s3://lists/gone.txt",
}  # fmt: skip


def lists(connection):
    """Serves one list; everything else is refused with all that was asked."""
    if "/ids.txt" in connection.line:
        answer(b"1\n2\n", headers=('ETag: "1"',))(connection)
    elif "/gone.txt" in connection.line or connection.line.startswith("HEAD"):
        echoing("403 Forbidden")(connection)
    else:
        answer(json.dumps({"jobId": f"job{connection.number}", "status": "accepted"}).encode())(connection)


@pytest.mark.parametrize("source", SOURCES)
def test_no_secret_of_a_source_is_written(source, tmp_path, monkeypatch, capfd, caplog):
    """Nor is a traceback, whatever becomes of the source."""
    monkeypatch.setenv("BULKJOBS_ACCESS_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CLIENT_SECRET)
    caplog.set_level(logging.DEBUG)
    with RawHttp(lists) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.base_url.removesuffix("/api/v1"))
        address = SOURCES[source](server)
        query = ["--query", "SELECT 1"] if address.startswith("postgres") else []
        code = main([*options(server)[:1], address, *options(server)[2:], *query])
    out, err = capfd.readouterr()
    assert code == (0 if "/ids.txt" in address else 2)
    assert "Traceback" not in err
    nothing_shows(tmp_path, out, err, caplog.text)
