"""One process at a time works on a run, on a disk where a lock means something."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bulkjobs.clock import SystemClock
from bulkjobs.errors import LedgerError, LedgerLocked
from bulkjobs.ledger import Ledger, read_run
from bulkjobs.ledger.lock import (
    LOCK_NAME,
    RunLock,
    filesystem_at,
    lock_owner,
    network_filesystem,
    refuse_network_filesystem,
)

HOLDER = """
import sys
from pathlib import Path
from bulkjobs.ledger.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Is another process that holds the lock until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()
        process.wait(timeout=10)


def test_a_second_process_is_told_who_works_on_the_run(tmp_path, holder):
    """The message names the process, so that a person knows what to wait for or to stop."""
    with pytest.raises(LedgerLocked, match=rf"pid {holder.pid} on .+No request was made"):
        RunLock(tmp_path)


async def test_a_locked_run_is_refused_before_its_database_is_touched(tmp_path, holder):
    """Whoever lacks the lock changes nothing."""
    with pytest.raises(LedgerLocked):
        await Ledger.open(tmp_path, clock=SystemClock())
    assert {path.name for path in tmp_path.iterdir()} == {LOCK_NAME}


def test_the_death_of_its_owner_frees_the_lock(tmp_path, holder):
    """`kill -9` leaves nothing behind that a person would have to remove."""
    holder.kill()
    holder.wait(timeout=10)
    RunLock(tmp_path).release()


def test_two_ledgers_in_one_process_exclude_each_other_too(tmp_path):
    """The lock belongs to the ledger, not to the process."""
    lock = RunLock(tmp_path)
    try:
        with pytest.raises(LedgerLocked, match=f"pid {os.getpid()} "):
            RunLock(tmp_path)
    finally:
        lock.release()


def test_releasing_frees_the_lock_and_may_be_repeated(tmp_path):
    """The file stays, because a lock on a removed file protects nothing."""
    lock = RunLock(tmp_path)
    lock.release()
    lock.release()
    assert (tmp_path / LOCK_NAME).exists()
    RunLock(tmp_path).release()


def test_the_owner_is_known_while_there_is_one(tmp_path, holder):
    """Looking does not take the lock."""
    assert lock_owner(tmp_path).startswith(f"pid {holder.pid} on ")
    holder.stdin.close()
    holder.wait(timeout=10)
    assert lock_owner(tmp_path) is None


def test_a_run_without_a_lock_file_has_no_owner(tmp_path):
    """Nobody ever worked here."""
    assert lock_owner(tmp_path) is None


def test_an_unreadable_name_in_the_lock_file_is_not_shown(tmp_path):
    """What stands in the file goes to a terminal, so control characters are left out."""
    lock = RunLock(tmp_path)
    try:
        (tmp_path / LOCK_NAME).write_bytes(b"\x1b[2Jpid 1\n")
        assert lock_owner(tmp_path) == "it left no name"
    finally:
        lock.release()


def test_the_lock_file_is_private_whatever_the_umask(tmp_path):
    """0600, also under a umask that would forbid even the owner."""
    before = os.umask(0o277)
    try:
        RunLock(tmp_path).release()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / LOCK_NAME).stat().st_mode) == 0o600


def test_a_lock_file_that_is_a_link_is_refused(tmp_path):
    """Nothing outside the run directory is written to."""
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="cannot be opened"):
        RunLock(tmp_path)


async def test_a_reader_sees_who_works_on_the_run(tmp_path):
    """`status` tells a run at work from one at rest."""
    async with await Ledger.open(tmp_path / "a.run", clock=SystemClock()):
        assert read_run(tmp_path / "a.run").owner.startswith(f"pid {os.getpid()} on ")
    assert read_run(tmp_path / "a.run").owner is None


MOUNTS = r"""
overlay / overlay rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/local ext4 rw 0 0
//box/share /mnt/with\040blank cifs rw 0 0
tmpfs /run tmpfs rw 0 0
server:/run /run nfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/a.run", "overlay"),
        ("/home", "nfs4"),
        ("/home/me/a.run", "nfs4"),
        ("/homes/me", "overlay"),
        ("/home/me/local/a.run", "ext4"),
        ("/mnt/with blank/a.run", "cifs"),
        ("/run/a.run", "nfs"),
    ],
)
def test_the_deepest_and_latest_mount_tells_the_file_system(path, kind):
    """As the kernel resolves a path."""
    assert filesystem_at(path, MOUNTS) == kind


def test_no_mount_no_file_system():
    """Where the table is empty nothing is claimed."""
    assert filesystem_at("/srv", "") is None


def test_a_run_on_a_network_file_system_is_refused(monkeypatch):
    """Locks and shared memory there do not reach every host."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: MOUNTS)
    with pytest.raises(LedgerError, match=r"network file system \(nfs4\)"):
        refuse_network_filesystem(Path("/home/me/a.run"))


def test_where_mounts_cannot_be_read_every_directory_passes(monkeypatch):
    """Other systems than Linux have no such table."""

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    refuse_network_filesystem(Path("/home/me/a.run"))
    assert network_filesystem(Path("/home/me/a.run")) is None
