"""Power lost behind every call that a session makes on its disk: nothing lost, nothing paid twice, nothing refused.

The disk is `support/storage/disk.c`, preloaded into a process of its own; `soak/power_loss.py` is the campaign.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.storage.disk import Kind, environment
from support.storage.loss import Call, PowerLoss

pytestmark = pytest.mark.timeout(400)  # a campaign is one process; beside others it may take minutes

FIRST_FAILED_SYNC = 33
CAMPAIGN = Path(__file__).parent / "soak" / "power_loss.py"


def campaign(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, CAMPAIGN, "--folder", folder, *options]
    # With the disk in place from the beginning a campaign need not start itself once more.
    return subprocess.run(
        command, capture_output=True, text=True, timeout=380, check=False, env=dict(environment())
    )


@pytest.mark.slow
def test_power_may_be_lost_behind_any_call_and_a_sample_of_disks_be_torn(tmp_path: Path) -> None:
    # Fifteen chunks are enough for each answer that the server has, and a last one that is not full.
    done = campaign(tmp_path, "--chunks", "15", "--seeds", "80", "--kept", "60")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_power_may_be_lost_in_a_run_that_copies_no_source(tmp_path: Path) -> None:
    done = campaign(tmp_path, "--no-feed", "--chunks", "8", "--seeds", "30", "--kept", "10")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("first", [FIRST_FAILED_SYNC, 41])
def test_power_may_be_lost_after_a_session_whose_syncs_failed(tmp_path: Path, first: int) -> None:
    options = ("--chunks", "8", "--seeds", "30", "--kept", "0", "--sync-fails", str(first))
    done = campaign(tmp_path / "sound", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    if first == FIRST_FAILED_SYNC:
        done = campaign(tmp_path / "broken", *options, "--broken", "log")
        assert done.returncode == 1, done.stdout + done.stderr


@pytest.mark.parametrize("broken", ["synchronous=off", "synchronous=normal", "folders"])
def test_an_engine_that_trusts_the_disk_too_much_is_found_out(tmp_path: Path, broken: str) -> None:
    done = campaign(tmp_path, "--broken", broken, "--chunks", "8", "--seeds", "0", "--kept", "0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "model dropped, power lost behind call" in done.stdout


# --- the model itself ---

ROOT, FILE = 1, 2


def after(*calls: Call) -> PowerLoss:
    loss = PowerLoss(ROOT)
    for call in calls:
        loss.follow(call)
    return loss


def call(kind: Kind, inode: int = FILE, number: int = 0, data: bytes = b"", second: str = "") -> Call:
    return Call(kind, inode, number, data, second)


MADE = (call(Kind.CREATE, data=b"a"), call(Kind.WRITE, data=b"old"))


def test_a_file_needs_its_own_sync_and_that_of_its_folder() -> None:
    assert after(*MADE).image("dropped") == {}
    assert after(*MADE, call(Kind.SYNC)).image("dropped") == {}
    assert after(*MADE, call(Kind.SYNCDIR, ROOT)).image("dropped") == {"a": b""}
    assert after(*MADE, call(Kind.SYNC), call(Kind.SYNCDIR, ROOT)).image("dropped") == {"a": b"old"}


def test_a_kill_leaves_all_that_was_written() -> None:
    more = call(Kind.WRITE, number=4, data=b"!")
    assert after(*MADE, more).image("kept") == {"a": b"old\0!"}
    assert after(*MADE, more, call(Kind.TRUNCATE, number=1)).image("kept") == {"a": b"o"}


def test_a_new_name_is_not_durable_before_its_folder_is() -> None:
    durable = (*MADE, call(Kind.SYNC), call(Kind.SYNCDIR, ROOT), call(Kind.RENAME, data=b"a", second="b"))
    assert after(*durable).image("dropped") == {"a": b"old"}
    assert after(*durable, call(Kind.SYNCDIR, ROOT)).image("dropped") == {"b": b"old"}


def test_an_unsynced_write_is_torn_by_sectors_and_the_same_seed_tears_alike() -> None:
    whole = b"x" * 512 + b"y" * 512
    calls = (call(Kind.CREATE, data=b"a"), call(Kind.SYNCDIR, ROOT), call(Kind.WRITE, data=whole))
    seen = {after(*calls).image(seed)["a"] for seed in range(200)}
    assert seen == {b"", b"x" * 512, b"\0" * 512 + b"y" * 512, whole}
    assert after(*calls).image(7) == after(*calls).image(7)
