"""The sixty classes of faults that this project promises to survive, and how each is played or what proves it.

What the network, the service or the clock does is played here, at the first POST of a run, at one in the middle and
at the last, and in seeded pairs. A session settles what is in doubt, or holds it and the next one settles it; the
judge looks after each. What needs a process or a disk of its own is proved elsewhere; there the table names the test.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import pytest
from support.faults import FAULTS, FaultProxy, Plan, answer_late, answering, reset_mid_body, toxic
from support.faults.certificates import Certificates
from support.faults.stream import Toxic
from support.sending import submit, transport, unused_port
from support.stage import CHUNK_IDS, Play, Run
from test_evidence import crowded_port

from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.model import Cause, Evidence, NotApplied, Unknown, Verdict
from bulkjobs.settings import Secret
from bulkjobs.simulator import Span
from bulkjobs.throttle import Throttle
from bulkjobs.verdict import judge

PLACES = ("start", "middle", "end")
PAIRS = 24
SHORT = {"request_timeout_s": 0.3}
IMPATIENT = {"connect_timeout_s": 0.25}
LOGIN = {"access_token": None, "client_id": "simulator-client", "client_secret": Secret("simulator-secret")}
LOCKED = {"lockout_s": 0.15}
"""As long as the client takes a lock-out to be."""


@dataclass(frozen=True)
class Class:
    """Is one class of faults: its name, and what shows that it does no harm."""

    name: str
    plays: tuple[Play, ...] = ()
    proofs: tuple[str, ...] = ()
    """Tests elsewhere, as module::test."""


def played(name, *plays):
    return Class(name, plays)


def proved(name, *proofs):
    return Class(name, proofs=proofs)


def wire(*names, **more):
    return tuple(Play(wire=FAULTS[name], **more) for name in names)


def service(*names, **more):
    return tuple(Play(service=name, **more) for name in names)


def says(status, **more):
    return Play(wire=answering(status), **more)


def name(leads_to, **more):
    return Play(name=leads_to, **more)


def port(which):
    return lambda run: run.ports[which]


def no_such_name(_run):
    return socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def at_list(*faults, settle_s=0.05, stays_held=False, **config):
    """Makes attempts of unknown outcome, which a list of this kind has to settle, or must not."""
    return wire(*faults, config=config, settings={"settle_s": settle_s}, stays_held=stays_held)


IN_DOUBT = ("reset_before_answer", "reset_before_answer_lost")
HOUR = 3_600.0

CLASSES = {
    # connect
    1: played("a name that does not exist", name(no_such_name)),
    2: played("a name server that hangs", name(lambda _: None, settings=IMPATIENT)),
    3: played("another address in the middle of a run", name(port("elsewhere"), moved=True)),
    4: played("a refused connection", name(lambda _: unused_port())),
    5: played("a lost SYN", name(port("crowded"), settings=IMPATIENT)),
    6: played("a connection accepted and reset", *wire("accept_reset", "accept_close")),
    7: played(
        "a certificate expired or of another host",
        name(port("expired"), tls=True),
        name(port("other_host"), tls=True),
    ),
    8: played("a TLS handshake that stalls", name(port("silent"), tls=True, settings=IMPATIENT)),
    9: played("plain HTTP on the TLS port", name(port("plain"), tls=True)),
    # no proxy is ever used, whatever the environment says, so that none can answer a CONNECT
    10: proved("a proxy that refuses CONNECT", "test_evidence::test_the_environments_proxy_is_not_used"),
    # request
    11: played("reset behind the headers", *wire("reset_after_head")),
    12: played("reset in the body", Play(wire=reset_mid_body(10))),
    13: played("a server that stops reading", *wire("stop_reading", settings=SHORT)),
    14: played(
        "a slow upload",
        Play(wire=toxic("slow_upload", to_server=Toxic(bandwidth_bytes_per_s=5_000.0, slicer_bytes=100))),
    ),
    15: played("an early 429 and the end", *wire("early_429_close")),
    16: played("an early 413 and a reset", *wire("early_413_reset")),
    # no request has the header; that a server does not know it cannot matter
    17: proved("Expect ignored", "test_fault_classes::test_no_submission_expects_to_be_asked_for_its_body"),
    18: played("a connection gone stale", *wire("stale_keep_alive", "stale_closed", ends=1)),
    # response
    19: played("the end before the answer, job made", *wire("fin_before_answer")),
    20: played("the end before the answer, none made", *wire("fin_before_answer_lost")),
    21: played("reset before the answer", *wire("reset_before_answer", "reset_before_answer_lost")),
    22: played("an answer after the time-out", Play(wire=answer_late(0.6), settings=SHORT)),
    23: played(
        "a job made long after the reset",
        *service("reset_late", "close_late", "http500_late", late_s=0.15, settings={"settle_s": 0.4}),
    ),
    24: played(
        "a status line, then nothing", *wire("stall_after_status_line", "stall_in_head", settings=SHORT)
    ),
    25: played("headers in drips", *wire("head_drip", settings=SHORT)),
    26: played("a body in drips", *wire("body_drip", settings=SHORT)),
    27: played("a body shorter than its length", *wire("short_length")),
    28: played("a chunked body cut", *wire("cut_chunked", "bad_chunk")),
    29: played("a body without length cut", *wire("cut_by_close")),
    30: played("a status line of rubbish", *wire("garbage_status_line", "not_http")),
    31: played("a flood of 1xx", *wire("interim_flood", settings=SHORT)),
    32: played("a flood of headers", *wire("header_flood", "long_header")),
    33: played("a body without end", *wire("endless_body")),
    34: played("a gzip bomb", *wire("gzip_bomb")),
    35: played("the answer to an earlier request", *wire("answer_of_before", begins=1)),
    # status
    36: played("one 429", *service("lockout_before", config=LOCKED)),
    37: played(
        "429 with 63 in flight",
        Play(
            service="lockout_before",
            config={**LOCKED, "latency": Span(min_s=0.02, max_s=0.04)},
            settings={"workers": 64},
            chunks=70,
        ),
    ),
    38: played("429 again in the lock-out", *service("lockout_before", config={"lockout_s": 0.5})),
    39: played("every token expires", *service("expire_before", settings=LOGIN)),
    40: played(
        "403, 404, 405, 415", *(says(f"{status} No") for status in (403, 404, 405, 415)),
    ),
    41: played("413", says("413 Content Too Large")),
    42: played(
        "400: input, quota, slots, unknown",
        *service("input_before", refused=CHUNK_IDS),
        *service("quota_before", "slots_before", "http400_before"),
    ),
    43: played("500, job made or not", *service("http500_after", "http500_before")),
    44: played(
        "bursts of 502, 503, 504",
        *(Play(service=f"http{status}_{effect}", times=3) for status, effect in
          ((502, "before"), (503, "after"), (504, "before"), (504, "after"))),
    ),
    45: played("each 3xx", *(says(f"{status} No") for status in (300, 301, 302, 303, 304, 305, 307, 308))),
    46: played("200 with an error", *service("error200_before", "error200_after", "html_after")),
    47: played("200 with a job id used before", *service("reused_after", "reused_before", begins=1)),
    # process
    48: proved(
        "SIGKILL",
        "test_crash_points::test_a_run_that_died_there_loses_nothing_and_sends_nothing_twice",
        "test_soak::test_sixty_kills_on_one_ledger_lose_nothing_and_send_nothing_twice",
        "test_sinks::test_what_a_crash_left_behind_the_position_is_cut_off",
    ),
    49: proved(
        "SIGTERM, SIGINT twice",
        "test_process_faults::test_sigterm_sends_nothing_more_and_records_every_answer",
        "test_process_faults::test_a_second_sigint_ends_the_process_within_a_second_and_holds_what_was_in_flight",
    ),
    50: proved(
        "SIGSTOP and CONT",
        "test_process_faults::test_a_process_that_stood_still_for_longer_than_a_request_may_take_goes_on",
    ),
    51: proved(
        "a host that cancels the task",
        "test_process_faults::test_a_host_that_cancels_the_task_leaves_nothing_unrecorded",
    ),
    52: proved(
        "a blocked loop",
        "test_process_faults::"
        "test_a_host_that_blocks_the_loop_for_longer_than_a_request_may_take_holds_what_was_in_flight_at_most",
    ),
    53: proved(
        "a second process on the same ledger",
        "test_process_faults::test_a_second_process_is_refused_before_any_request_and_the_first_goes_on",
        "test_process_faults::test_of_many_that_start_at_once_one_works_and_each_id_is_sent_once",
    ),
    54: proved(
        "a fork",
        "test_process_faults::test_the_end_of_a_forked_child_does_not_give_the_run_away",
        "test_process_faults::test_a_forked_child_that_lives_on_does_not_keep_the_run",
    ),
    # disk
    55: proved(
        "a full disk",
        "test_disk_faults::test_each_failing_call_ends_the_session_in_order",
        "test_ledger_disk::test_an_intent_without_room_fails_alone_and_what_is_in_flight_is_recorded",
        "test_sinks::test_after_a_failed_write_the_position_is_where_it_was",
        "test_delivery::test_a_failing_sink_is_told_once_and_the_records_stay_undelivered",
    ),
    56: proved(
        "a sync that fails or is slow",
        "test_disk_faults::test_each_failing_call_ends_the_session_in_order",
        "test_disk_faults::test_a_slow_disk_holds_nothing_and_loses_nothing",
    ),
    57: proved(
        "a loss of power",
        "test_power_loss::test_power_may_be_lost_behind_any_call_and_a_sample_of_disks_be_torn",
    ),
    58: proved(
        "a ledger that is damaged, cut or gone",
        "test_ledger_damage::test_a_flipped_bit_never_pays_twice",
        "test_ledger_damage::test_a_ledger_that_was_cut_is_refused",
        "test_ledger_damage::test_a_ledger_that_is_gone_is_missed",
    ),
    # clock and lists
    59: played(
        "the wall clock an hour ahead or back",
        *(Play(wire=FAULTS[fault], step_s=step_s) for step_s in (HOUR, -HOUR) for fault in IN_DOUBT),
    ),
    60: played(
        "a list that lags, shifts, hides, shows others",
        *at_list(*IN_DOUBT, settle_s=0.3, list_lag_s=0.1),
        *at_list(*IN_DOUBT, list_newest_first=True, foreign_per_page=1.0),
        *at_list(*IN_DOUBT, list_hides_type=True, stays_held=True),
        *at_list(*IN_DOUBT, foreign_per_submit=2.0),
    ),
}  # fmt: skip
CASES = {
    f"{number}-{nth}-{place}": (play, place)
    for number, one in CLASSES.items()
    for nth, play in enumerate(one.plays, 1)
    for place in PLACES
}


def posts_of(play: Play) -> dict[str, int]:
    """Gives the POST at each place."""
    return {"start": 1 + play.begins, "middle": play.chunks // 2, "end": play.chunks - play.ends}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make certificates with")
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    """Shortens the waits that are no subject here: what matters is what is done after them."""
    monkeypatch.setattr("bulkjobs.breaker.FIRST_WAIT_S", 0.02)
    monkeypatch.setattr("bulkjobs.worker._BACKOFF_BASE_S", 0.02)
    monkeypatch.setattr("bulkjobs.account.auth._RETRY_BASE_S", 0.02)
    monkeypatch.setitem(Throttle.__init__.__kwdefaults__, "slot_retry_s", 0.02)


async def go(run: Run, monkeypatch) -> Run:
    monkeypatch.setattr(aiohttp.connector, "DefaultResolver", lambda *_, **__: run.names)
    # Each connection asks for its name again, as after the ten seconds that aiohttp remembers it for.
    monkeypatch.setattr(aiohttp.connector._DNSCacheTable, "expired", lambda *_: True)
    monkeypatch.setattr(Halt, "pause", run.pause_of)
    plays = [play for play, _ in run.plays]
    async with contextlib.AsyncExitStack() as stack:
        if any(play.tls for play in plays):
            await other_servers(run, stack)
        if any(play.name is not None for play in plays):
            run.ports["crowded"] = stack.enter_context(crowded_port())
        await run.go()
    return run


async def other_servers(run: Run, stack: contextlib.AsyncExitStack) -> None:
    """Starts the servers that a name may lead to."""
    silent, plain = (Plan(every_connection=FAULTS[fault]) for fault in ("accept_silence", "plain_http"))
    servers: dict[str, tuple[Plan | None, ssl.SSLContext | None]] = {
        "silent": (silent, None),
        "plain": (plain, None),
        **{name: (None, run.certificates.server(name)) for name in ("expired", "other_host")},
    }
    for which, (plan, tls) in servers.items():
        proxy = await stack.enter_async_context(FaultProxy(plan=plan, tls=tls))
        run.ports[which] = int(proxy.origin.rpartition(":")[2])


def assert_kept(run: Run) -> None:
    """Holds what is true at the end, whatever happened."""
    for judgement in run.judgements:
        assert judgement.violations == [], judgement
    figures = run.judgements[-1].figures
    assert (figures["lost"], figures["paid_twice"], figures["orphans"]) == (0, 0, 0)
    assert figures["delivered"] + figures["refused"] + figures["held"] == len(run.ids), run.judgements[-1]


@pytest.mark.parametrize("case", CASES)
async def test_a_fault_at_the_start_in_the_middle_and_at_the_end_loses_nothing_and_pays_nothing_twice(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    play, place = CASES[case]
    certificates = request.getfixturevalue("certificates") if play.tls else None
    at = posts_of(play)[place]
    # A run that holds does not look at the list before it begins, so what goes out first could never be settled.
    run = Run(tmp_path, [(play, at)], certificates=certificates, holds_first=place == "end" or play.lonely)
    await go(run, monkeypatch)
    assert_kept(run)
    assert run.struck.total() >= 1
    figures = run.judgements[-1].figures
    assert figures["refused"] == play.refused
    if play.stays_held:
        assert (figures["held"], run.sessions[-1]) == (CHUNK_IDS, Exit.HELD)
    else:
        assert (figures["held"], figures["paid"]) == (0, len(run.ids) - play.refused), run.judgements[-1]


PAIRED = [
    (number, play)
    for number, one in CLASSES.items()
    for play in one.plays
    if not (play.lonely or play.step_s or play.chunks > 6 or play.config.keys() - LOCKED.keys())
]


@pytest.mark.parametrize("seed", range(PAIRS))
async def test_two_faults_in_one_run_lose_nothing_and_pay_nothing_twice(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(f"pairs/{seed}")
    (one, first), (other, second) = random.sample(PAIRED, 2)
    at, later = sorted(random.sample(range(1, 7), 2))
    print(f"{seed=}: class {one} at POST {at}, class {other} at POST {later}: {first} {second}")
    run = await go(Run(tmp_path, [(first, at), (second, later)], holds_first=False), monkeypatch)
    assert_kept(run)
    assert run.judgements[-1].figures["held"] == 0, run.judgements[-1]


def hopeful(evidence: Evidence) -> Verdict:
    """Takes what is in doubt for what was not sent."""
    verdict = judge(evidence)
    return NotApplied(cause=Cause.NOT_SENT, reason="hope") if isinstance(verdict, Unknown) else verdict


@pytest.mark.parametrize("number", [19, 22, 24, 27, 28, 29, 30, 32, 34, 43, 46])
async def test_an_engine_that_sends_again_what_is_in_doubt_is_noticed(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each of these is played: there is a job, and the client cannot know."""
    monkeypatch.setattr("bulkjobs.worker.judge", hopeful)
    play = CLASSES[number].plays[-1 if number == 46 else 0]
    run = await go(Run(tmp_path, [(play, 3)]), monkeypatch)
    assert run.judgements[-1].figures["paid_twice"] == CHUNK_IDS
    assert run.judgements[-1].violations != []


async def test_a_lock_out_that_outlasts_the_clients_is_met_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So class 38 is played."""
    run = await go(Run(tmp_path, [(CLASSES[38].plays[0], 3)]), monkeypatch)
    journal = (tmp_path / "books.posts.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["status"] == 429 for line in journal) > 1
    assert_kept(run)


async def test_no_submission_expects_to_be_asked_for_its_body() -> None:
    async with FaultProxy(plan=Plan(every_post=answering("200 OK"))) as proxy, transport() as client:
        await client.request(submit(proxy.origin))
    assert b"\r\nexpect:" not in proxy.posts[0].head.lower()


def test_there_are_sixty_classes_and_each_is_played_or_proved() -> None:
    assert list(CLASSES) == list(range(1, 61))
    assert [number for number, one in CLASSES.items() if bool(one.plays) == bool(one.proofs)] == []


def test_each_test_that_proves_a_class_exists() -> None:
    """One that was renamed or taken out would leave a promise without its proof."""
    missing = [
        proof
        for one in CLASSES.values()
        for module, _, test in [proof.partition("::") for proof in one.proofs]
        for proof in [f"{module}::{test}"]
        if not callable(getattr(importlib.import_module(module), test, None))
    ]
    assert missing == []
