"""One turn at the account's database: what is read and written in it, as one transaction."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

__all__ = ["Counting", "Turn"]


class Counting(IntEnum):
    """Is which requests of a session stand in the store."""

    NOTHING = 0
    """None: it has no limit, and neither had any other."""
    FOR_OTHERS = 1
    """All: others have a limit."""
    OWN = 2
    """All: it has one itself."""

    @classmethod
    def of(cls, *, limited: bool, others: Collection[int]) -> Counting:
        """Tells how a session counts, which has a limit or not, beside others."""
        if limited:
            return cls.OWN
        return cls.FOR_OTHERS if cls.OWN in others else cls.NOTHING


class Turn:
    """Is one transaction: what it reads stays true until it is over, and what it writes is seen as a whole."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.change, self.axis, self.utc_offset, self.state = self._one(
            "SELECT change, axis, utc_offset, state FROM account"
        )
        self.has_written = False

    @property
    def next_change(self) -> int:
        """Is the number of what this turn changes."""
        return int(self.change) + 1

    def end(self, *, axis: str, utc_offset: float, state: str) -> bool:
        """Writes what is not about single requests; tells whether the turn has changed anything."""
        if state == self.state and not self.has_written and axis == self.axis:
            return False
        self._write(
            "UPDATE account SET change = ?, axis = ?, utc_offset = ?, state = ?",
            self.next_change,
            axis,
            utc_offset,
            state,
        )
        return True

    def move_times(self, shift_s: float, *, now: float, grace_s: float) -> None:
        """Moves every time by so many seconds, and none of them further than it can be."""
        self._write(
            "UPDATE request SET ended = min(ended + ?1, ?2), counted_until = min(counted_until + ?1, ?2 + ?3)",
            shift_s,
            now,
            grace_s,
        )
        self._write("UPDATE job SET at = min(at + ?1, ?2)", shift_s, now)
        self._write("UPDATE run SET since = min(since + ?1, ?2), until = min(until + ?1, ?2)", shift_s, now)

    # Sessions

    def other_sessions(self, session: int) -> dict[int, int]:
        """Reads the other sessions that have not ended in order, and how each counts."""
        return dict(self._rows("SELECT number, counting FROM session WHERE number != ?", session))

    def add_session(self, run_id: str, counting: Counting) -> int:
        """Enters a session and gives its number."""
        return self._write("INSERT INTO session (run_id, counting) VALUES (?, ?)", run_id, counting)

    def set_counting(self, session: int, counting: Counting) -> None:
        """Enters how a session counts from now on."""
        self._write("UPDATE session SET counting = ? WHERE number = ?", counting, session)

    def end_session(self, session: int, now: float) -> list[str]:
        """Takes a session out, and with it its open jobs, which it gives: nobody would see them end."""
        row = self._one("SELECT run_id FROM session WHERE number = ?", session)
        self._write("DELETE FROM session WHERE number = ?", session)
        return [] if row is None else self.keep_jobs(row[0], (), now)

    def known(self, run_id: str, now: float) -> tuple[float, float, int]:
        """Gives from when to when all requests of a run stand here, and the last session of which all does.

        Enters the run, from now on, if it was not here.
        """
        self._write(
            "INSERT INTO run (run_id, since, until) VALUES (?1, ?2, ?2) ON CONFLICT DO NOTHING", run_id, now
        )
        since, until, session = self._one("SELECT since, until, session FROM run WHERE run_id = ?", run_id)
        return since, until, session

    def known_session(self, run_id: str, session: int) -> None:
        """Enters that all of a session of the run's ledger stands here, and all that the ledger knew before it."""
        self._write("UPDATE run SET session = ? WHERE run_id = ?", session, run_id)

    def known_until(self, run_id: str, now: float) -> None:
        """Enters that all requests of a run stand here up to this moment."""
        self._write("UPDATE run SET until = ? WHERE run_id = ?", now, run_id)

    # Requests

    def begin_request(self, session: int, *, slot: bool) -> int:
        """Enters a request in flight and gives its number."""
        return self._write(
            "INSERT INTO request (session, slot, change) VALUES (?, ?, ?)", session, slot, self.next_change
        )

    def end_request(self, number: int, *, ended: float, counted_until: float | None) -> None:
        """Enters that a request has ended."""
        self._write(
            "UPDATE request SET ended = ?, counted_until = ?, change = ? WHERE number = ?",
            ended,
            counted_until,
            self.next_change,
            number,
        )

    def add_past(self, session: int, *, ended: float, counted_until: float) -> None:
        """Enters a request that ended before it could be entered."""
        number = self.begin_request(session, slot=False)
        self.end_request(number, ended=ended, counted_until=counted_until)

    def add_past_of(self, session: int, ends: Collection[float]) -> None:
        """Enters requests that ended before they could be entered: until when each may be counted."""
        if ends:
            self.has_written = True
            self._database.executemany(
                "INSERT INTO request (session, slot, ended, counted_until, change) VALUES (?1, 0, ?2, ?2, ?3)",
                [(session, end, self.next_change) for end in ends],
            )

    def free_slot(self, number: int) -> None:
        """Enters that a submit no longer holds a slot for a job it may make."""
        self._write("UPDATE request SET slot = 0, change = ? WHERE number = ?", self.next_change, number)

    def requests_of_others(
        self, session: int, since: int
    ) -> list[tuple[int, bool, float | None, float | None]]:
        """Reads the requests of other sessions changed since: number, slot, end, until when it may be counted."""
        return self._rows(
            "SELECT number, slot, ended, counted_until FROM request WHERE change > ? AND session != ?",
            since,
            session,
        )

    def left_behind(self, session: int) -> list[tuple[int, bool]]:
        """Reads the requests of a session that are in flight or hold a slot: number and whether it has ended."""
        return self._rows(
            "SELECT number, ended IS NOT NULL FROM request WHERE session = ? AND (ended IS NULL OR slot)",
            session,
        )

    def has_request(self, number: int) -> bool:
        """Tells whether a request still stands here."""
        return self._one("SELECT 1 FROM request WHERE number = ?", number) is not None

    # Jobs

    def open_job(self, job_id: str, run_id: str, now: float) -> None:
        """Enters a job of a run that is open."""
        self._write(
            "INSERT INTO job VALUES (?1, ?2, ?3, 1, ?4) ON CONFLICT DO UPDATE SET run_id = ?2, open = 1, change = ?4",
            job_id,
            run_id,
            now,
            self.next_change,
        )

    def close_job(self, job_id: str, now: float) -> None:
        """Enters that a job was seen to have ended."""
        self._write(
            "UPDATE job SET open = 0, at = ?, change = ? WHERE job_id = ?", now, self.next_change, job_id
        )

    def keep_jobs(self, run_id: str, job_ids: Collection[str], now: float) -> list[str]:
        """Enters which jobs of a run are open: these, and no others; gives those that are open no longer."""
        entered = self._rows("SELECT job_id FROM job WHERE run_id = ? AND open", run_id)
        over = [job_id for (job_id,) in entered if job_id not in job_ids]
        for job_id in over:
            self.close_job(job_id, now)
        for job_id in job_ids:
            self.open_job(job_id, run_id, now)
        return over

    def jobs_of_others(self, run_id: str, since: int) -> list[tuple[str, bool, float]]:
        """Reads the jobs of other runs changed since: id, whether it is open, and when it was opened or ended."""
        return self._rows("SELECT job_id, open, at FROM job WHERE change > ? AND run_id != ?", since, run_id)

    def has_job(self, job_id: str) -> bool:
        """Tells whether a job still stands here."""
        return self._one("SELECT 1 FROM job WHERE job_id = ?", job_id) is not None

    def prune(self, before: float) -> None:
        """Removes what was over before this moment."""
        self._write(
            "DELETE FROM request WHERE NOT slot AND max(ended, ifnull(counted_until, ended)) < ?", before
        )
        self._write("DELETE FROM job WHERE NOT open AND at < ?", before)

    def _one(self, sql: str, *parameters: Any) -> Any:
        return self._database.execute(sql, parameters).fetchone()

    def _rows(self, sql: str, *parameters: Any) -> list[Any]:
        return self._database.execute(sql, parameters).fetchall()

    def _write(self, sql: str, *parameters: Any) -> int:
        self.has_written = True
        return self._database.execute(sql, parameters).lastrowid or 0
