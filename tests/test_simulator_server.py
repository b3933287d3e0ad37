"""The simulated service on a socket, as a raw client sees it, and as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from urllib.parse import urlsplit

import pytest

from bulkjobs.cli.service import SERVICE_OPTIONS, configured
from bulkjobs.errors import ConfigError
from bulkjobs.simulator import FaultPlan, Limit, ServiceConfig, SimulatorServer, Span

HEADERS = "accessToken: simulator-token\r\nAccept: application/json\r\nContent-Type: text/plain\r\n"


def request(method, path, body=b"", headers=HEADERS) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def read_answer(reader) -> tuple[int, dict[str, str], bytes]:
    """Reads one answer; IncompleteReadError carries what came of one that was cut."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


class Line:
    """One TCP connection to a server."""

    def __init__(self, url):
        self._at = urlsplit(url)

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(self._at.hostname, self._at.port)
        return self

    async def __aexit__(self, *_):
        self.writer.close()
        with contextlib.suppress(ConnectionError):  # the server reset it, as asked
            await self.writer.wait_closed()

    async def ask(self, method, path, body=b"", headers=HEADERS):
        self.writer.write(request(method, path, body, headers))
        return await read_answer(self.reader)

    async def submit(self, body=b"1,2,3"):
        return await self.ask("POST", "/api/v1/contact/job", body)


async def test_one_connection_carries_many_requests():
    async with SimulatorServer() as server, Line(server.base_url) as line:
        jobs = [json.loads((await line.submit())[2])["jobId"] for _ in range(3)]
        found, _, body = await line.ask("GET", f"/api/v1/contact/job/{jobs[1]}")
    assert (found, json.loads(body)["jobId"]) == (200, jobs[1])


async def test_the_urls_name_the_port_that_was_taken():
    async with SimulatorServer() as server:
        port = urlsplit(server.base_url).port
        assert server.base_url == f"http://127.0.0.1:{port}/api/v1"
        assert server.login_url == f"http://127.0.0.1:{port}/Auth/login/v1/token.json"
        assert server.books_url == f"http://127.0.0.1:{port}/_sim/books"


async def test_query_and_login_are_read_from_the_target():
    query = "clientId=simulator-client&clientSecret=simulator%2Dsecret&grantType=cred"
    async with SimulatorServer() as server, Line(server.base_url) as line:
        found, _, body = await line.ask("POST", f"/Auth/login/v1/token.json?{query}", headers="")
        assert found == 200
        assert "accessToken" in json.loads(body)["accessTokenDetails"]
        await line.ask("POST", "/api/v1/contact/job?webhook=https%3A%2F%2Fx%2F%3Fa%3D1%26b", b"1")
        _, _, books = await line.ask("GET", "/_sim/books/jobs")
    assert json.loads(books)["webhook"] == "https://x/?a=1&b"


@pytest.mark.parametrize("effect", ["before", "after"])
async def test_a_reset_reaches_the_client_as_a_reset(effect):
    config = ServiceConfig(faults=FaultPlan.of(f"submit:reset_{effect}@1"))
    async with SimulatorServer(config) as server:
        async with Line(server.base_url) as line:
            with pytest.raises(ConnectionResetError):
                await line.submit()
        assert server.service.totals()["jobs"] == (effect == "after")
        async with Line(server.base_url) as line:
            assert (await line.submit())[0] == 200


@pytest.mark.parametrize("effect", ["before", "after"])
async def test_a_close_without_an_answer_is_an_orderly_end(effect):
    config = ServiceConfig(faults=FaultPlan.of(f"submit:close_{effect}@1"))
    async with SimulatorServer(config) as server:
        async with Line(server.base_url) as line:
            line.writer.write(request("POST", "/api/v1/contact/job", b"1"))
            assert await line.reader.read() == b""
        assert server.service.totals()["jobs"] == (effect == "after")


async def test_a_cut_answer_promises_its_full_length_and_gives_half():
    config = ServiceConfig(faults=FaultPlan.of("submit:cut_after@1"))
    async with SimulatorServer(config) as server, Line(server.base_url) as line:
        with pytest.raises(asyncio.IncompleteReadError) as cut:
            await line.submit()
        assert server.service.totals()["jobs"] == 1
    assert cut.value.partial.startswith(b'{"jobId": "')
    assert len(cut.value.partial) == cut.value.expected // 2


