"""Takes the power away behind every call that a session makes on its disk, and lets another session go on.

    python -m tests.soak.power_loss                     each call, nothing unsynced left: what every commit is held to
    python -m tests.soak.power_loss --seeds 10000       and as many torn and reordered disks
    python -m tests.soak.power_loss --sync-fails 40     in the session after one in which from the 40th on each failed

What is lost, torn or in another order is chosen by `support.storage.loss`; what must be true then is said in
`support.storage.session`. A violation is printed with the call and the seed, and the trace is kept to repeat it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/, for `support`, also as `python -m tests.soak…`

from support.storage.disk import Disk, Fault, Kind, Mode, environment, is_preloaded
from support.storage.loss import Call, Image, Model, PowerLoss, read_trace, write_image
from support.storage.session import Books, Town, violations

from bulkjobs import intake, rundir
from bulkjobs.ledger import keeper, schema, stamp
from bulkjobs.sinks import jsonl
from bulkjobs.sources import spool

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the campaign and gives 0 when nothing was violated."""
    options = _options(argv)
    if not is_preloaded():
        command = [sys.executable, str(Path(__file__).resolve()), *(sys.argv[1:] if argv is None else argv)]
        os.execve(sys.executable, command, dict(environment()))
    # A trace names the folder it was recorded in, by the name of a sink.
    folder = options.folder or (options.trace.parent if options.trace else Path(tempfile.mkdtemp()))
    campaign = _Campaign(folder, options)
    bad = campaign.run()
    if bad:
        print(f"The trace of the session is kept in {campaign.trace}.")
    else:
        shutil.rmtree(folder)
    return 1 if bad else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="power-loss", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--chunks", type=int, default=20, help="chunks of the session (default 20)")
    parser.add_argument("--seeds", type=int, default=100, help="torn and reordered disks (default 100)")
    parser.add_argument("--first-seed", type=int, default=1, help="the first of the seeds (default 1)")
    parser.add_argument(
        "--kept", type=int, default=100, help="disks as after kill -9, spread evenly (default 100)"
    )
    parser.add_argument(
        "--feed", action=argparse.BooleanOptionalAction, default=True, help="also a source to spool"
    )
    parser.add_argument(
        "--broken", choices=sorted(_BROKEN), help="break the engine first, which must be found"
    )
    parser.add_argument(
        "--sync-fails", type=int, default=0, help="from which sync on all failed in a session before it"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to work (default: a new one in the temporary folder)"
    )
    parser.add_argument("--trace", type=Path, help="repeat a trace that was kept instead of recording one")
    return parser.parse_args(argv)


def _open_without(pragma: str) -> Callable[[Path, Any], Any]:
    sound = schema.open_for_writing

    def open_for_writing(path: Path, check: Any) -> Any:
        database = sound(path, check)
        database.execute(f"PRAGMA synchronous = {pragma}")
        return database

    return open_for_writing


def _forget_folders() -> None:
    for module in (intake, jsonl, keeper, rundir, schema, spool, stamp):
        setattr(module, "sync_folder", lambda _folder: None)  # noqa: B010 - mypy calls it a name of the module's


def _trust_log() -> None:
    setattr(keeper, "write_log_anew", lambda _path: None)  # noqa: B010 - as above


_BROKEN: Final[Mapping[str, Callable[[], None]]] = {
    "synchronous=off": lambda: setattr(keeper, "open_for_writing", _open_without("OFF")),
    "synchronous=normal": lambda: setattr(keeper, "open_for_writing", _open_without("NORMAL")),
    "folders": _forget_folders,
    "log": _trust_log,
}
"""Ways in which an engine could be broken and pass every test that only kills it."""


_BEGINS: Final = "begins"
"""Marks where the session begins during which the power is lost."""


