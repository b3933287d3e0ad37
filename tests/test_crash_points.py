"""Twenty-four places at which the process dies by SIGKILL, each at the start, in the middle and at the end of a run.

The process is the real command against a service in another process, with one worker, so that it is known which chunk
is under way. `support.crashing` marks the places inside the client, `support.killing_proxy` those on the wire. What
was left is looked at, then the command is given again, and a judge that knows nothing of the engine compares the
source and the service's books with all that the run says of itself.
"""

import itertools
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from support import crashing
from support.evidence import Books, RunImage, read_books, read_image, read_sources
from support.judge import judge, judge_killed
from support.killing_proxy import Cut, KillingProxy
from support.launcher import Launcher, Session
from support.oracle import TOKEN, Oracle

CHUNKS = 9
CHUNK_IDS = 5
LINE_BYTES = 10
PIECE_BYTES = 7
"""See `crashing`."""
MIGRATION_STEPS = 14
"""Statements that make, change or drop something on the way from version 1 of the ledger to version 3."""
PLACES = {"start": 1, "middle": CHUNKS // 2 + 1, "end": CHUNKS}
"""Where in a run the process dies: during which chunk."""
SIGKILLED = -9
TERMINATED = 143
EXIT_HELD = 4

ON_UNKNOWN = {
    "hold": ("--on-unknown", "hold"),
    # The jobs that the list shows beside the run's were there before it began.
    "reconcile": ("--on-unknown", "reconcile", "--settle", "50ms", "--exclusive"),
}

NEW = ("new",)
PLANNED = ("planned",)
SENDING = ("sending",)
ACCEPTED = ("accepted",)
DELIVERED = ("delivered",)
HELD = ("held",)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One of the places, and what must be true of the chunk under way."""

    number: int
    name: str
    at: str | Cut
    """How `crashing` calls it, or the moment on the wire."""
    counts: str = "chunks"
    """What is counted to get to the start, the middle and the end: "chunks" reach the place one after the other;
    "sessions" once each, so that an earlier session brings the run there, and "ends" when an earlier signal does;
    "pieces" of the source, "statements" that make the schema and "steps" of a migration reach it many times."""
    left: tuple[str, ...]
    """The states that the chunk may be in when the process is dead; `new`: the ledger does not know it."""
    alone: bool = True
    """Nothing else goes on at that place. If not, another chunk may be under way: the one before, whose outcome is on
    its way to the disk, or the one behind. There is only one worker, so it is never two."""
    jobs: int = 0
    """How many jobs the service has made of the chunk by then."""
    hold: tuple[str, ...] = DELIVERED
    """Its state after a restart with `--on-unknown hold`."""
    reconcile: tuple[str, ...] = DELIVERED
    """Its state after a restart with `--on-unknown reconcile`, with an honest list of jobs."""
    stdin: bool = False

    def __str__(self) -> str:
        return f"{self.number}_{self.name}"


POINTS = (
    Point(number=1, name="before_the_lock", at="lock_wanted", counts="sessions", left=NEW),
    Point(number=2, name="after_the_lock", at="lock_taken", counts="sessions", left=NEW),
    Point(number=3, name="schema_made", at="ledger_opened", counts="sessions", left=NEW),
    Point(number=4, name="schema_half_made", at="schema_changing", counts="statements", left=NEW),
    Point(number=4, name="in_the_middle_of_a_migration", at="schema_changing", counts="steps", left=NEW),
    Point(number=5, name="source_opened", at="source_opened", counts="sessions", left=NEW),
    Point(number=6, name="in_the_middle_of_a_chunk", at="piece_read", counts="pieces", left=NEW, alone=False),
    Point(number=7, name="input_copied_not_committed", at="spooled", counts="pieces", left=NEW, alone=False, stdin=True),
    Point(number=8, name="planned_committed", at="plan_stored", left=PLANNED, alone=False),
    Point(number=9, name="permit_taken", at="permit_taken", left=NEW + PLANNED, alone=False),
    Point(number=10, name="connected", at="connected", left=NEW + PLANNED, alone=False),
    Point(number=11, name="intent_queued", at="intent_queued", left=NEW + PLANNED, alone=False),
    Point(number=12, name="intent_in_an_open_transaction", at="intent_written", left=PLANNED, alone=False),
    Point(number=12, name="intent_committed_not_synced", at="intent_stored", left=SENDING, hold=HELD),
    Point(number=13, name="intent_durable_nothing_sent", at="intent_durable", left=SENDING, hold=HELD),
    Point(number=14, name="headers_sent", at=Cut.HEADERS, left=SENDING, hold=HELD),
    Point(number=15, name="half_the_body_sent", at=Cut.HALF_BODY, left=SENDING, hold=HELD),
    Point(number=16, name="body_sent_not_read", at=Cut.BODY, left=SENDING, hold=HELD),
    Point(number=17, name="job_made_no_answer", at=Cut.NO_ANSWER, left=SENDING, jobs=1, hold=HELD),
    Point(number=18, name="answer_partly_read", at="status_read", left=SENDING, jobs=1, hold=HELD),
    Point(number=19, name="answer_read_not_judged", at="answer_read", left=SENDING, jobs=1, hold=HELD),
    Point(number=20, name="outcome_queued", at="outcome_queued", left=SENDING, jobs=1, hold=HELD),
    Point(number=20, name="outcome_in_an_open_transaction", at="outcome_written", left=SENDING, jobs=1, hold=HELD),
    Point(number=21, name="outcome_committed", at="outcome_committed", left=ACCEPTED, jobs=1, alone=False),
    Point(number=22, name="sink_half_written", at="sink_half_written", left=ACCEPTED, jobs=1, alone=False),
    Point(number=23, name="sink_written_not_marked", at="sink_written", left=ACCEPTED, jobs=1, alone=False),
    Point(number=24, name="report_half_made", at="report_written", counts="ends", left=DELIVERED, jobs=1),
    Point(number=24, name="before_the_checkpoint", at="checkpoint_wanted", counts="ends", left=DELIVERED, jobs=1),
    Point(number=24, name="after_the_checkpoint", at="checkpoint_done", counts="ends", left=DELIVERED, jobs=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher) -> Iterator[Oracle]:
    at_once = ("--queue-time", "0s", "--job-time", "0s")
    with Oracle(tmp_path_factory.mktemp("oracle"), *at_once, launcher=launcher) as oracle:
        # A job from before every run: a list that shows it is known to reach back behind the first chunk.
        headers = {"accessToken": TOKEN, "Content-Type": "text/plain"}
        with urlopen(Request(f"{oracle.base_url}/contact/job", data=b"1", headers=headers)) as answer:
            assert answer.status == 200
        yield oracle


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


@pytest.fixture
def run_at(tmp_path: Path, oracle: Oracle, launcher: Launcher) -> Iterator[Callable[[Point, int], "Run"]]:
    with ExitStack() as stack:

        def make(point: Point, chunk: int) -> Run:
            run = Run(tmp_path, oracle, launcher, stdin=point.stdin)
            if isinstance(point.at, Cut):
                # It stays: the restart is given the same address.
                run.proxy = stack.enter_context(KillingProxy(oracle.port, point.at, chunk))
            return run

        yield make


_numbers = itertools.count(1)


class Run:
    """One run, with ids that no other run of this service has."""

    def __init__(self, folder: Path, oracle: Oracle, launcher: Launcher, *, stdin: bool) -> None:
        first = 100_000_000 + 1_000 * next(_numbers)
        self.within = range(first, first + CHUNKS * CHUNK_IDS)
        self.folder = folder
        self.source = folder / "ids.txt"
        self.source.write_text("".join(f"{number}\n" for number in self.within))
        self.given = read_sources([self.source])
        self.run_dir = folder / "the.run"
        self.oracle = oracle
        self.proxy: KillingProxy | None = None
        self._launcher = launcher
        self._stdin = self.source if stdin else None

    def start(self, crash: str = "", *, on_unknown: str = "hold") -> Session:
        environ = {"BULKJOBS_ACCESS_TOKEN": TOKEN, "CRASH": crash}
        command = [*self.command, *ON_UNKNOWN[on_unknown]]
        return self._launcher.start(command, folder=self.folder, environ=environ, stdin=self._stdin)

    def start_anew(self, crash: str = "") -> int:
        environ = {"BULKJOBS_ACCESS_TOKEN": TOKEN, "CRASH": crash, "PATH": os.environ["PATH"]}
        environ["XDG_STATE_HOME"] = str(self.folder / "state")
        program = [sys.executable, str(Path(crashing.__file__)), *self.command, *ON_UNKNOWN["hold"]]
        with (self.folder / "session.err").open("ab") as stderr:
            return subprocess.run(
                program, cwd=self.folder, env=environ, stdout=subprocess.DEVNULL, stderr=stderr, check=False
            ).returncode

    @property
    def command(self) -> list[str]:
        command = ["submit", "-" if self._stdin else "ids.txt", "--run", "the.run", "--json", "--quiet"]
        command += ["--chunk-size", str(CHUNK_IDS), "--workers", "1", "--no-forecast"]
        command += self.oracle.options(f"http://127.0.0.1:{self.proxy.port}/api/v1" if self.proxy else None)
        return command

    @property
    def image(self) -> RunImage:
        return read_image(self.run_dir)

    def books(self) -> Books:
        return read_books(self.oracle.books, within=self.within)

    def state(self, chunk: int) -> str:
        return next((row.state for row in self.image.chunks if row.ordinal == chunk), "new")

    def jobs_of(self, chunk: int) -> int:
        begin = self.within.start + (chunk - 1) * CHUNK_IDS
        own = range(begin, begin + CHUNK_IDS)
        return len(read_books(self.oracle.books, within=own).jobs)

    @property
    def stderr(self) -> str:
        return (self.folder / "session.err").read_text()


def rule_for(point: Point, chunk: int) -> str:
    """Gives the rule by which the process dies at the place during that chunk."""
    match point.counts:
        case "sessions":
            return f"{point.at}@1"
        case "ends":
            # Unless the chunks end there anyway, a signal ends the session.
            return f"{point.at}@1" + (f",outcome_committed@{chunk}=term" if chunk < CHUNKS else "")
        case "steps":
            return f"{point.at}@{round((chunk - 1) / (CHUNKS - 1) * (MIGRATION_STEPS - 1)) + 1}"
        case "pieces":
            pieces = math.ceil(CHUNKS * CHUNK_IDS * LINE_BYTES / PIECE_BYTES)
            return f"{point.at}@{round((chunk - 1) / (CHUNKS - 1) * (pieces - 1)) + 1}"
        case _:
            return f"{point.at}@{chunk}"


def bring_to(run: Run, point: Point, chunk: int) -> None:
    """Has an earlier session do the chunks before this one, if the place comes only once in a session.

    A signal ends it, so that nothing is in flight; by then the worker may have gone on by one chunk.
    """
    if point.counts == "sessions" and chunk > 1:
        assert run.start(crash=f"outcome_committed@{chunk - 2}=term").wait() == TERMINATED, run.stderr
    if point.counts == "steps":
        assert run.start(crash=f"outcome_committed@{PLACES['middle']}=term").wait() == TERMINATED, run.stderr
        make_version_1(run.run_dir / "ledger.db")


def make_version_1(ledger: Path) -> None:
    """Turns a ledger into one as the first release left it, as far as a migration can see."""
    with closing(sqlite3.connect(ledger)) as database:
        for column in ("answer_bytes", "sent_utc", "answered_utc"):
            database.execute(f"ALTER TABLE attempt DROP COLUMN {column}")
        database.execute("ALTER TABLE run DROP COLUMN baseline_utc")
        database.execute("DROP INDEX chunk_part")
        for column in ("parent", "first", "duplicate_risk"):
            database.execute(f"ALTER TABLE chunk DROP COLUMN {column}")
        for table in ("baseline", "settlement", "finding", "control"):
            database.execute(f"DROP TABLE {table}")
        database.execute("PRAGMA user_version = 1")


def kill_at(run: Run, point: Point, chunk: int, on_unknown: str = "hold") -> bool:
    """Has the process die at the place during that chunk; tells whether it did die there."""
    if run.proxy is None:
        return run.start(rule_for(point, chunk), on_unknown=on_unknown).wait() == SIGKILLED
    session = run.start(on_unknown=on_unknown)
    run.proxy.victim.set_result(session.pid)
    return session.wait() == SIGKILLED and run.proxy.fired


def check_killed(run: Run, point: Point, chunk: int) -> list[int]:
    """Checks what the dead process left; gives the chunks that were in flight."""
    image = run.image
    assert judge_killed(run.given, run.books(), image, workers=1).violations == []
    in_flight = [row.ordinal for row in image.chunks if row.state == "sending"]
    if point.alone:
        assert in_flight == ([chunk] if point.left == SENDING else [])
    if point.counts == "chunks":
        assert len(in_flight) <= 1
        assert run.state(chunk) in point.left
        assert run.jobs_of(chunk) == point.jobs
    return in_flight


def check_restarted(run: Run, held: list[int], code: int) -> None:
    """Checks what the next session made of it: these chunks are held, and all others delivered."""
    judgement = judge(run.given, run.books(), run.image)
    assert judgement.violations == []
    assert [row.ordinal for row in run.image.chunks if row.state == "held"] == held
    assert code == (EXIT_HELD if held else 0), run.stderr
    figures = judgement.figures
    assert figures["delivered"] + figures["held"] == len(run.within)


CASES = [
    *((point, "hold") for point in POINTS),
    *((point, "reconcile") for point in POINTS if point.hold != point.reconcile),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("point", "on_unknown"), CASES, ids=[f"{point}-{mode}" for point, mode in CASES])
def test_a_run_that_died_there_loses_nothing_and_sends_nothing_twice(
    run_at: Callable[[Point, int], Run], point: Point, on_unknown: str, place: str
) -> None:
    chunk = PLACES[place]
    run = run_at(point, chunk)
    bring_to(run, point, chunk)
    assert kill_at(run, point, chunk, on_unknown), f"the process did not die there\n{run.stderr}"
    in_flight = check_killed(run, point, chunk)
    code = run.start(on_unknown=on_unknown).wait()
    check_restarted(run, in_flight if on_unknown == "hold" else [], code)
    if point.alone or chunk not in in_flight:
        assert run.state(chunk) in (point.hold if on_unknown == "hold" else point.reconcile)


@pytest.mark.parametrize("at", ["settlement_written", "settlement_stored"])
@pytest.mark.parametrize("number", [13, 17], ids=["no_job", "job_made"])
def test_a_run_that_died_while_it_settled_a_chunk_settles_it_once(
    run_at: Callable[[Point, int], Run], number: int, at: str
) -> None:
    """Place 24 as well: the job of the chunk is adopted, or its absence has just been proved."""
    point, chunk = next(point for point in POINTS if point.number == number), PLACES["middle"]
    run = run_at(point, chunk)
    assert kill_at(run, point, chunk, "reconcile")
    assert run.start(crash=f"{at}@1", on_unknown="reconcile").wait() == SIGKILLED, run.stderr
    assert judge_killed(run.given, run.books(), run.image, workers=1).violations == []
    code = run.start(on_unknown="reconcile").wait()
    check_restarted(run, [], code)
    assert run.jobs_of(chunk) == 1
    assert [one.chunk for one in run.image.settlements] == [chunk]


def test_a_process_that_loads_everything_itself_dies_and_recovers_in_the_same_way(
    run_at: Callable[[Point, int], Run],
) -> None:
    """The others are forked from one that has loaded the libraries, which saves most of the time."""
    point = next(point for point in POINTS if point.number == 13)
    run = run_at(point, 5)
    assert run.start_anew(rule_for(point, 5)) == SIGKILLED, run.stderr
    in_flight = check_killed(run, point, 5)
    check_restarted(run, in_flight, run.start_anew())


def test_there_are_twenty_four_places() -> None:
    assert sorted({point.number for point in POINTS}) == list(range(1, 25))
