"""What the world does to a process: signals, a pause, a fork, a rival on the same run, a host that cancels or blocks.

The service runs in another process and sees none of it. After each fault the judge looks at what was left, then the
command is given again and has to come to an end.
"""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.evidence import Books, RunImage, read_books, read_image, read_sources
from support.judge import Judgement, judge, judge_killed
from support.launcher import Launcher, Session
from support.oracle import TOKEN, Oracle

import bulkjobs
from bulkjobs.settings import Secret, Settings

CHUNKS = 30
CHUNK_IDS = 5
WORKERS = 4
PLACES = {"start": 1, "middle": CHUNKS // 2, "end": CHUNKS - WORKERS}
"""How many jobs there are when it happens."""
PATIENCE_S = 30.0
ROOT = Path(bulkjobs.__file__).parent.parent


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher) -> Iterator[Oracle]:
    with Oracle(tmp_path_factory.mktemp("oracle"), "--latency", "20ms..40ms", launcher=launcher) as oracle:
        yield oracle


@pytest.fixture(scope="module")
def slow_oracle(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher) -> Iterator[Oracle]:
    """Makes jobs at once and takes longer to say so than any test."""
    with Oracle(tmp_path_factory.mktemp("slow-oracle"), "--latency", "1h", launcher=launcher) as oracle:
        yield oracle


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


_numbers = itertools.count(1)


class Run:
    """One run, with ids that no other run of this service has."""

    def __init__(self, folder: Path, oracle: Oracle, launcher: Launcher) -> None:
        first = 200_000_000 + 1_000 * next(_numbers)
        self.within = range(first, first + CHUNKS * CHUNK_IDS)
        self.folder = folder
        self.source = folder / "ids.txt"
        self.source.write_text("".join(f"{number}\n" for number in self.within))
        self.run_dir = folder / "the.run"
        self.oracle = oracle
        self._launcher = launcher

    def start(self, *options: str, name: str = "session", crash: str = "") -> Session:
        command = ["submit", "ids.txt", "--run", "the.run", "--json", "--quiet", "--on-unknown", "hold"]
        command += ["--no-forecast"]
        command += [
            "--chunk-size",
            str(CHUNK_IDS),
            "--workers",
            str(WORKERS),
            *self.oracle.options(),
            *options,
        ]
        environ = {"BULKJOBS_ACCESS_TOKEN": TOKEN, "CRASH": crash}
        return self._launcher.start(command, folder=self.folder, environ=environ, name=name)

    @property
    def settings(self) -> Settings:
        """The same for a program that has the engine within itself."""
        return Settings(
            base_url=self.oracle.base_url,
            login_url=self.oracle.login_url,
            access_token=Secret(TOKEN),
            rate=None,
            pace=None,
            max_active_jobs=None,
            chunk_size=CHUNK_IDS,
            workers=WORKERS,
            on_unknown="hold",
        )

    @property
    def books(self) -> Books:
        return read_books(self.oracle.books, within=self.within)

    @property
    def jobs(self) -> int:
        return len(self.books.jobs)

    @property
    def image(self) -> RunImage:
        return read_image(self.run_dir)

    def said(self, name: str = "session") -> str:
        return (self.folder / f"{name}.err").read_text()

    def wait_for_jobs(self, count: int, session: Session | None = None) -> None:
        until(lambda: self.jobs >= count or (session is not None and not session.running))

    def judge(self) -> Judgement:
        """Judges after a session that ended by itself."""
        judgement = judge(read_sources([self.source]), self.books, self.image)
        assert judgement.violations == [], judgement
        return judgement

    def finish(self) -> Judgement:
        """Gives the command again until it comes to an end."""
        code = self.start().wait()
        judgement = self.judge()
        assert code == (4 if judgement.figures["held"] else 0), self.said()
        assert judgement.figures["delivered"] + judgement.figures["held"] == len(self.within)
        return judgement


@pytest.fixture
def run(tmp_path: Path, oracle: Oracle, launcher: Launcher) -> Run:
    return Run(tmp_path, oracle, launcher)


@pytest.fixture
def waiting_run(tmp_path: Path, slow_oracle: Oracle, launcher: Launcher) -> Run:
    return Run(tmp_path, slow_oracle, launcher)


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.002)


# --- 49: signals ---


