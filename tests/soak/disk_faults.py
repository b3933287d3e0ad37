"""Lets every call that a session makes on its disk fail, one after the other, and lets another session go on.

    python -m tests.soak.disk_faults                       every third call of each kind
    python -m tests.soak.disk_faults --every 1             all of them
    python -m tests.soak.disk_faults --only "EIO at SYNC"  some kinds of faults

For each kind of fault the first call fails, then the second, until the session makes fewer calls than that. Each time
the session has to end with exit code 6 and a message that says what to do, nothing may leave once the fault is
known, and when the disk is sound again the next session has to bring the run to a right end.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/, for `support`, also as `python -m tests.soak…`

from support.storage.disk import NEEDS_SPACE, Disk, Fault, Kind, Mode, environment, is_preloaded
from support.storage.session import WORKERS, Books, Ended, Town, violations

__all__ = ["main"]

_FAULTS: Final[tuple[tuple[Kind, int, Mode], ...]] = (
    (Kind.SYNC, errno.EIO, Mode.ONCE),
    (Kind.SYNC, errno.EIO, Mode.ON),
    (Kind.SYNCDIR, errno.EIO, Mode.ON),
    (Kind.WRITE, errno.EIO, Mode.ON),
    (Kind.WRITE, errno.EIO, Mode.ONCE),
    (Kind.READ, errno.EIO, Mode.ON),
    (Kind.TRUNCATE, errno.EIO, Mode.ON),
    (Kind.CREATE | Kind.MKDIR | Kind.RENAME | Kind.UNLINK, errno.EIO, Mode.ON),
    (NEEDS_SPACE, errno.ENOSPC, Mode.ON),
    (NEEDS_SPACE, errno.ENOSPC, Mode.UNTIL_SPACE),
    (NEEDS_SPACE, errno.EDQUOT, Mode.ON),
    (Kind.WRITE, errno.ENOSPC, Mode.HALF),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the campaign and gives 0 when nothing was violated."""
    options = _options(argv)
    if not is_preloaded():
        command = [sys.executable, str(Path(__file__).resolve()), *(sys.argv[1:] if argv is None else argv)]
        os.execve(sys.executable, command, dict(environment()))
    folder = options.folder or Path(tempfile.mkdtemp(prefix="disk-faults-"))
    bad = _Campaign(folder, options).run()
    if options.folder is None:
        shutil.rmtree(folder)
    return 1 if bad else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="disk-faults", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--chunks", type=int, default=20, help="chunks of the session (default 20)")
    parser.add_argument("--every", type=int, default=3, help="which calls fail: each third by default")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--only", default="", help="only faults in whose description this stands")
    parser.add_argument(
        "--folder", type=Path, help="where to work (default: a new one in the temporary folder)"
    )
    parser.add_argument("--tell", action="store_true", help="print how each session ended")
    return parser.parse_args(argv)


class _Campaign:
    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._options = options
        self._disk = Disk()
        self._town = Town(folder, options.chunks)
        self._held = self._held_without_fault()

    def run(self) -> int:
        bad = self._with_a_slow_disk() if self._options.only in "slow" else 0
        for kinds, error, mode in _FAULTS:
            if self._options.only not in str(Fault(kinds, 0, error, mode)):
                continue
            bad += self._until_it_fires_no_more(kinds, error, mode)
        return bad

    def _with_a_slow_disk(self) -> int:
        self._empty_root()
        self._disk.watch(self._town.root)
        self._disk.set_sync(slow_ms=20)
        books = Books()
        found = violations(self._town, books, self._town.work(books))
        print(f"each sync 20 ms late: {found or 'nothing happens'}")
        return len(found)

    def _until_it_fires_no_more(self, kinds: Kind, error: int, mode: Mode) -> int:
        began, bad, tried, at = time.monotonic(), 0, 0, self._options.first
        codes: Counter[int] = Counter()
        while True:
            fault = Fault(kinds, at, error, mode)
            self._empty_root()
            books, ended, after = self._with(fault)
            if not self._disk.fired:
                self._disk.mend()  # else it would meet the campaign itself
                break
            tried += 1
            codes[ended.code] += 1
            if self._options.tell:
                print(f"{fault}: {ended.code} {ended.said.strip()}")
            self._disk.mend()
            for sentence in self._judged(fault, books, ended, after):
                bad += 1
                print(f"{fault}: {sentence}", flush=True)
            at += self._options.every
        took_s = time.monotonic() - began
        print(
            f"{fault}: fires no more. {tried} tried, ended with {dict(codes)}, {bad} violations, {took_s:.0f} s"
        )
        return bad

    def _with(self, fault: Fault) -> tuple[Books, Ended, int]:
        """Works under a fault; gives also how many submissions left after it had struck."""
        self._disk.watch(self._town.root)
        self._disk.set_sync(skipped=True)
        self._disk.fail(fault)
        after = 0

        def note(mark: str) -> None:
            nonlocal after
            after += self._disk.fired and mark.startswith("left")

        books = Books(note=note)
        ended = self._town.work(books)
        return books, ended, after

    def _judged(self, fault: Fault, books: Books, ended: Ended, after: int) -> Iterator[str]:
        if ended.code != 6 and violations(self._town, books, ended):
            yield f"the session ended with {ended.code}: {ended.said} {violations(self._town, books, ended)}"
        if ended.code == 6 and not _says_what_to_do(ended.said):
            yield f"this says not what to do: {ended.said}"
        if after > WORKERS:
            yield f"{after} submissions left after the fault"
        resumed = self._town.work(books)
        yield from violations(self._town, books, resumed)
        held = resumed.summary["chunks"]["held"] if resumed.summary else 0
        if held > self._held + (0 if fault.mode is Mode.UNTIL_SPACE else WORKERS):
            yield f"{held} chunks are held, {self._held} would be without a fault; it said {ended.said}"
        books.sent = 0
        again = self._town.work(books)
        if (books.sent, again.code) != (0, resumed.code):
            yield f"a second restart sent {books.sent} chunks and ended with {again.code}: {again.said}"

    def _held_without_fault(self) -> int:
        self._empty_root()
        ended = self._town.work(Books())
        assert ended.summary is not None
        return int(ended.summary["chunks"]["held"])

    def _empty_root(self) -> None:
        shutil.rmtree(self._town.root, ignore_errors=True)
        self._town.root.mkdir(parents=True)


def _says_what_to_do(said: str) -> bool:
    words = ("then give", "resume", "Choose", "Put ", "Free", "again", "Mend", "mend", "Give", "give")
    return "bug" not in said and any(word in said for word in words)


if __name__ == "__main__":
    sys.exit(main())
