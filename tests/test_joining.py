"""A run joins the others of its account: where it cannot, it goes on alone, or stops if it was told where to."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bulkjobs.account.joining import open_throttle
from bulkjobs.account.shared import SharedThrottle
from bulkjobs.account.store import folder_of
from bulkjobs.clock import SystemClock
from bulkjobs.errors import BulkJobsError, ConfigError, LedgerError
from bulkjobs.events import Event, StateNotShared
from bulkjobs.settings import Settings
from bulkjobs.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


def settings_with(state_dir: Path | str) -> Settings:
    return Settings.of(
        {"base_url": "https://host/api", "token": "a-token", "input_root": "/data", "state_dir": state_dir}
    )


def joined(settings: Settings) -> tuple[bool, list[Event]]:
    """Tells whether a run shares its state, and what it was told."""
    told: list[Event] = []

    async def join() -> bool:
        async with open_throttle(settings, "run", 1, clock=SystemClock(), emit=told.append) as throttle:
            return isinstance(throttle, SharedThrottle)

    return run_virtual(join()), told


def no_home(patch: pytest.MonkeyPatch, _folder: Path) -> None:
    def nobody(_user: int) -> object:
        raise KeyError

    patch.delenv("XDG_STATE_HOME")
    patch.delenv("HOME", raising=False)
    patch.setattr("pwd.getpwuid", nobody)


def a_file_in_the_way(patch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "bulkjobs").write_text("")
    patch.setenv("XDG_STATE_HOME", str(folder))


def links_in_a_circle(patch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "bulkjobs").symlink_to("bulkjobs")
    patch.setenv("XDG_STATE_HOME", str(folder))


def a_store_that_takes_nothing(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("XDG_STATE_HOME", str(folder))
    settings = settings_with("default")
    assert joined(settings)[0]
    database = sqlite3.connect(
        folder_of(folder / "bulkjobs", settings.base_url, settings.account_name) / "account.db"
    )
    database.execute(
        "CREATE TRIGGER full BEFORE INSERT ON session BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
    )
    database.close()


@pytest.mark.parametrize(
    "trouble", [no_home, a_file_in_the_way, links_in_a_circle, a_store_that_takes_nothing]
)
def test_where_the_default_folder_cannot_be_used_a_run_goes_on_alone_and_says_so(
    trouble: Callable[[pytest.MonkeyPatch, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble(monkeypatch, tmp_path)
    shared, told = joined(settings_with("default"))
    assert not shared
    assert [type(event) for event in told] == [StateNotShared]


@pytest.mark.parametrize("trouble", [a_file_in_the_way, links_in_a_circle, a_store_that_takes_nothing])
def test_where_a_folder_that_was_given_cannot_be_used_a_run_stops_and_says_what_to_do(
    trouble: Callable[[pytest.MonkeyPatch, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble(monkeypatch, tmp_path)
    with pytest.raises(BulkJobsError, match="--state-dir") as raised:
        joined(settings_with(tmp_path / "bulkjobs"))
    assert isinstance(raised.value, ConfigError | LedgerError)


def test_a_run_that_shares_nothing_says_so_if_others_are_at_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert joined(settings_with("none")) == (False, [])
    assert not list(tmp_path.iterdir()), "to look leaves nothing behind"
    told: list[Event] = []

    async def beside_another() -> None:
        async with (
            open_throttle(settings_with("default"), "one", 1, clock=SystemClock(), emit=told.append),
            open_throttle(settings_with("none"), "two", 1, clock=SystemClock(), emit=told.append),
        ):
            pass

    run_virtual(beside_another())
    [event] = told
    assert isinstance(event, StateNotShared)
    assert event.reason.startswith("another run of it is at work, and --state-dir is none.")
    assert joined(settings_with("none")) == (False, []), "they have left"