@pytest.mark.parametrize(
    ("fault", "expected", "content_type"),
    [
        ("html_after", 200, "text/html"),
        ("mislabel_after", 200, "text/html"),
        ("http502_after", 502, "text/html"),
        ("http429_before", 429, "application/json"),
        ("http307_before", 307, "application/json"),
    ],
)
async def test_a_spoilt_answer_leaves_the_connection_usable(fault, expected, content_type):
    config = ServiceConfig(faults=FaultPlan.of(f"submit:{fault}@1"))
    async with SimulatorServer(config) as server, Line(server.base_url) as line:
        status, headers, _ = await line.submit()
        assert (status, headers["content-type"].split(";")[0]) == (expected, content_type)
        assert (await line.submit())[0] == 200


async def test_a_body_above_eight_mebibytes_is_413_and_never_reaches_the_service():
    async with SimulatorServer() as server, Line(server.base_url) as line:
        line.writer.write(request("POST", "/api/v1/contact/job", b"1" * (8 * 2**20 + 1)))
        assert (await read_answer(line.reader))[0] == 413
        assert server.service.totals()["requests"]["submit"] == 0


async def test_a_full_body_in_small_pieces_is_read_whole():
    body = b"\n".join(b"%d" % number for number in range(10**8, 10**8 + 10_000))
    whole = request("POST", "/api/v1/contact/job", body)
    async with SimulatorServer() as server, Line(server.base_url) as line:
        for at in range(0, len(whole), 7000):
            line.writer.write(whole[at : at + 7000])
            await line.writer.drain()
        job_id = json.loads((await read_answer(line.reader))[2])["jobId"]
        _, _, stored = await line.ask("GET", f"/_sim/books/jobs/{job_id}/ids")
    assert stored == body


@pytest.mark.parametrize("shape", ["file", "link"])
async def test_results_of_a_full_job_can_be_downloaded(shape):
    body = b"\n".join(b"%d" % number for number in range(10**8, 10**8 + 10_000))
    config = ServiceConfig(job_time=Span(min_s=0, max_s=0), results_shape=shape)
    async with SimulatorServer(config) as server, Line(server.base_url) as line:
        job_id = json.loads((await line.submit(body))[2])["jobId"]
        path, headers = f"/api/v1/contact/job/{job_id}/results", HEADERS
        if shape == "link":
            _, _, described = await line.ask("GET", path)
            url = json.loads(described)["resultsUrl"]
            assert url.startswith("http://test/_files/")
            path, headers = url.removeprefix("http://test"), ""
        status, headers, table = await line.ask("GET", path, headers=headers)
        assert (status, headers["content-type"]) == (200, "text/csv")
        assert [row.split(b",")[0] for row in table.splitlines()[1:]] == body.split()


async def test_a_long_answer_that_is_cut_promises_its_full_length_too():
    body = b"\n".join(b"%d" % number for number in range(10**8, 10**8 + 10_000))
    config = ServiceConfig(job_time=Span(min_s=0, max_s=0), faults=FaultPlan.of("results:cut_after@1"))
    async with SimulatorServer(config) as server, Line(server.base_url) as line:
        job_id = json.loads((await line.submit(body))[2])["jobId"]
        with pytest.raises(asyncio.IncompleteReadError) as cut:
            await line.ask("GET", f"/api/v1/contact/job/{job_id}/results")
    assert len(cut.value.partial) == cut.value.expected // 2


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
async def test_every_redirect_goes_over_the_wire(status):
    config = ServiceConfig(faults=FaultPlan.of(f"submit:http{status}_after@1"))
    async with SimulatorServer(config) as server, Line(server.base_url) as line:
        found, headers, _ = await line.submit()
        assert (found, headers["location"]) == (status, "/api/v1/contact/job")
        assert server.service.totals()["jobs"] == 1


