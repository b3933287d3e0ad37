"""The words of live control, and how they stand on the wire: one JSON object a line, one line each way.

    {"bulkjobs": 1, "command": "rate", "value": "900/5m"}
    {"bulkjobs": 1, "done": true, "state": {"paused": false, "rate": "900/5m", …}}
    {"bulkjobs": 1, "done": false, "kind": "refused", "reason": "…"}

`bulkjobs` is the version of these rules. Whoever reads a line of another version says which one it knows; a key that
is not known is passed over, so that a newer side may say more.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, assert_never, cast

from bulkjobs.errors import BulkJobsError, ConfigError
from bulkjobs.settings import OPTIONS, Rate
from bulkjobs.settings.values import duration_text

__all__ = [
    "MAX_LINE_BYTES",
    "VERSION",
    "Answer",
    "Ask",
    "Command",
    "Drain",
    "Pause",
    "ProtocolError",
    "Refusal",
    "Resume",
    "SetRate",
    "SetWorkers",
    "State",
    "answer_line",
    "command_of",
    "read_answer",
    "read_request",
    "request_line",
    "words_of",
]

VERSION: Final = 1
MAX_LINE_BYTES: Final = 4096
"""Many times what a line can need, and little enough to keep for whoever never ends one."""


class ProtocolError(BulkJobsError):
    """Says what is wrong with a line."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Changes nothing; the answer is how things are."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Submits wait. What is in flight is answered and recorded, and jobs are tracked."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Ends a pause."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Nothing more is sent; answers in flight are recorded, and the session ends."""


@dataclass(frozen=True, slots=True)
class SetRate:
    """Puts another limit of the account in force."""

    rate: Rate | None
    """None for no limit."""


@dataclass(frozen=True, slots=True)
class SetWorkers:
    """Changes how many workers there are."""

    count: int


Command = Ask | Pause | Resume | Drain | SetRate | SetWorkers

_PLAIN: Final[dict[str, Command]] = {
    "state": Ask(),
    "pause": Pause(),
    "resume": Resume(),
    "drain": Drain(),
}
_OPTIONS: Final = {option.field: option for option in OPTIONS if option.field in ("rate", "workers")}
"""What may be given with a command is what may be given to the option of its name."""


def command_of(name: str, value: str | None) -> Command:
    """Makes a command of what a person wrote.

    Raises:
        ConfigError: there is no such command, or its value is missing, too much, or out of range.
    """
    if name in _PLAIN:
        if value is not None:
            raise ConfigError(f"`{name}` takes no value.")
        return _PLAIN[name]
    option = _OPTIONS.get(name)
    if option is None:
        raise ConfigError(
            f"{name!r:.80} is no command; it may be pause, resume, drain, rate N/TIME or workers N."
        )
    if value is None:
        raise ConfigError(f"`{name}` needs a value; it may be {option.kind.may_be}.")
    read = option.read(value, name)
    if name == "rate":
        return SetRate(cast("Rate | None", read))
    return SetWorkers(cast("int", read))


def words_of(command: Command) -> tuple[str, str | None]:
    """Gives a command's name and value as a person would write them."""
    match command:
        case Ask():
            return "state", None
        case Pause():
            return "pause", None
        case Resume():
            return "resume", None
        case Drain():
            return "drain", None
        case SetRate(rate):
            return "rate", _rate_text(rate)
        case SetWorkers(count):
            return "workers", str(count)
        case _:
            assert_never(command)


def _rate_text(rate: Rate | None) -> str:
    if rate is None:
        return "none"
    return f"auto/{duration_text(rate.period_s)}" if rate.auto else str(rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Is what is in force in a session, and how far it uses it."""

    run_id: str
    pid: int
    paused: bool
    draining: bool
    """Nothing more is sent; the session is about to end."""
    rate: str | None
    """The limit of the account in force, such as `900/5m`; None for none."""
    window_used: int | None
    """How many requests of a window are used up; None without a limit."""
    locked_until: str | None
    """When the lock-out ends, in RFC 3339; None when there is none."""
    workers: int
    in_flight: int
    """Requests of any kind."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Is why a command was not carried out."""

    kind: Literal["refused", "unreadable", "storage"]
    """It cannot be done; the line is none of this protocol; or it could not be recorded."""
    reason: str


Answer = State | Refusal


def request_line(command: Command) -> bytes:
    """Writes the line that asks for a command."""
    name, value = words_of(command)
    return _line({"command": name, "value": value})


def read_request(line: bytes) -> Command:
    """Reads the line that asks for a command.

    Raises:
        ProtocolError: it is no such line.
    """
    told = _object(line)
    name, value = told.get("command"), told.get("value")
    if not isinstance(name, str) or not (value is None or isinstance(value, str)):
        raise ProtocolError("A request has a `command`, and a `value` that is text or null.")
    try:
        return command_of(name, value)
    except ConfigError as error:
        raise ProtocolError(str(error)) from error


def answer_line(answer: Answer) -> bytes:
    """Writes the line that answers a request."""
    match answer:
        case State():
            return _line({"done": True, "state": dataclasses.asdict(answer)})
        case Refusal(kind, reason):
            return _line({"done": False, "kind": kind, "reason": reason})
        case _:
            assert_never(answer)


def read_answer(line: bytes) -> Answer:
    """Reads the line that answers a request.

    Raises:
        ProtocolError: it is no such line.
    """
    told = _object(line)
    if told.get("done") is True and isinstance(state := told.get("state"), dict):
        return _from_fields(State, state)
    if told.get("done") is False:
        return _from_fields(Refusal, told)
    raise ProtocolError("The answer says neither that it is done nor why not.")


_T = TypeVar("_T", State, Refusal)


def _from_fields(kind: type[_T], told: dict[str, Any]) -> _T:
    names = {field.name for field in dataclasses.fields(kind)}
    if missing := names - set(told):
        raise ProtocolError(f"The answer lacks {', '.join(sorted(missing))}.")
    return kind(**{name: told[name] for name in names})


def _line(told: dict[str, object]) -> bytes:
    return json.dumps({"bulkjobs": VERSION} | told).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("The line is not JSON.") from None
    if not isinstance(told, dict) or "bulkjobs" not in told:
        raise ProtocolError('The line is no object with "bulkjobs": 1 in it.')
    if told["bulkjobs"] != VERSION:
        raise ProtocolError(
            f"The line is of another version of the protocol than {VERSION}, which is known here."
        )
    return told
