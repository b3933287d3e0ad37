"""What an option is: where it can be given, and what values it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bulkjobs.errors import ConfigError
from bulkjobs.settings.values import guarded

__all__ = ["Kind", "Option"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Is what values an option takes: as text, and as the value itself."""

    may_be: str
    parse: Callable[[str], object]
    """From text; raises ValueError."""
    holds: Callable[[object], bool]
    """Tells whether a typed value is in range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Describes one option for every place in which it can be given."""

    name: str
    """As on the command line, `--rate`. The environment name and the key in the file follow from it."""
    field: str
    """Name of the value, the one in `Settings` if it is kept there."""
    kind: Kind
    metavar: str | None
    """None for a switch."""
    default: str
    """As shown to a person."""
    help: str
    off: str | None = None
    """The name that turns a switch off."""
    repeatable: bool = False
    in_file: bool = True

    @property
    def environ(self) -> str:
        """Is the environment variable, such as `BULKJOBS_RATE`. An empty one counts as not set."""
        return "BULKJOBS_" + self.key.replace("-", "_").upper()

    @property
    def key(self) -> str:
        """Is the key in the file: the option without its dashes in front."""
        return self.name.removeprefix("--")

    def read(self, given: object, place: str) -> object:
        """Makes a value of what was given: text is parsed, anything else must be the value itself.

        Raises:
            ConfigError: it cannot be used; the message names the place.
        """
        try:
            if self.repeatable and isinstance(given, list | tuple):
                value: object = tuple(given)
            else:
                value = self.kind.parse(given) if isinstance(given, str) else given
        except ValueError:
            raise self._error(given, place) from None
        if not self.kind.holds(value):
            raise self._error(given, place)
        return value

    def check(self, value: object) -> None:
        """Passes a typed value that is in range.

        Raises:
            ConfigError: it is not; the message names the field and the option.
        """
        if not self.kind.holds(value):
            raise self._error(value, f"{self.field} ({self.name})")

    def _error(self, given: object, place: str) -> ConfigError:
        return ConfigError(f"{place} is {guarded(given)}; it may be {self.kind.may_be}.")