@pytest.mark.parametrize("place", PLACES)
def test_sigterm_sends_nothing_more_and_records_every_answer(run: Run, place: str) -> None:
    session = run.start()
    run.wait_for_jobs(PLACES[place], session)
    seen = run.jobs
    session.send_signal(signal.SIGTERM)
    assert session.wait() in (143, 0)  # 0: nothing was left to do
    # Each worker may have had one more on its way when the signal came.
    assert run.jobs <= seen + 2 * WORKERS
    assert run.judge().figures["held"] == 0
    assert run.finish().figures["held"] == 0


def test_a_second_sigint_ends_the_process_within_a_second_and_holds_what_was_in_flight(
    waiting_run: Run,
) -> None:
    run = waiting_run
    session = run.start()
    run.wait_for_jobs(WORKERS, session)
    session.send_signal(signal.SIGINT)
    until(lambda: "answers in flight are waited for" in run.said())
    signalled = time.monotonic()
    session.send_signal(signal.SIGINT)
    assert session.wait() == 130
    assert time.monotonic() - signalled < 5.0  # one second on a machine that does nothing else
    assert run.judge().figures["held"] == WORKERS * CHUNK_IDS
    assert run.jobs == WORKERS


# --- 50: stopped for longer than a request may take ---


@pytest.mark.parametrize("place", PLACES)
def test_a_process_that_stood_still_for_longer_than_a_request_may_take_goes_on(run: Run, place: str) -> None:
    session = run.start("--request-timeout", "300ms")
    run.wait_for_jobs(PLACES[place], session)
    session.send_signal(signal.SIGSTOP)
    session.wait_at_most(0.5)
    session.send_signal(signal.SIGCONT)
    assert session.wait() in (0, 4), run.said()
    figures = run.judge().figures
    assert figures["delivered"] + figures["held"] == len(run.within)
    assert figures["held"] <= WORKERS * CHUNK_IDS


def test_a_process_that_stands_still_keeps_its_run(waiting_run: Run) -> None:
    run = waiting_run
    first = run.start()
    run.wait_for_jobs(WORKERS, first)
    first.send_signal(signal.SIGSTOP)
    assert run.start(name="rival").wait() == 6
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert run.jobs == WORKERS


# --- 51, 52: a host that cancels or blocks ---


@pytest.mark.parametrize("place", PLACES)
async def test_a_host_that_cancels_the_task_leaves_nothing_unrecorded(run: Run, place: str) -> None:
    async with bulkjobs.Client(run.settings, run=run.run_dir) as client:
        task = asyncio.create_task(client.run(run.source))
        await asyncio.to_thread(run.wait_for_jobs, PLACES[place])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not [chunk for chunk in run.image.chunks if chunk.state == "sending"]
    assert judge_killed(read_sources([run.source]), run.books, run.image, workers=0).violations == []
    async with bulkjobs.Client(run.settings, run=run.run_dir) as client:
        await client.run(run.source)
    figures = run.judge().figures
    assert figures["delivered"] + figures["held"] == len(run.within)
    assert figures["held"] <= WORKERS * CHUNK_IDS


@pytest.mark.parametrize("place", PLACES)
async def test_a_host_that_blocks_the_loop_for_longer_than_a_request_may_take_holds_what_was_in_flight_at_most(
    run: Run, place: str
) -> None:
    blocked: list[int] = []

    def block(_event: object) -> None:
        if not blocked and run.jobs >= PLACES[place]:
            blocked.append(1)
            time.sleep(0.5)

    settings = bulkjobs.Settings(
        **{name: getattr(run.settings, name) for name in run.settings.__slots__} | {"request_timeout_s": 0.3}
    )
    async with bulkjobs.Client(settings, run=run.run_dir, observers=[block]) as client:
        await client.run(run.source)
    assert blocked
    figures = run.judge().figures
    assert figures["delivered"] + figures["held"] == len(run.within)
    assert figures["held"] <= WORKERS * CHUNK_IDS


# --- 53: a rival ---


