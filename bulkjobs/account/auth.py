"""Keeps the access token: given once, kept in a file, or minted by a login.

The rules of this file:

- A refused token is refreshed once. When its successor is refused before any request with it went through,
  the credentials are no good, and everybody who asks gets the same `AuthError`. Callers only report: `worked`
  for a token the server took, `refresh` for one it refused.
- Callers share one refresh. Whoever reports a token that was replaced meanwhile gets the new one.
- Tokens and secrets stand in no message, and what the server says to a login is not quoted: it may repeat them.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from bulkjobs.account.exchange import THROTTLED, exchange
from bulkjobs.backoff import delay_s
from bulkjobs.errors import AuthError, ConfigError
from bulkjobs.events import TokenRefreshed
from bulkjobs.model import Phase
from bulkjobs.settings import Secret
from bulkjobs.settings.values import guarded
from bulkjobs.wire.answer import MalformedAnswer, Token, parse_token
from bulkjobs.wire.request import login_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bulkjobs.account.gate import Gate
    from bulkjobs.events import Observer
    from bulkjobs.model import Evidence
    from bulkjobs.ports import Clock, RequestLog, Transport
    from bulkjobs.settings import Settings

__all__ = ["Authenticator", "GivenToken", "Login", "TokenFile", "authenticator_from", "check_credentials"]

LOGIN_ATTEMPTS: Final = 8
"""Logins that may fail in a row for reasons that pass by themselves: with the waits below, some minutes."""

_RETRY_BASE_S: Final = 1.0
_RETRY_CAP_S: Final = 60.0

_MARGIN_S: Final = 300.0
_MARGIN_SHARE: Final = 0.1
"""A token is renewed five minutes before it expires, or a tenth of its life if that is less, so that no
request that is being sent meets the end of it."""

_REDIRECTION: Final = 300
_SERVER_ERROR: Final = 500
_PASSING: Final = frozenset({408, 425})
"""Refusals that say nothing about the credentials: the request came too slowly, or too early."""

_TOKEN_FILE_CAP_BYTES: Final = 65_536


class Authenticator(ABC):
    """Gives the access token for a request and replaces it when the server refuses it."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lock = asyncio.Lock()
        self._current: str | None = None
        self._renewed = False
        """The current token took the place of another one and was not seen to work yet."""
        self._failed: str | None = None

    async def token(self) -> str:
        """Gives the token to send, minting or renewing it first when that is due.

        Raises:
            AuthError: there is none, and there will be none.
            ConfigError: the text that was given as a token cannot be one.
            GateStopped: a login was needed, and nothing is let through any more.
        """
        current = self._current
        if current is not None and self._failed is None and not self._due():
            return current
        async with self._lock:
            self._check_failed()
            if self._current is None or self._due():
                await self._replace("the token is about to expire" if self._current else None)
            return self._usable()

    def is_current(self, token: str) -> bool:
        """Tells whether a token is still the one to send: since it was given it may have been replaced, or be due."""
        return token == self._current and not self._due()

    async def last_token(self) -> str:
        """Gives the last token there was, also one that is due or was refused; only the first is waited for.

        Raises:
            As `token`.
        """
        return await self.token() if self._current is None else self._current

    async def refresh(self, rejected: str, reason: str) -> str:
        """Takes the server's refusal of a token and gives its successor.

        Args:
            rejected: the token that was refused.
            reason: what the server said, for people.

        Raises:
            AuthError: there is no successor, or it was refused as well.
            GateStopped: a login was needed, and nothing is let through any more.
        """
        async with self._lock:
            self._check_failed()
            if rejected == self._current:
                if self._renewed:
                    raise self._fail(f"The server refused a new access token as well: {reason}")
                await self._replace(reason)
                self._renewed = True
            return self._usable()

    def worked(self, token: str) -> None:
        """Takes note that the server took a token: any answer to it but a 401 says so."""
        if token == self._current:
            self._renewed = False

    @abstractmethod
    async def _obtain(self, rejected: str | None, reason: str) -> str:
        """Gives a token other than the rejected one, or raises what `_fail` gives."""

    def _due(self) -> bool:
        """Tells whether the current token must be replaced although the server has not refused it."""
        return False

    async def _replace(self, reason: str | None) -> None:
        self._current = await self._obtain(self._current, reason or "")
        if reason is not None:
            self._observer(TokenRefreshed(reason=reason))

    def _usable(self) -> str:
        assert self._current is not None
        return self._current

    def _check_failed(self) -> None:
        if self._failed is not None:
            raise AuthError(self._failed)

    def _fail(self, message: str) -> AuthError:
        """Makes the failure last: a server that refuses credentials is not to be asked again and again."""
        self._failed = message
        return AuthError(message)


class GivenToken(Authenticator):
    """Has one token, from the environment, and nothing to replace it with."""

    def __init__(self, given: Secret, observer: Observer) -> None:
        super().__init__(observer)
        self._given = given

    async def _obtain(self, rejected: str | None, reason: str) -> str:
        if rejected is not None:
            raise self._fail(
                f"The server refused the access token: {reason} Set BULKJOBS_ACCESS_TOKEN to a valid one and "
                "give the same command again."
            )
        return self._given.reveal()


class TokenFile(Authenticator):
    """Reads the token from a file, which something else may rewrite while the run goes on."""

    def __init__(self, path: Path, observer: Observer) -> None:
        super().__init__(observer)
        self._path = path

    async def _obtain(self, rejected: str | None, reason: str) -> str:
        found = await asyncio.to_thread(_read_token, self._path)
        if found == rejected:
            raise self._fail(
                f"The server refused the access token in {self._path}: {reason} Put a valid one there and give "
                "the same command again."
            )
        return found


