"""`Settings`, the values in force, and where they come from.

An option's text reads the same wherever it stands. It is looked for on the command line, then in the
environment (`BULKJOBS_…`), then in `bulkjobs.toml`; else the default holds. A message names the place, what
stood there and what it may be; it never shows a token, a secret or the whole of a URL, nor a text that
could be one in the wrong place. Paths are shown.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Self

from bulkjobs.errors import ConfigError
from bulkjobs.settings.options import OPTIONS
from bulkjobs.settings.values import (
    DEFAULT_RATE,
    Rate,
    Secret,
    check_url,
    check_webhook,
    shown,
    visible,
)

__all__ = ["Settings", "merge"]

_CREDENTIALS: Final = ("access_token", "client_id", "client_secret")
_CONFIG_NAME: Final = "bulkjobs.toml"


def merge(
    options: Mapping[str, object], environ: Mapping[str, str], config_file: Path | None = None
) -> dict[str, object]:
    """Gathers what was given anywhere: options before environment before file.

    Args:
        options: by field name; text, or the value itself; None counts as not given.
        environ: the environment; the credentials come from here and from nowhere else.
        config_file: read in place of `bulkjobs.toml`; the option `config` comes before it.

    Returns:
        Checked values by field name, only of what was given somewhere.

    Raises:
        ConfigError: something cannot be used, or the file cannot be read.
    """
    unknown = options.keys() - {option.field for option in OPTIONS}
    if unknown:
        raise ConfigError(f"There is no option {min(unknown)!r}.")
    above: dict[str, object] = {}
    for option in OPTIONS:
        if options.get(option.field) is not None:
            above[option.field] = option.read(options[option.field], option.name)
        elif environ.get(option.environ):
            above[option.field] = option.read(environ[option.environ], option.environ)
    for name in _CREDENTIALS:
        text = environ.get(f"BULKJOBS_{name.upper()}")
        if text:
            above[name] = _credential(name, text)
    named = above.get("config", config_file)
    return _read_file(named if isinstance(named, Path) else None) | above


def _credential(name: str, text: str) -> Secret | str:
    if not visible(text):
        raise ConfigError(
            f"BULKJOBS_{name.upper()} holds a blank, a line end or a character outside visible ASCII; "
            "it may be one word, as the vendor gave it."
        )
    return text if name == "client_id" else Secret(text)


def _read_file(named: Path | None) -> dict[str, object]:
    path = named or Path(_CONFIG_NAME)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise ConfigError(f"The file of options {path} does not exist.") from None
    except OSError as error:
        raise ConfigError(f"The file of options {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        # A TOML error gives the place, a decoding error the offset; neither shows a value.
        raise ConfigError(f"The file of options {path} is not TOML: {error}.") from error
    except RecursionError:
        raise ConfigError(f"The file of options {path} is nested too deep to be one.") from None
    known = {option.key: option for option in OPTIONS if option.in_file}
    values: dict[str, object] = {}
    for key, given in table.items():
        if key.lower().replace("-", "_") in _CREDENTIALS:
            raise ConfigError(
                f"{path}: {key} does not belong in a file of options. Set BULKJOBS_ACCESS_TOKEN, or "
                "BULKJOBS_CLIENT_ID and BULKJOBS_CLIENT_SECRET, or use --access-token-file."
            )
        if key not in known:
            raise ConfigError(f"{path}: there is no option {shown(key)}; it may be {', '.join(known)}.")
        values[known[key].field] = known[key].read(given, f"{path}: {key}")
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Holds all that decides what a run does. The meaning of each field stands in `OPTIONS`.

    Raises:
        ConfigError: a value is out of range, or two of them contradict each other.
    """

    endpoint: str = "contacts"
    base_url: str = "https://api.insideview.com/api/v1"
    login_url: str = "https://login.insideview.com/Auth/login/v1/token.json"
    access_token: Secret | None = None
    access_token_file: Path | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    accept: Literal["json", "xml"] = "json"
    workers: int = 8
    rate: Rate | None = DEFAULT_RATE
    lockout_s: float | None = None
    pace: Rate | Literal["default"] | None = "default"
    max_active_jobs: int | None = 2
    account: str | None = None
    state_dir: Path | Literal["default", "none"] = "none"
    """A program that embeds the library has nothing written outside the run directory unless it says so."""
    column: str | int | None = None
    query: str | None = None
    chunk_size: int | None = None
    dedupe: bool = True
    webhook: str | None = field(default=None, repr=False)
    """Its query may hold a password of the receiver, so it is in no repr."""
    sinks: tuple[str, ...] = ()
    on_unknown: Literal["hold", "reconcile"] = "reconcile"
    settle_s: float = 600.0
    exclusive: bool = False
    bisect: bool = False
    forecast: bool = True
    spend_cap: int | None = None
    poll_s: float | None = None
    request_timeout_s: float = 300.0
    connect_timeout_s: float = 30.0
    allow_http: bool = False

    def __post_init__(self) -> None:
        for name in ("access_token", "client_secret"):
            given: object = getattr(self, name)
            if isinstance(given, str):  # kept as it is it would stand in every repr
                object.__setattr__(self, name, Secret(given))
        defaults = {each.name: each.default for each in fields(self)}
        for option in OPTIONS:
            # None as the default means that something else decides, such as the endpoint.
            if option.field in defaults and getattr(self, option.field) is not defaults[option.field]:
                option.check(getattr(self, option.field))
        for name in ("base_url", "login_url"):
            url = getattr(self, name)
            check_url(url, f"{name} (--{name.replace('_', '-')})", allow_http=self.allow_http)
            object.__setattr__(self, name, url.rstrip("/"))
        if self.webhook is not None:
            check_webhook(self.webhook, "webhook (--webhook)", allow_http=self.allow_http)
        self._check_credentials()

    @classmethod
    def load(
        cls,
        options: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        config_file: Path | None = None,
    ) -> Self:
        """Reads the settings: `options`, then `environ` (the process's own), then the file, then defaults.

        Raises:
            ConfigError: as `merge`, and when values contradict each other.
        """
        return cls.of(merge(options or {}, os.environ if environ is None else environ, config_file))

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """Makes settings of what `merge` gave, leaving out what is not kept here.

        Raises:
            ConfigError: values contradict each other.
        """
        kept: dict[str, Any] = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        return cls(**kept)

    @property
    def effective_lockout_s(self) -> float:
        """Is how long a throttle answer closes the account, without margin, in seconds."""
        if self.lockout_s is not None:
            return self.lockout_s
        return self.rate.period_s if self.rate is not None else 300.0

    @property
    def account_name(self) -> str:
        """Is what tells this account from others: the name given, the client id, or where the token comes from."""
        token = "" if self.access_token is None else self.access_token.reveal()
        file = "" if self.access_token_file is None else str(self.access_token_file.absolute())
        return self.account or self.client_id or token or file

    def chunk_size_within(self, most: int) -> int:
        """Gives the ids for one request to an endpoint that takes `most`.

        Raises:
            ConfigError: the chunk size is larger than that.
        """
        if self.chunk_size is not None and self.chunk_size > most:
            raise ConfigError(
                f"chunk_size (--chunk-size) is {self.chunk_size}; "
                f"it may be 1 to {most:,} for the endpoint {self.endpoint}."
            )
        return self.chunk_size or most

    def _check_credentials(self) -> None:
        if self.access_token is not None and self.access_token_file is not None:
            raise ConfigError(
                "There are two access tokens, BULKJOBS_ACCESS_TOKEN and --access-token-file; give one."
            )
        if (self.client_id is None) != (self.client_secret is None):
            missing = "BULKJOBS_CLIENT_ID" if self.client_id is None else "BULKJOBS_CLIENT_SECRET"
            raise ConfigError(f"A login takes a client id and its secret; {missing} is missing.")