def test_a_second_process_is_refused_before_any_request_and_the_first_goes_on(run: Run) -> None:
    first = run.start()
    run.wait_for_jobs(1, first)
    rivals = [run.start(name=f"rival-{number}") for number in range(3)]
    codes = [rival.wait() for rival in rivals]
    assert first.wait() == 0
    assert set(codes) <= {0, 6}  # 0: it came when the first had finished, and found nothing to do
    assert codes.count(6) >= 1
    assert f"pid {first.pid}" in run.said("rival-0")
    assert run.judge().figures["delivered"] == len(run.within)


def test_of_many_that_start_at_once_one_works_and_each_id_is_sent_once(run: Run) -> None:
    sessions = [run.start(name=f"rival-{number}") for number in range(4)]
    codes = [session.wait() for session in sessions]
    assert set(codes) <= {0, 6}
    assert 0 in codes
    assert run.judge().figures["delivered"] == len(run.within)


# --- 54: a fork ---

HOST = """
import asyncio, multiprocessing, os, sys, time
from pathlib import Path
import bulkjobs, bulkjobs.events
from bulkjobs.settings import Secret, Settings

base_url, login_url, token, child_lives, chunk_ids = sys.argv[1:]
forks = multiprocessing.get_context("fork")
children = []

def child():
    give_up_at = time.monotonic() + 60
    while child_lives == "yes" and not Path("let-the-child-go").exists() and time.monotonic() < give_up_at:
        time.sleep(0.005)

def fork(event):
    if not children and isinstance(event, bulkjobs.events.ChunkAccepted):
        children.append(forks.Process(target=child))
        children[0].start()
        if child_lives == "no":
            children[0].join()
        print("forked", flush=True)

async def main():
    settings = Settings(base_url=base_url, login_url=login_url, access_token=Secret(token), rate=None, pace=None,
        max_active_jobs=None, chunk_size=int(chunk_ids), workers=1, on_unknown="hold")
    async with bulkjobs.Client(settings, run="the.run", observers=[fork]) as client:
        await client.run("ids.txt")

asyncio.run(main())
print("ended", flush=True)
children[0].join()
"""


class Host:
    """A program with the engine inside that forks a child during the run."""

    def __init__(self, run: Run, *, child_lives: bool) -> None:
        arguments = [run.oracle.base_url, run.oracle.login_url, TOKEN]
        arguments += ["yes" if child_lives else "no", str(CHUNK_IDS)]
        self._release = run.folder / "let-the-child-go"
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, *arguments],
            cwd=run.folder,
            env=environ,
            stdout=subprocess.PIPE,
        )

    def expect(self, word: bytes) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word + b"\n"

    def close(self) -> None:
        self._release.touch()
        self.process.communicate(timeout=PATIENCE_S)


def test_the_end_of_a_forked_child_does_not_give_the_run_away(run: Run) -> None:
    host = Host(run, child_lives=False)
    host.expect(b"forked")
    assert run.start(name="rival").wait() == 6
    host.expect(b"ended")
    host.close()
    assert run.judge().figures["delivered"] == len(run.within)


def test_a_forked_child_that_lives_on_does_not_keep_the_run(run: Run) -> None:
    host = Host(run, child_lives=True)
    host.expect(b"forked")
    assert run.start(name="rival").wait() == 6
    host.expect(b"ended")
    assert run.start().wait() == 0, run.said()
    host.close()
    assert run.judge().figures["delivered"] == len(run.within)


def test_a_forked_child_that_outlives_a_killed_host_does_not_keep_the_run(run: Run) -> None:
    host = Host(run, child_lives=True)
    host.expect(b"forked")
    host.process.kill()
    host.process.wait()
    code = run.start().wait()
    host.close()
    assert code in (0, 4), run.said()
    figures = run.judge().figures
    assert figures["delivered"] + figures["held"] == len(run.within)


# --- what follows a crash ---


def test_a_first_request_that_is_lost_after_a_crash_does_not_close_the_account(
    tmp_path: Path, launcher: Launcher
) -> None:
    """Nobody has seen a lock-out: the next request follows after a second, and not after five minutes."""
    with Oracle(tmp_path, "--fault", "submit:reset_after@1", launcher=launcher) as oracle:
        run = Run(tmp_path, oracle, launcher)
        assert run.start("--workers", "1", crash="intent_durable@1").wait() == -signal.SIGKILL
        again = run.start("--workers", "1")
        assert again.wait_at_most(3.0)
        assert run.judge().figures["held"] == 2 * CHUNK_IDS
