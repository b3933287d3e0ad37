"""Joins the other runs of the account, or goes without them where nothing can be shared."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bulkjobs.errors import ConfigError, LedgerError
from bulkjobs.events import StateNotShared
from bulkjobs.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bulkjobs.account.shared import SharedThrottle
    from bulkjobs.events import Event
    from bulkjobs.ports import Clock
    from bulkjobs.settings import Settings

__all__ = ["default_state_dir", "open_throttle"]

_TRIES: Final = 20
_BETWEEN_TRIES_S: Final = 0.25


def default_state_dir() -> Path:
    """Gives where runs share what they know of their accounts if they are not told.

    Source: XDG Base Directory Specification, `XDG_STATE_HOME`.

    Raises:
        ConfigError: the user has no home folder.
    """
    above = Path(os.environ.get("XDG_STATE_HOME", ""))
    if above.is_absolute():
        return above / "bulkjobs"
    try:
        return Path.home() / ".local" / "state" / "bulkjobs"
    except RuntimeError as error:
        raise ConfigError(
            "The user has no home folder. Set HOME or XDG_STATE_HOME, or give --state-dir."
        ) from error


@asynccontextmanager
async def open_throttle(
    settings: Settings, run_id: str, run_session: int, *, clock: Clock, emit: Callable[[Event], None]
) -> AsyncIterator[Throttle]:
    """Gives the account's throttle, in step with the other runs of the account for as long as the block lasts.

    Where the default folder cannot be used the run goes on without the others, and says so; also if it was told to
    share nothing and others are at work.

    Raises:
        ConfigError: the folder that was given cannot be used.
        LedgerError: what stands in such a folder cannot be read or written.
    """
    try:
        if settings.state_dir == "none":
            shared = None
            if others := _others_at_work(settings):
                reason = (
                    f"{others} at work, and --state-dir is none. Divide the account's limit between them."
                )
                emit(StateNotShared(reason=reason))
        else:
            shared = await _join(settings, run_id, run_session, clock)
    except (ConfigError, LedgerError) as error:
        if settings.state_dir != "default":
            raise
        emit(StateNotShared(reason=str(error)))
        shared = None
    if shared is None:
        yield Throttle(
            rate=settings.rate,
            lockout_s=settings.effective_lockout_s,
            max_active_jobs=settings.max_active_jobs,
        )
        return
    try:
        yield shared
    finally:
        shared.leave(asyncio.get_running_loop().time())


def _others_at_work(settings: Settings) -> str | None:
    """Tells whether runs of the account share what they know in the default folder, in words; None if none does."""
    from bulkjobs.account.store import folder_of, living_sessions  # noqa: PLC0415 - not every session needs it

    try:
        folder = folder_of(default_state_dir(), settings.base_url, settings.account_name)
    except ConfigError:
        return None
    count = living_sessions(folder)
    if count > 1:
        return f"{count} other runs of it are"
    return "another run of it is" if count else None


async def _join(settings: Settings, run_id: str, run_session: int, clock: Clock) -> SharedThrottle:
    from bulkjobs.account.axis import axis_of  # noqa: PLC0415 - not every session needs it
    from bulkjobs.account.shared import SharedThrottle  # noqa: PLC0415 - as above
    from bulkjobs.account.store import AccountStore, Busy, folder_of  # noqa: PLC0415 - as above

    state_dir = settings.state_dir if isinstance(settings.state_dir, Path) else default_state_dir()
    folder = folder_of(state_dir.absolute(), settings.base_url, settings.account_name)
    loop = asyncio.get_running_loop()
    for _ in range(_TRIES):
        store = None
        try:
            store = AccountStore(folder)
            return SharedThrottle(
                store,
                run_id=run_id,
                run_session=run_session,
                axis=axis_of(loop),
                now=loop.time(),
                clock=clock,
                rate=settings.rate,
                lockout_s=settings.effective_lockout_s,
                max_active_jobs=settings.max_active_jobs,
            )
        except BaseException as error:
            if store is not None:
                store.close()
            if not isinstance(error, Busy):
                raise
        await asyncio.sleep(_BETWEEN_TRIES_S)
    raise ConfigError(
        f"The state of the account {folder} is in use by a process that does not go on. Let it go on or end it, or "
        "give another --state-dir, or none."
    )
