"""Every call that a session makes on its disk fails once: exit code 6, a message, and the next session puts it right.

A sample for every commit; `soak/disk_faults.py --every 1` lets all of them fail.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.storage.disk import environment

pytestmark = pytest.mark.timeout(400)  # a campaign is one process; beside others it may take minutes

CAMPAIGN = Path(__file__).parent / "soak" / "disk_faults.py"


def campaign(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, CAMPAIGN, "--folder", folder, "--chunks", "15", *options]
    # With the disk in place from the beginning a campaign need not start itself once more.
    return subprocess.run(
        command, capture_output=True, text=True, timeout=380, check=False, env=dict(environment())
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "every"),
    [
        ("EIO at SYNC number 0 (ONCE)", 2),
        ("EIO at SYNC number 0 (ON)", 3),
        ("EIO at SYNCDIR", 1),
        ("EIO at WRITE", 37),
        ("EIO at READ", 5),
        ("EIO at TRUNCATE", 1),
        ("EIO at CREATE", 1),
        ("ENOSPC at WRITE|CREATE", 37),
        ("EDQUOT", 61),
        ("ENOSPC at WRITE number 0 (HALF)", 61),
    ],
)
def test_each_failing_call_ends_the_session_in_order(tmp_path: Path, faults: str, every: int) -> None:
    done = campaign(tmp_path, "--only", faults, "--every", str(every))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fires no more" in done.stdout


def test_a_slow_disk_holds_nothing_and_loses_nothing(tmp_path: Path) -> None:
    done = campaign(tmp_path, "--only", "slow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "each sync 20 ms late: nothing happens" in done.stdout
