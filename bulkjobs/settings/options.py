"""Every option, once: its name, default, unit, range and help.

The command line, the environment, the file of options and the checks of `Settings` all read this table.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from bulkjobs.settings.option import Kind, Option
from bulkjobs.settings.values import (
    DAY_S,
    MOST_WORKERS,
    Rate,
    duration_text,
    parse_duration,
    parse_rate,
    seconds,
    whole,
)

__all__ = ["OPTIONS"]


def _count(low: int, high: int, *, none: bool = False) -> Kind:
    def parse(text: str) -> int | None:
        if none and text.strip().lower() == "none":
            return None
        # int() alone would also take signs, underscores and the digits of other alphabets.
        if not re.fullmatch(r"[0-9]{1,12}", text.strip()):
            raise ValueError(text)
        return int(text)

    return Kind(
        may_be=f"a whole number from {low} to {high:,}" + (", or none" if none else ""),
        parse=parse,
        holds=lambda value: (none and value is None) or whole(value, low, high),
    )


def _choice(*words: str) -> Kind:
    return Kind(may_be=" or ".join(words), parse=str, holds=lambda value: value in words)


def _text(may_be: str) -> Kind:
    return Kind(
        may_be=may_be,
        parse=str,
        holds=lambda value: isinstance(value, str) and value.strip() != "",
    )


def _time(high_s: float) -> Kind:
    return Kind(
        may_be=f"a time above 0 and up to {duration_text(high_s)}, such as 250ms, 90s, 5m or 1.5h",
        parse=parse_duration,
        holds=lambda value: seconds(value, high_s),
    )


def _rate(*words: str, auto: bool) -> Kind:
    return Kind(
        may_be="N/TIME with N from 1 to 10,000,000 and TIME above 0 and up to 1d, such as 900/5m, or "
        + ("auto, auto/TIME or none" if auto else "none"),
        parse=parse_rate,
        holds=lambda value: (
            value is None or (isinstance(value, Rate) and auto >= value.auto) or value in words
        ),
    )


_SWITCH_WORDS: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)
_SWITCH: Final = Kind(
    may_be="true or false",
    parse=lambda text: _SWITCH_WORDS.get(text.strip().lower()),
    holds=lambda value: isinstance(value, bool),
)
_PATH: Final = Kind(
    may_be="a path",
    # An empty text would be the current directory; os.path leaves an unknown ~user alone where Path raises.
    parse=lambda text: Path(os.path.expanduser(text)) if text.strip() else None,  # noqa: PTH111 - see above
    holds=lambda value: isinstance(value, Path) and "\0" not in str(value),
)
_COLUMN: Final = Kind(
    may_be=f"the name of a column, or its number from 1 to {10_000:,}",
    parse=lambda text: int(text) if re.fullmatch(r"[0-9]{1,12}", text.strip()) else text,
    holds=lambda value: whole(value, 1, 10_000) or (isinstance(value, str) and value.strip() != ""),
)
_URL: Final = _text("an absolute URL")
_SINKS: Final = Kind(
    may_be="the text of a sink, such as - or jobs.jsonl, or a list of these",
    parse=lambda text: (text,),
    holds=lambda value: isinstance(value, tuple) and all(isinstance(spec, str) and spec for spec in value),
)

OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="--run",
        field="run",
        kind=_PATH,
        metavar="DIR",
        default="<first source>.run",
        help="Directory that holds the ledger and all else of this run.",
    ),
    Option(
        name="--endpoint",
        field="endpoint",
        kind=_text("the name of an endpoint"),
        metavar="NAME",
        default="contacts",
        help="Kind of bulk job: contacts (integer ids) or target-contacts (opaque ids).",
    ),
    Option(
        name="--base-url",
        field="base_url",
        kind=_URL,
        metavar="URL",
        default="https://api.insideview.com/api/v1",
        help="Where jobs are submitted.",
    ),
    Option(
        name="--login-url",
        field="login_url",
        kind=_URL,
        metavar="URL",
        default="https://login.insideview.com/Auth/login/v1/token.json",
        help="Where BULKJOBS_CLIENT_ID and BULKJOBS_CLIENT_SECRET are exchanged for a token.",
    ),
    Option(
        name="--access-token-file",
        field="access_token_file",
        kind=_PATH,
        metavar="FILE",
        default="none; see BULKJOBS_ACCESS_TOKEN",
        help="File with the access token, read again when the server no longer takes it.",
    ),
    Option(
        name="--accept",
        field="accept",
        kind=_choice("json", "xml"),
        metavar="json|xml",
        default="json",
        help="Form of the answers that are asked for.",
    ),
    Option(
        name="--workers",
        field="workers",
        kind=_count(1, MOST_WORKERS),
        metavar="N",
        default="8",
        help="Requests in flight at most.",
    ),
    Option(
        name="--rate",
        field="rate",
        kind=_rate(auto=True),
        metavar="N/TIME",
        default="900/5m",
        help="Requests the account may make in any such period; none for no limit, auto to find it out.",
    ),
    Option(
        name="--lockout",
        field="lockout_s",
        kind=_time(7 * DAY_S),
        metavar="TIME",
        default="the period of --rate, or 5m",
        help="How long a throttle answer closes the account; 3 % is added.",
    ),
    Option(
        name="--pace",
        field="pace",
        kind=_rate("default", auto=False),
        metavar="N/TIME",
        default="4 times --rate, at least 10/1s",
        help="Short-term pace within --rate; none for as fast as the workers go.",
    ),
    Option(
        name="--max-active-jobs",
        field="max_active_jobs",
        kind=_count(1, 10_000, none=True),
        metavar="N",
        default="2",
        help="Unfinished jobs the server allows at a time; none for no cap.",
    ),
    Option(
        name="--account",
        field="account",
        kind=_text("a name"),
        metavar="NAME",
        default="the client id, or the access token",
        help="Name of the account, where several keys or tokens share one limit.",
    ),
    Option(
        name="--state-dir",
        field="state_dir",
        kind=Kind(
            may_be="a path, or none",
            parse=lambda text: "none" if text.strip().lower() == "none" else _PATH.parse(text),
            holds=lambda value: value in ("none", "default") or _PATH.holds(value),
        ),
        metavar="DIR",
        default="~/.local/state/bulkjobs",
        help="Where runs of one account on this machine share what it has used up; none to share nothing.",
    ),
    Option(
        name="--column",
        field="column",
        kind=_COLUMN,
        metavar="NAME|N",
        default="none: the sources are ids",
        help="Column with the ids, by its name or its number: the sources are tables (CSV, TSV, Parquet).",
    ),
    Option(
        name="--query",
        field="query",
        kind=_text("one query that only reads"),
        metavar="SQL",
        default="none",
        help="Query that gives the ids of a database, in one column; with ORDER BY it can go on when interrupted.",
    ),
    Option(
        name="--chunk-size",
        field="chunk_size",
        kind=_count(1, 1_000_000),
        metavar="N",
        default="the most the endpoint takes",
        help="Ids in one request.",
    ),
    Option(
        name="--dedupe",
        off="--no-dedupe",
        field="dedupe",
        kind=_SWITCH,
        metavar=None,
        default="on",
        help="Send each id once, however often it occurs in the run.",
    ),
    Option(
        name="--webhook",
        field="webhook",
        kind=_URL,
        metavar="URL",
        default="none",
        help="URL the server calls with the state of jobs; a nonce for each chunk is added.",
    ),
    Option(
        name="--sink",
        field="sinks",
        kind=_SINKS,
        metavar="SPEC",
        default="RUN/jobs.jsonl",
        help="Where job records go: - for stdout, or a .jsonl file. May be repeated.",
        repeatable=True,
    ),
    Option(
        name="--on-unknown",
        field="on_unknown",
        kind=_choice("hold", "reconcile"),
        metavar="hold|reconcile",
        default="reconcile",
        help="What becomes of chunks with an unknown outcome: hold them, or compare them with the server's jobs.",
    ),
    Option(
        name="--settle",
        field="settle_s",
        kind=_time(DAY_S),
        metavar="TIME",
        default="10m",
        help="Wait before the server's list of jobs is read for held chunks, and again between two readings.",
    ),
    Option(
        name="--exclusive",
        field="exclusive",
        kind=_SWITCH,
        metavar=None,
        default="off",
        help="Nobody else makes jobs with this account: a held chunk may be matched by its size alone.",
    ),
    Option(
        name="--bisect",
        field="bisect",
        kind=_SWITCH,
        metavar=None,
        default="off",
        help="Divide a chunk that is refused for bad ids until only they are left; each part is a job of its own.",
    ),
    Option(
        name="--forecast",
        off="--no-forecast",
        field="forecast",
        kind=_SWITCH,
        metavar=None,
        default="on",
        help="Ask what is left of the quota before the first submission, and tell if it may not last.",
    ),
    Option(
        name="--spend-cap",
        field="spend_cap",
        kind=_count(1, 999_999_999_999, none=True),
        metavar="IDS",
        default="none",
        help="Most ids that may be accepted, held or in flight, over all sessions of the run.",
    ),
    Option(
        name="--poll",
        field="poll_s",
        kind=_time(DAY_S),
        metavar="TIME",
        default="by the durations seen",
        help="Least time between two questions after the state of one job.",
    ),
    Option(
        name="--request-timeout",
        field="request_timeout_s",
        kind=_time(DAY_S),
        metavar="TIME",
        default="5m",
        help="Longest time for one request; a chunk without an answer by then is held.",
    ),
    Option(
        name="--connect-timeout",
        field="connect_timeout_s",
        kind=_time(DAY_S),
        metavar="TIME",
        default="30s",
        help="Longest time to connect; nothing was sent yet.",
    ),
    Option(
        name="--allow-http",
        field="allow_http",
        kind=_SWITCH,
        metavar=None,
        default="off",
        help="Take http and private addresses; the access token then travels unprotected.",
    ),
    Option(
        name="--config",
        field="config",
        kind=_PATH,
        metavar="FILE",
        default="bulkjobs.toml, if there is one",
        help="File of options, in TOML.",
        in_file=False,
    ),
    Option(
        name="--json",
        field="json",
        kind=_SWITCH,
        metavar=None,
        default="off",
        help="Print the result as one JSON object.",
    ),
    Option(
        name="--quiet",
        field="quiet",
        kind=_SWITCH,
        metavar=None,
        default="off",
        help="No progress; on stderr only what needs a person.",
    ),
    Option(
        name="--metrics",
        field="metrics",
        kind=_PATH,
        metavar="FILE",
        default="none",
        help="File in which Prometheus metrics are kept while it works; needs the extra `metrics`.",
    ),
    Option(
        name="--log-format",
        field="log_format",
        kind=_choice("text", "json"),
        metavar="text|json",
        default="text",
        help="Form of the log on stderr; json replaces the progress display.",
    ),
)
"""Every option, in the order in which help shows them."""