async def test_a_slow_answer_does_not_hold_up_the_others():
    config = ServiceConfig(faults=FaultPlan.of("submit:slow_after@1", slow_s=3600))
    async with (
        SimulatorServer(config) as server,
        Line(server.base_url) as slow,
        Line(server.base_url) as line,
    ):
        slow.writer.write(request("POST", "/api/v1/contact/job", b"1"))
        while not json.loads((await line.ask("GET", "/_sim/books"))[2])["jobs"]:
            """The slow one has not arrived yet."""
        assert (await line.submit())[0] == 200


async def test_simulated_time_runs_at_its_speed_and_the_client_is_told_its_own_time():
    config = ServiceConfig(
        rate=Limit(count=1, window_s=3_000_000),
        lockout_s=3_000_000,
        retry_after="seconds",
        latency=Span(min_s=100, max_s=100),
    )
    async with SimulatorServer(config, speed=10_000.0) as server, Line(server.base_url) as line:
        assert (await line.submit())[0] == 200
        status, headers, _ = await line.submit()
    assert (status, headers["retry-after"]) == (429, "300")


async def test_a_request_counts_when_it_arrives_and_not_when_it_left():
    config = ServiceConfig(rate=Limit(count=1, window_s=1))
    transit = Span(min_s=500, max_s=500)
    async with (
        SimulatorServer(config, speed=10_000.0, transit=transit) as server,
        Line(server.base_url) as line,
    ):
        left_at = time.time()
        assert (await line.submit())[0] == 200
        jobs = (await line.ask("GET", "/_sim/books/jobs"))[2]
    assert json.loads(jobs)["acceptedAt"] - left_at > 0.049  # 50 ms of the client's time, less a rounding


async def test_a_client_that_leaves_in_the_middle_of_a_body_makes_no_job_and_no_noise(caplog):
    async with SimulatorServer() as server:
        async with Line(server.base_url) as line:
            line.writer.write(request("POST", "/api/v1/contact/job", b"1,2,3")[:-2])
            await line.writer.drain()
        async with Line(server.base_url) as line:
            assert (await line.submit())[0] == 200
        assert server.service.totals()["requests"]["submit"] == 1
    assert not caplog.records


async def test_leaving_does_not_wait_for_a_slow_answer():
    config = ServiceConfig(latency=Span(min_s=3600, max_s=3600))
    async with SimulatorServer(config) as server, Line(server.base_url) as line:
        line.writer.write(request("POST", "/api/v1/contact/job", b"1"))
        async with Line(server.base_url) as judge:
            while not json.loads((await judge.ask("GET", "/_sim/books"))[2])["jobs"]:
                """The submission has not arrived yet."""


async def test_a_port_in_use_or_a_senseless_speed_is_a_configuration_error():
    async with SimulatorServer() as server:
        with pytest.raises(ConfigError, match="Cannot listen"):
            await SimulatorServer(port=urlsplit(server.base_url).port).__aenter__()
    with pytest.raises(ConfigError, match="speed"):
        SimulatorServer(speed=0)


# --- the command ------------------------------------------------------------------------------------------

COMMAND = "from bulkjobs.cli.simulate import simulate; simulate()"


async def start(*options):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        COMMAND,
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return process, await process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_says_where_it_is_and_ends_cleanly_on_a_signal(number, tmp_path):
    process, ready = await start("--for", "60s", "--seed", "3", "--books", str(tmp_path / "b"), "--fault",
                                 "submit:reset_after@1", "--fault", "submit:close_after@2")  # fmt: skip
    urls = json.loads(ready)
    assert set(urls) == {"base_url", "login_url", "books_url", "token"}
    async with Line(urls["base_url"]) as line:
        with pytest.raises(ConnectionResetError):
            await line.submit()
    async with Line(urls["base_url"]) as line:
        line.writer.write(request("POST", "/api/v1/contact/job", b"4,5"))
        assert await line.reader.read() == b""
    async with Line(urls["base_url"]) as line:
        refused, _, body = await line.submit()
        assert (refused, json.loads(body)["message"][:24]) == (400, "2 jobs are already runni")
    process.send_signal(number)
    rest, errors = await process.communicate()
    assert (process.returncode, rest, errors) == (0, b"", b"")
    assert len((tmp_path / "b.jsonl").read_bytes().splitlines()) == 2


