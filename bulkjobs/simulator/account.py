"""What all requests of one account share: its tokens, its window and its lock-out.

Source: vendor article "Throttling and Quota Monitoring Overview": requests are counted over a period; once
there are too many, every token of the account is refused for a full period and the count restarts at zero.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkjobs.simulator.messages import Kind, Refusal

if TYPE_CHECKING:
    from bulkjobs.simulator.config import ServiceConfig

__all__ = ["Lockout", "SlidingCount", "Throttle", "Tokens"]


class Tokens:
    """Knows which access tokens are good, and makes new ones."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self._expires_at: dict[str, float] = dict.fromkeys(config.tokens, math.inf)
        self._minted = 0

    def known(self, token: str | None) -> bool:
        """Tells whether the token is or was one of this account."""
        return token in self._expires_at

    def valid(self, token: str, now: float) -> bool:
        """Tells whether a known token is still good."""
        return now < self._expires_at[token]

    def expire(self, now: float) -> None:
        """Ends every token that the login handed out; those that are good for ever stay so."""
        for token, expires_at in self._expires_at.items():
            if expires_at < math.inf:
                self._expires_at[token] = min(expires_at, now)

    def mint(self, client_id: str | None, client_secret: str | None, now: float) -> tuple[str, float]:
        """Makes a token in the vendor's form, two Base64 parts with a point between, and says when it expires.

        Raises:
            Refusal: 401, the credentials are not this account's.
        """
        config = self._config
        if (client_id, client_secret) != (config.client_id, config.client_secret):
            raise Refusal(401, "401-151", "Client id or client secret is not valid.")
        self._minted += 1
        key = hashlib.blake2b(f"{config.seed}/token/{self._minted}".encode(), digest_size=32).digest()
        claims = {
            "grantType": "cred",
            "jti": key.hex()[:16],
            "ttl": config.token_ttl_s,
            "iat": now,
            "clientId": client_id,
        }
        parts = (key, json.dumps(claims).encode())
        token = ".".join(base64.b64encode(part).decode() for part in parts)
        expires_at = self._expires_at[token] = now + config.token_ttl_s
        return token, expires_at


class SlidingCount:
    """Counts what happened in the last `window_s` seconds; what happened exactly then ago has left."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._times: deque[float] = deque()
        self.peak = 0
        """The greatest count so far."""

    def add(self, now: float) -> int:
        """Adds one and gives the count with it."""
        times = self._times
        while times and times[0] <= now - self._window_s:
            times.popleft()
        times.append(now)
        self.peak = max(self.peak, len(times))
        return len(times)

    def clear(self) -> None:
        """Starts again at zero; the peak stays."""
        self._times.clear()


class _FixedCount:
    """Counts in windows that follow one upon the other."""

    def __init__(self, window_s: float, phase_s: float) -> None:
        self._window_s = window_s
        self._phase_s = phase_s
        self._index = 0.0
        self._count = 0

    def add(self, now: float) -> int:
        """Adds one and gives the count of the current window with it."""
        index = (now - self._phase_s) // self._window_s
        if index != self._index:
            self._index, self._count = index, 0
        self._count += 1
        return self._count

    def clear(self) -> None:
        """Starts again at zero."""
        self._count = 0


@dataclass(slots=True, kw_only=True)
class Lockout:
    """Is one lock-out, for the books."""

    began_at: float
    until: float
    requests: int = 0
    """Requests refused because of it, after the one that caused it."""
    last_request_at: float | None = None


class Throttle:
    """Decides which requests of the account are let through."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self.limit = config.rate
        """Is what is allowed now. A test may change it, as the vendor may; the window's length stays."""
        window_s = config.rate.window_s if config.rate else float("inf")  # not counted without a limit
        phase_s = config.fixed_window_phase_s
        self._count = SlidingCount(window_s) if phase_s is None else _FixedCount(window_s, phase_s)
        self._meter = SlidingCount(window_s)
        self.lockouts: list[Lockout] = []
        self.refused = 0
        """Requests refused in all, those that caused a lock-out included."""

    @property
    def max_in_window(self) -> int | None:
        """Is the most counted requests in any sliding window, however the limit itself is counted.

        Those that came during a lock-out are left out, the one that caused it is in. None without a limit,
        for then there is no window.
        """
        return self._meter.peak if self.limit else None

    @property
    def locked_until(self) -> float:
        """Is when the last lock-out ends or ended."""
        return self.lockouts[-1].until if self.lockouts else float("-inf")

    def admit(self, kind: Kind, now: float) -> bool:
        """Counts a request and tells whether it is let through.

        A kind that does not count is still refused during a lock-out, except the login, which has no token.
        """
        counts = kind in self._config.counted
        if now < self.locked_until:
            if kind is Kind.LOGIN and not counts:
                return True
            self._refuse_locked(now)
            return False
        if self.limit is None or not counts:
            return True
        self._meter.add(now)
        if self._count.add(now) <= self.limit.count:
            return True
        self.lock(now)
        return False

    def lock(self, now: float) -> None:
        """Refuses a request and begins a lock-out; the count starts again at zero."""
        self._count.clear()
        self.refused += 1
        self.lockouts.append(Lockout(began_at=now, until=now + self._config.lockout_s))

    def _refuse_locked(self, now: float) -> None:
        lockout = self.lockouts[-1]
        lockout.requests += 1
        lockout.last_request_at = now
        self.refused += 1
        if self._config.lockout_extends:
            lockout.until = now + self._config.lockout_s
