"""What a scenario says: a server, a way to it, a client, what happens meanwhile, and what must come of it.

A file in `tests/scenarios` reads as a specification. `[server]` takes the options of `bulkjobs simulate`, `[client]`
those of `bulkjobs submit`, each written as there; the other tables are explained by the values they become.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args

from bulkjobs.settings import OPTIONS, Secret, Settings
from bulkjobs.simulator import ServiceConfig, Span, spelling
from bulkjobs.simulator.config import NOTHING
from support.simulated import BASE_URL, LOGIN_URL, TOKEN

__all__ = ["FOLDER", "Event", "Network", "Scenario", "Work", "load", "names", "parse"]

FOLDER: Final = Path(__file__).parent.parent.parent / "scenarios"

Counted = Literal["start", "end", "anywhere", "worst"]
When = Literal["any", "window used up", "locked out", "in flight"]
What = Literal["restart", "lock-out", "limit", "foreign", "clock"]

_Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Says how much is to be sent: some chunks, or as many as the best client sends in a time."""

    chunks: int | None = None
    span_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Says how long answers take, and at which moment of that time the server counts a request."""

    answer: Span
    """From the start of a request to the end of its answer."""
    counted: Counted = "anywhere"
    """`worst` counts late what is sent in one half of the windows and early what is sent in the other, so that the
    counts of two bursts come as close to each other as they can."""
    slow: Span | None = None
    slow_share: float = 0.0
    """Share of the requests whose answer takes `slow` instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Happens at a time, and again `every` so often until the end or `until`."""

    what: What
    at_s: float
    every_s: float = math.inf
    until_s: float = math.inf
    when: When = "any"
    """A restart waits for this moment: the worst ones are those at which there is most to forget."""
    down: Span = NOTHING
    """How long nobody runs between the end of a process and the start of the next."""
    count: int = 0
    """Of a `limit`: the requests in a window from now on. Of a `foreign` user: its requests in a window."""
    by_s: float = 0.0
    """How far the wall clock is set: by `clock`, or while nobody runs after a `restart`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Is one file."""

    name: str
    title: str
    work: Work
    config: ServiceConfig
    job_times: tuple[Span, ...]
    """From the acceptance of a job to its end; with several, each job takes one of them."""
    network: Network
    settings: Settings
    processes: int
    """How many clients work at the same time and share the state of the account."""
    events: tuple[Event, ...]
    expect: Mapping[str, _Range]
    engine_chunks: int | None
    """How many chunks the whole engine sends of it; None for a scenario that only the fast driver plays."""
    engine_expect: Mapping[str, _Range]
    seed: int


def names() -> list[str]:
    """Gives the scenarios there are."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Scenario:
    """Reads a scenario.

    Raises:
        ValueError: something in the file has no meaning.
    """
    return parse(name, (FOLDER / f"{name}.toml").read_text())


def parse(name: str, text: str) -> Scenario:
    """Makes a scenario of a file's text; see `load`."""
    table = tomllib.loads(text)
    known = {"title", "seed", "work", "server", "network", "client", "events", "expect", "engine"}
    _only(f"{name}: the file", table, known)
    seed = table.get("seed", 1)
    server, client, work = dict(table["server"]), dict(table["client"]), dict(table["work"])
    job_times = server.pop("job-time", "0s")
    texts = job_times if isinstance(job_times, list) else [job_times]
    processes = client.pop("processes", 1)
    engine = dict(table.get("engine", {}))
    engine_chunks = engine.pop("chunks", None)
    return Scenario(
        name=name,
        title=table["title"],
        work=_read(Work, work),
        config=_config(server, seed),
        job_times=tuple(spelling.read_span(one) for one in texts),
        network=_read(Network, table["network"]),
        settings=_settings(client),
        processes=processes,
        events=tuple(_read(Event, event) for event in table.get("events", [])),
        expect={what: (low, high) for what, (low, high) in table["expect"].items()},
        engine_chunks=engine_chunks,
        engine_expect={what: (low, high) for what, (low, high) in engine.items()},
        seed=seed,
    )


_SERVER: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "rate": ("rate", spelling.read_rate),
    "fixed-window-phase": ("fixed_window_phase_s", spelling.read_duration),
    "lockout": ("lockout_s", spelling.read_duration),
    "lockout-extends": ("lockout_extends", bool),
    "retry-after": ("retry_after", str),
    "max-active-jobs": ("max_active_jobs", spelling.read_count),
    "quota": ("quota_ids", spelling.read_count),
    "slots-refusal": ("slots_refusal", int),
    "list-newest-first": ("list_newest_first", bool),
}


def _config(given: Mapping[str, Any], seed: int) -> ServiceConfig:
    _only("[server]", given, set(_SERVER))
    values = {_SERVER[key][0]: _SERVER[key][1](value) for key, value in given.items()}
    return ServiceConfig(seed=seed, **values)


def _settings(given: Mapping[str, Any]) -> Settings:
    known = {option.key: option for option in OPTIONS}
    _only("[client]", given, set(known))
    values = {known[key].field: known[key].read(value, f"[client] {key}") for key, value in given.items()}
    fixed = {
        "base_url": BASE_URL,
        "login_url": LOGIN_URL,
        "access_token": Secret(TOKEN),
        "state_dir": "default",
        "on_unknown": "hold",
        "chunk_size": 1,
    }
    return Settings.of({**fixed, **values})


def _read(kind: type[Any], given: Mapping[str, Any]) -> Any:
    """Makes a value of a table: `x-y` sets `x_y`, and a time or a span is read as one."""
    values: dict[str, Any] = {}
    by_key = {each.name.removesuffix("_s").replace("_", "-"): each for each in fields(kind)}
    _only(f"[{kind.__name__.lower()}]", given, set(by_key))
    for key, value in given.items():
        each = by_key[key]
        if each.name.endswith("_s"):
            back = value.startswith("-")
            values[each.name] = spelling.read_duration(value.removeprefix("-")) * (-1 if back else 1)
        elif "Span" in str(each.type):
            values[each.name] = spelling.read_span(value)
        else:
            values[each.name] = value
        choices = get_args(globals().get(str(each.type)))
        if choices and value not in choices:
            raise ValueError(f"{key} = {value!r} has no meaning; it may be one of {', '.join(choices)}")
    return kind(**values)


def _only(place: str, given: Mapping[str, Any], known: set[str]) -> None:
    if unknown := given.keys() - known:
        raise ValueError(f"{place}: {min(unknown)!r} has no meaning; known are {', '.join(sorted(known))}")