async def test_books_survive_the_death_of_the_process(tmp_path):
    process, ready = await start("--for", "60s", "--books", str(tmp_path / "b"))
    async with Line(json.loads(ready)["base_url"]) as line:
        job_id = json.loads((await line.submit(b"7\n8"))[2])["jobId"]
        process.kill()
        await process.communicate()
    (index,) = (json.loads(text) for text in (tmp_path / "b.jsonl").read_text().splitlines())
    assert (index["jobId"], index["ids"]) == (job_id, 2)
    assert (tmp_path / "b").read_bytes() == b"7\n8\n"


async def test_the_command_has_an_option_for_every_way_in_which_the_service_can_be_difficult(tmp_path):
    books = tmp_path / "b"
    process, ready = await start(
        "--for", "60s", "--books", str(books), "--books-sync", "--rate", "none", "--max-active-jobs", "none",
        "--queue-time", "0s", "--job-time", "0s", "--results", "link", "--results-packing", "gzip",
        "--results-missing", "0.5", "--results-id-column", "id", "--max-ids", "9", "--max-body-bytes", "20",
        "--body-refusal", "400", "--bad-ids", "13,*0007", "--list-newest-first", "--list-keeps", "5",
        "--list-type", "CONTACT", "--list-status", "number", "--list-dates", "zoned", "--list-zone", "-7",
        "--foreign-per-submit", "1", "--foreign-per-page", "1", "--foreign-sizes", "4", "--foreign-shared", "1",
        "--fault", "submit:close_late@4-9", "--late", "1h", "--slow", "1h",
    )  # fmt: skip
    async with Line(json.loads(ready)["base_url"]) as line:
        answers = [await line.submit(body) for body in (b"13", b"1,20007", b"1000,2000,3000,4000,5000")]
        _, _, listing = await line.ask("GET", "/api/v1/admin/jobs")
        line.writer.write(request("POST", "/api/v1/contact/job", b"1"))
        assert await line.reader.read() == b""
        process.terminate()
        await process.communicate()
    assert [status for status, _, _ in answers] == [400, 400, 400]
    rows = json.loads(listing)["bulkJobs"]
    assert {(row["jobType"], row["jobStatus"], row["creditsConsumed"]) for row in rows} == {("CONTACT", 3, 4)}
    assert {row["createdDate"][-6:] for row in rows} == {"-07:00"}
    made = [json.loads(text) for text in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [job["foreign"] for job in made].count(False) == 1
    posts = [json.loads(text) for text in (tmp_path / "b.posts.jsonl").read_text().splitlines()]
    assert [post["fault"] for post in posts] == [None, None, None, "close_late"]
    assert [post["jobId"] for post in posts] == [
        None,
        None,
        None,
        next(job["jobId"] for job in made if not job["foreign"]),
    ]


def test_every_row_of_the_options_sets_a_field_and_reads_its_own_default():
    defaults = {option.parameter: option.default for option in SERVICE_OPTIONS}
    names = [option.name for option in SERVICE_OPTIONS]
    assert len(set(names)) == len(names)
    made, plain = configured(defaults), ServiceConfig()
    told = {"rate", "max_active_jobs", "queue_time"}  # a user's service is limited, a test's is not
    for option in SERVICE_OPTIONS:
        if option.field not in told:
            assert getattr(made, option.field) == getattr(plain, option.field), option.name


async def test_the_command_can_end_by_itself():
    process, ready = await start("--for", "1ms", "--rate", "none", "--max-active-jobs", "none")
    await process.communicate()
    assert ready
    assert process.returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--rate", "5"),
        ("--fault", "boom=1"),
        ("--job-time", "2..1"),
        ("--speed", "0"),
        ("--for", "x"),
        ("--bad-ids", "x!"),
        ("--results", "paper"),
        ("--books-sync",),
    ],
)
async def test_a_bad_option_is_named_and_nothing_is_started(options):
    process, ready = await start(*options)
    _, errors = await process.communicate()
    assert (process.returncode, ready) == (2, b"")
    assert b"Traceback" not in errors