class Login(Authenticator):
    """Mints tokens with a client id and its secret; its requests pass the gate like all others."""

    def __init__(
        self,
        *,
        login_url: str,
        client_id: str,
        client_secret: Secret,
        first: Authenticator | None,
        gate: Gate,
        transport: Transport,
        request_log: RequestLog,
        observer: Observer,
        clock: Clock,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """Makes an authenticator that has not logged in yet.

        Args:
            login_url: address of the token endpoint.
            client_id: names the API key.
            client_secret: proves that the key is ours.
            first: gives a token to begin with, until the server refuses it; None to log in at once.
            gate: stands before the login.
            transport: carries it.
            request_log: keeps it, as it counts for the window.
            observer: is told of new tokens.
            clock: tells when a token expires.
            uniform: gives numbers in [0, 1) for the waits between failed logins.
        """
        super().__init__(observer)
        self._request = login_request(
            login_url=login_url, client_id=client_id, client_secret=client_secret.reveal()
        )
        self._first = first
        self._gate = gate
        self._transport = transport
        self._request_log = request_log
        self._clock = clock
        self._uniform = uniform
        self._renew_utc: float | None = None

    def _due(self) -> bool:
        return self._renew_utc is not None and self._clock.utc() >= self._renew_utc

    async def _obtain(self, rejected: str | None, reason: str) -> str:  # noqa: ARG002 - another kind needs it
        if rejected is None and self._first is not None:
            return await self._first.token()
        token = await self._login()
        self._renew_utc = None
        now_utc = self._clock.utc()
        # A token that is old on arrival shows that one of the clocks is wrong: it is used until a 401.
        if token.expires_utc is not None and token.expires_utc > now_utc:
            life_s = token.expires_utc - now_utc
            self._renew_utc = token.expires_utc - min(_MARGIN_S, _MARGIN_SHARE * life_s)
        return token.access_token

    async def _login(self) -> Token:
        failures = 0
        while True:
            evidence = await exchange(
                self._request, gate=self._gate, transport=self._transport, request_log=self._request_log
            )
            if evidence.status == THROTTLED:
                continue  # not a failure: the gate is closed now, and opens when it is time
            if (status := evidence.status) is not None and _refuses(status):
                raise self._fail(
                    f"The login was refused with HTTP {status}. Check BULKJOBS_CLIENT_ID, "
                    "BULKJOBS_CLIENT_SECRET and --login-url, and give the same command again."
                )
            token = _token_in(evidence)
            if isinstance(token, Token):
                return token
            failures += 1
            if failures == LOGIN_ATTEMPTS:
                raise self._fail(
                    f"The login failed {failures} times, at last because {token}. Check --login-url and the "
                    "network, and give the same command again."
                )
            wait_s = delay_s(failures, base_s=_RETRY_BASE_S, cap_s=_RETRY_CAP_S, random=self._uniform())
            await asyncio.sleep(wait_s)


def check_credentials(settings: Settings) -> None:
    """Passes settings with which one can ask for something.

    Raises:
        ConfigError: there are no credentials.
    """
    if settings.access_token is None and settings.access_token_file is None and settings.client_id is None:
        raise ConfigError(
            "There are no credentials. Set BULKJOBS_ACCESS_TOKEN, or BULKJOBS_CLIENT_ID and "
            "BULKJOBS_CLIENT_SECRET, or use --access-token-file."
        )


def authenticator_from(
    settings: Settings,
    *,
    gate: Gate,
    transport: Transport,
    request_log: RequestLog,
    observer: Observer,
    clock: Clock,
    uniform: Callable[[], float] = random.random,
) -> Authenticator:
    """Makes the authenticator that the settings ask for.

    With client id and secret it logs in; an access token given besides is used until the server refuses it.

    Raises:
        ConfigError: there are no credentials.
    """
    check_credentials(settings)
    given: Authenticator | None = None
    if settings.access_token is not None:
        given = GivenToken(settings.access_token, observer)
    elif settings.access_token_file is not None:
        given = TokenFile(settings.access_token_file, observer)
    if settings.client_id is not None and settings.client_secret is not None:
        return Login(
            login_url=settings.login_url,
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            first=given,
            gate=gate,
            transport=transport,
            request_log=request_log,
            observer=observer,
            clock=clock,
            uniform=uniform,
        )
    assert given is not None
    return given


def _refuses(status: int) -> bool:
    """Tells whether another login would be answered the same: redirects and refusals, but no passing troubles."""
    return _REDIRECTION <= status < _SERVER_ERROR and status not in _PASSING


def _token_in(evidence: Evidence) -> Token | str:
    """Reads the token; gives the reason when there is none, which quotes nothing of the answer."""
    if evidence.status is None:
        return f"there was no answer ({evidence.error or 'no reason known'})"
    if evidence.status >= _REDIRECTION:
        return f"the answer was HTTP {evidence.status}"
    if evidence.phase < Phase.COMPLETE or evidence.body_cut:
        return "the answer broke off"
    try:
        return parse_token(evidence.body)
    except MalformedAnswer:
        return "the answer held no usable token"


def _read_token(path: Path) -> str:
    """Reads a file that holds one token and nothing else but blanks and line ends around it."""
    try:
        with path.open("rb") as file:
            text = file.read(_TOKEN_FILE_CAP_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        # A name in no folder that exists may be the token itself, put where its file should be named.
        shown = path if path.parent.name and path.parent.is_dir() else guarded(str(path))
        raise ConfigError(f"The access token cannot be read from {shown}: {error.strerror}.") from None
    try:
        return Secret(text).reveal()
    except ConfigError:
        raise ConfigError(
            f"{path} does not hold an access token: it is empty, or holds a blank, a line end inside or a "
            "character outside visible ASCII. It may hold one token, as the vendor gave it."
        ) from None