class _Campaign:
    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._options = options
        self._disk = Disk()
        self._town = Town(folder, options.chunks, feed=options.feed)
        if options.broken:
            _BROKEN[options.broken]()
        self._seen: set[bytes] = set()
        self.trace = options.trace or folder / "trace"

    def run(self) -> int:
        began = time.monotonic()
        if self._options.trace is None:
            self._record()
        root_inode, calls = read_trace(self.trace)
        bad = 0
        for number, (call, model, image, marks) in enumerate(self._disks(root_inode, calls), 1):
            for sentence in self._judged(image, marks):
                bad += 1
                print(f"model {model}, power lost behind call {call[0]} ({call[1]}): {sentence}", flush=True)
            if bad > (0 if self._options.broken else 20):
                print("… and so on.")
                break
            tested = number
        took_s = time.monotonic() - began
        print(
            f"{len(calls)} calls, {tested} disks, {len(self._seen)} of them different, {bad} violations, {took_s:.0f} s"
        )
        return bad

    def _record(self) -> None:
        self._empty_root()
        with self.trace.open("wb") as file:
            # The inode of the root in front: syncs of folders name them by it.
            file.write(self._town.root.stat().st_ino.to_bytes(8, "little"))
            file.flush()
            self._disk.watch(self._town.root, file.fileno())
            books = Books(note=self._disk.mark)
            if self._options.sync_fails:
                self._disk.fail(Fault(Kind.SYNC, self._options.sync_fails, mode=Mode.ON))
                self._town.work(books)
                self._disk.mend()
            self._disk.mark(_BEGINS)
            ended = self._town.work(books)
            self._disk.watch(Path("/nowhere"))
        wrong = violations(self._town, books, ended)
        if wrong:
            raise RuntimeError(f"Without any fault already: {wrong}")

    def _disks(
        self, root_inode: int, calls: Sequence[Call]
    ) -> Iterator[tuple[tuple[int, Call], Model, Image, list[str]]]:
        """Gives each disk once that the models allow behind each call."""
        loss = PowerLoss(root_inode)
        options = self._options
        seeds: dict[int, list[int]] = {}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            seeds.setdefault(random.Random(seed).randrange(len(calls)), []).append(seed)
        every = max(1, len(calls) // options.kept) if options.kept else len(calls) + 1
        for number, call in enumerate(calls):
            loss.follow(call)
            if _BEGINS not in loss.marks:
                continue
            models: list[Model] = ["dropped", *seeds.get(number, [])]
            if call.kind is not Kind.MARK and number % every == every - 1:
                models.append("kept")
            for model in models:
                image = loss.image(model)
                key = _key(image, loss.marks)
                if key not in self._seen:
                    self._seen.add(key)
                    yield (number, call), model, image, loss.marks

    def _judged(self, image: Image, marks: Sequence[str]) -> Iterator[str]:
        self._empty_root()
        write_image(image, self._town.root)
        self._disk.watch(self._town.root)
        self._disk.set_sync(skipped=True)
        books = Books.of(marks)
        ended = self._town.work(books)
        yield from violations(self._town, books, ended)
        before = self._left_for_people()
        books.sent = 0
        again = self._town.work(books)
        if (books.sent, again.code) != (0, ended.code):
            yield f"a second restart sent {books.sent} chunks and ended with {again.code}: {again.said}"
        if self._left_for_people() != before:
            yield "a second restart changed what the first one left"

    def _left_for_people(self) -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in self._town.root.rglob("*")
            if path.suffix in (".jsonl", ".txt") and path.is_file()
        }

    def _empty_root(self) -> None:
        shutil.rmtree(self._town.root, ignore_errors=True)
        self._town.root.mkdir(parents=True)


def _key(image: Image, marks: Sequence[str]) -> bytes:
    """Tells disks apart, together with what the server knew."""
    digest = hashlib.blake2b("\n".join(marks).encode(), digest_size=16)
    for path in sorted(image):
        content = image[path]
        digest.update(f"\0{path}\0{'' if content is None else len(content)}\0".encode())
        digest.update(content or b"")
    return digest.digest()


if __name__ == "__main__":
    sys.exit(main())
