"""Access tokens: given, from a file, minted; one refresh, one login for all, and nothing secret in a message."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bulkjobs.account.auth import LOGIN_ATTEMPTS, Authenticator, Login, authenticator_from
from bulkjobs.account.gate import Gate, GateStopped
from bulkjobs.errors import AuthError, ConfigError
from bulkjobs.events import Event, TokenRefreshed
from bulkjobs.model import Evidence, Phase, Request, RequestKind
from bulkjobs.settings import Secret, Settings
from bulkjobs.testing import FakeTransport, VirtualClock, answered, lost, run_virtual
from bulkjobs.throttle import Throttle

CLIENT_SECRET = "canary-secret"
GIVEN = Secret("canary-given")
LOGIN_SETTINGS = Settings(client_id="me", client_secret=Secret(CLIENT_SECRET))


class LogInMemory:
    def __init__(self) -> None:
        self.begun: list[RequestKind] = []
        self.ended: list[int | None] = []

    async def begin_request(self, kind: RequestKind) -> int:
        self.begun.append(kind)
        return len(self.begun)

    def end_request(self, number: int, status: int | None) -> None:
        self.ended.append(status)


class Bench:
    """An authenticator with everything around it, to be made inside the loop."""

    def __init__(
        self,
        settings: Settings = LOGIN_SETTINGS,
        server: Callable[[Request], Awaitable[Evidence] | Evidence] | None = None,
    ) -> None:
        self.minted = 0
        self.events: list[Event] = []
        self.log = LogInMemory()
        self.clock = VirtualClock()
        self.transport = FakeTransport(server or self.mint, clock=self.clock)
        self.gate = Gate(
            Throttle(rate=None, lockout_s=300.0, max_active_jobs=None),
            pace=None,
            clock=self.clock,
            observer=lambda _: None,
            on_lockout=lambda *_: None,
            on_limit=lambda _: None,
        )
        self.auth: Authenticator = authenticator_from(
            settings,
            gate=self.gate,
            transport=self.transport,
            request_log=self.log,
            observer=self.events.append,
            clock=self.clock,
        )

    def mint(self, _: Request) -> Evidence:
        self.minted += 1
        return token_answer(f"canary-token-{self.minted}")


def token_answer(token: str, expires: str = "") -> Evidence:
    details = f'"accessToken":"{token}","tokenType":"bearer","expirationTime":"{expires}"'
    return answered(200, b'{"accessTokenDetails":{' + details.encode() + b"}}")


def now() -> float:
    return asyncio.get_running_loop().time()


def everything_said_by(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


# --- a token that was given ---


def test_a_given_token_is_used_as_it_stands() -> None:
    async def main() -> tuple[str, list[Request]]:
        bench = Bench(Settings(access_token=GIVEN))
        return await bench.auth.token(), bench.transport.requests

    assert run_virtual(main()) == ("canary-given", [])


def test_a_refused_given_token_is_the_end_and_stays_so() -> None:
    async def main() -> str:
        bench = Bench(Settings(access_token=GIVEN))
        token = await bench.auth.token()
        with pytest.raises(AuthError, match="BULKJOBS_ACCESS_TOKEN") as first:
            await bench.auth.refresh(token, "HTTP 401")
        with pytest.raises(AuthError):
            await bench.auth.token()
        with pytest.raises(AuthError):
            await bench.auth.refresh(token, "HTTP 401")
        return everything_said_by(first.value)

    assert "canary" not in run_virtual(main())


def test_without_credentials_nothing_is_made() -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="no credentials"):
            Bench(Settings())

    run_virtual(main())


# --- a token in a file ---


def test_a_token_file_is_read_again_when_its_token_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("  first\n")

    async def main() -> tuple[list[str], list[Event]]:
        bench = Bench(Settings(access_token_file=path))
        tokens = [await bench.auth.token()]
        path.write_text("second\r\n")
        tokens += [await bench.auth.token(), await bench.auth.refresh("first", "HTTP 401")]
        return tokens, bench.events

    assert run_virtual(main()) == (["first", "first", "second"], [TokenRefreshed(reason="HTTP 401")])


def test_a_token_file_that_did_not_change_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("canary-file")

    async def main() -> str:
        bench = Bench(Settings(access_token_file=path))
        with pytest.raises(AuthError, match="refused the access token in") as caught:
            await bench.auth.refresh(await bench.auth.token(), "HTTP 401")
        return everything_said_by(caught.value)

    assert "canary" not in run_virtual(main())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b"canary one",
        b"canary\ntwo",
        b"canary\x00",
        b"canary\x1b[0m",
        "canaryé".encode(),
        b"\xff",
    ],
)
def test_what_cannot_stand_in_a_header_is_no_token(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)

    async def main() -> str:
        with pytest.raises(ConfigError, match="does not hold an access token") as caught:
            await Bench(Settings(access_token_file=path)).auth.token()
        return everything_said_by(caught.value)

    assert "canary" not in run_virtual(main())


def test_a_token_file_that_is_missing_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match=r"no-such-file: No such file"):
            await Bench(Settings(access_token_file=tmp_path / "no-such-file")).auth.token()

    run_virtual(main())


@pytest.mark.parametrize(
    "token", ["aGVsbG8gd29ybGQ.eyJqdGkiOiJ4In0=", "aGVsbG8/d29ybGQ.eyJ/dGkiOi+4In0=", "/aGVsbG8d29ybGQ"]
)
def test_a_token_in_place_of_its_file_is_not_shown(token: str) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError) as told:
            await Bench(Settings(access_token_file=Path(token))).auth.token()
        assert token not in str(told.value)
        assert told.value.__cause__ is None

    run_virtual(main())


# --- logging in ---


def test_callers_share_one_login() -> None:
    async def main() -> tuple[set[str], Bench]:
        async def slow(request: Request) -> Evidence:
            await asyncio.sleep(5)
            return bench.mint(request)

        bench = Bench(server=slow)
        return set(await asyncio.gather(*(bench.auth.token() for _ in range(50)))), bench

    tokens, bench = run_virtual(main())
    assert tokens == {"canary-token-1"}
    assert (bench.minted, bench.log.begun, bench.log.ended) == (1, [RequestKind.LOGIN], [200])
    assert bench.events == []


def test_callers_share_one_refresh_and_late_refusals_of_the_old_token_get_the_new_one() -> None:
    async def main() -> tuple[list[str], Bench]:
        bench = Bench()
        old = await bench.auth.token()
        new = await asyncio.gather(*(bench.auth.refresh(old, "HTTP 401") for _ in range(8)))
        bench.auth.worked(new[0])
        return [*new, await bench.auth.refresh(old, "HTTP 401"), await bench.auth.token()], bench

    tokens, bench = run_virtual(main())
    assert set(tokens) == {"canary-token-2"}
    assert bench.minted == 2
    assert bench.events == [TokenRefreshed(reason="HTTP 401")]


def test_a_new_token_that_is_refused_as_well_ends_the_run_for_everybody() -> None:
    async def main() -> tuple[str, int]:
        bench = Bench()
        new = await bench.auth.refresh(await bench.auth.token(), "HTTP 401")
        outcomes = await asyncio.gather(
            *(bench.auth.refresh(new, "HTTP 401") for _ in range(3)),
            bench.auth.token(),
            return_exceptions=True,
        )
        assert all(isinstance(outcome, AuthError) for outcome in outcomes)
        return "".join(everything_said_by(outcome) for outcome in outcomes), bench.minted

    said, minted = run_virtual(main())
    assert minted == 2
    assert "canary" not in said


def test_a_new_token_that_worked_may_be_refused_later_and_is_replaced_again() -> None:
    async def main() -> str:
        bench = Bench()
        token = await bench.auth.token()
        for _ in range(5):
            token = await bench.auth.refresh(token, "HTTP 401")
            bench.auth.worked(token)
        return token

    assert run_virtual(main()) == "canary-token-6"


def test_word_that_the_old_token_worked_says_nothing_of_the_new_one() -> None:
    async def main() -> None:
        bench = Bench()
        old = await bench.auth.token()
        new = await bench.auth.refresh(old, "HTTP 401")
        bench.auth.worked(old)
        with pytest.raises(AuthError):
            await bench.auth.refresh(new, "HTTP 401")

    run_virtual(main())


@pytest.mark.parametrize(
    ("expires", "renewed_at_s"),
    [
        ("Thu, Jan 01, 2026 01:00:00 AM GMT", 3_300.0),
        ("Thu, Jan 01, 2026 12:10:00 AM GMT", 540.0),
        ("Wed, Dec 31, 2025 11:00:00 PM GMT", None),
        ("some day", None),
    ],
    ids=["an hour: five minutes ahead", "ten minutes: a tenth ahead", "long ago: not believed", "unreadable"],
)
def test_a_token_is_renewed_ahead_of_its_end(expires: str, renewed_at_s: float | None) -> None:
    async def main() -> list[int]:
        def mint(_: Request) -> Evidence:
            minted.append(now())
            return token_answer(f"token-{len(minted)}", expires if len(minted) == 1 else "")

        minted: list[float] = []
        bench = Bench(server=mint)
        counts = []
        for at_s in (0.0, (renewed_at_s or 50_000.0) - 1.0, (renewed_at_s or 50_000.0) + 1.0):
            await asyncio.sleep(at_s - now())
            await asyncio.gather(bench.auth.token(), bench.auth.token())
            counts.append(len(minted))
        return counts

    assert run_virtual(main()) == [1, 1, 1 if renewed_at_s is None else 2]


def test_a_given_token_is_used_before_the_first_login() -> None:
    async def main() -> list[str]:
        bench = Bench(Settings(access_token=GIVEN, client_id="me", client_secret=Secret(CLIENT_SECRET)))
        token = await bench.auth.token()
        assert bench.minted == 0
        return [token, await bench.auth.refresh(token, "HTTP 401"), await bench.auth.token()]

    assert run_virtual(main()) == ["canary-given", "canary-token-1", "canary-token-1"]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 415])
def test_a_refused_login_is_not_tried_again_and_quotes_nothing(status: int) -> None:
    async def main() -> tuple[str, int]:
        body = f'{{"message":"no such client {CLIENT_SECRET}"}}'.encode()
        bench = Bench(server=lambda _: answered(status, body))
        outcomes = await asyncio.gather(*(bench.auth.token() for _ in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, AuthError) and str(status) in str(outcome) for outcome in outcomes)
        return "".join(everything_said_by(outcome) for outcome in outcomes), len(bench.transport.requests)

    said, requests = run_virtual(main())
    assert requests == 1
    assert CLIENT_SECRET not in said
    assert "clientSecret=" not in said


@pytest.mark.parametrize(
    "trouble",
    [
        answered(500),
        answered(503),
        answered(408),
        lost("ClientOSError: reset"),
        lost("refused", phase=Phase.STARTED),
        answered(200, b"<html>"),
        answered(200, b'{"accessTokenDetails":{"accessToken":"canary\\n"}}'),
    ],
    ids=["500", "503", "408", "reset", "refused", "no token", "token with a line end"],
)
def test_passing_troubles_are_tried_again_a_bounded_number_of_times(trouble: Evidence) -> None:
    async def main() -> tuple[str, int, float]:
        bench = Bench(server=lambda _: trouble)
        with pytest.raises(AuthError, match=f"failed {LOGIN_ATTEMPTS} times") as caught:
            await bench.auth.token()
        with pytest.raises(AuthError):
            await bench.auth.token()
        return everything_said_by(caught.value), len(bench.transport.requests), now()

    said, requests, took_s = run_virtual(main())
    assert requests == LOGIN_ATTEMPTS
    assert took_s <= 1 + 2 + 4 + 8 + 16 + 32 + 60
    assert "canary" not in said


def test_a_login_that_fails_for_a_while_succeeds_in_the_end() -> None:
    async def main() -> str:
        def server(request: Request) -> Evidence:
            return lost() if len(bench.transport.requests) < LOGIN_ATTEMPTS else bench.mint(request)

        bench = Bench(server=server)
        return await bench.auth.token()

    assert run_virtual(main()) == "canary-token-1"


def test_a_throttled_login_waits_the_lock_out_out_and_is_no_failure() -> None:
    async def main() -> tuple[str, float]:
        def server(request: Request) -> Evidence:
            throttled = len(bench.transport.requests) < LOGIN_ATTEMPTS + 5
            return answered(429) if throttled else bench.mint(request)

        bench = Bench(server=server)
        return await bench.auth.token(), now()

    token, took_s = run_virtual(main())
    assert token == "canary-token-1"
    assert took_s == pytest.approx((LOGIN_ATTEMPTS + 4) * 309.0, abs=1e-3)


def test_a_cancelled_login_is_taken_over_by_the_next_caller() -> None:
    async def main() -> str:
        async def slow(request: Request) -> Evidence:
            await asyncio.sleep(5)
            return bench.mint(request)

        bench = Bench(server=slow)
        first = asyncio.create_task(bench.auth.token())
        second = asyncio.create_task(bench.auth.token())
        await asyncio.sleep(1)
        first.cancel()
        return await second

    assert run_virtual(main()) == "canary-token-1"


def test_a_closed_gate_stops_a_login_without_condemning_the_credentials() -> None:
    async def main() -> None:
        bench = Bench()
        bench.gate.close()
        for _ in range(2):
            with pytest.raises(GateStopped):
                await bench.auth.token()

    run_virtual(main())


def test_no_repr_shows_a_secret() -> None:
    async def main() -> str:
        bench = Bench()
        await bench.auth.token()
        assert isinstance(bench.auth, Login)
        return repr(bench.auth) + repr(vars(bench.auth)["_request"])

    assert "canary" not in run_virtual(main())


def test_the_last_token_is_given_also_when_it_is_due_and_only_the_first_is_waited_for() -> None:
    """For a question whose answer may be a refusal: a login would have to wait, or fail."""

    async def main() -> None:
        bench = Bench(server=lambda _: token_answer("canary-short", "Thu, Jan 01, 2026 01:00:00 AM GMT"))
        assert await bench.auth.last_token() == "canary-short"
        assert len(bench.transport.requests) == 1
        bench.clock.epoch_utc += 3_500.0
        assert await bench.auth.last_token() == "canary-short"
        assert len(bench.transport.requests) == 1
        await bench.auth.token()
        assert len(bench.transport.requests) == 2

    run_virtual(main())
