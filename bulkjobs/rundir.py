"""The run directory: what each file is called, and how a file is written so that it is whole or absent.

Folders are 0700 and files 0600 whatever the umask: ids and job ids are somebody's business data.
"""

from __future__ import annotations

import errno
import os
import os.path
import re
from pathlib import Path
from typing import Final

from bulkjobs.errors import SourceError

__all__ = ["RunDir", "default_run_dir", "not_written", "sync_folder", "unnamed_file", "write_all"]

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_MAGIC: Final = re.compile(r"[*?\[]")
_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)


class RunDir:
    """Names the files of one run."""

    def __init__(self, path: str | Path) -> None:
        """Names the folder, which the ledger makes."""
        self.path = Path(path)
        self.jobs = self.path / "jobs.jsonl"
        self.invalid = self.path / "invalid.jsonl"
        self.held = self.path / "held.jsonl"
        self.refused = self.path / "refused"
        self.duplicate_risk = self.path / "duplicate-risk"
        self.summary = self.path / "summary.json"
        self.outlook = self.path / "outlook.json"
        self.checkpoints = self.path / "checkpoints"

    def spool(self, position: int) -> Path:
        """Names the copy of a source that cannot be read again, by its position among the sources."""
        return self.path / f"spool-{position}.txt"

    def refused_ids(self, chunk: int) -> Path:
        """Names the file with the ids of a refused chunk."""
        return self.refused / f"chunk-{chunk:08d}.txt"

    def risky_ids(self, chunk: int) -> Path:
        """Names the file with the ids of a chunk that goes out again although its outcome was unknown."""
        return self.duplicate_risk / f"chunk-{chunk:08d}.txt"

    def write(self, path: Path, content: bytes) -> None:
        """Writes a file of this run so that after a crash it has its old content or the new, never a part.

        Raises:
            OSError: the disk does not take it; the old content is still there. It names the file.
        """
        try:
            self._replace(path, content)
        except OSError as error:
            error.filename = str(path)  # a failed write knows only a descriptor
            raise

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        if not path.parent.exists():
            path.parent.mkdir(mode=_FOLDER_MODE, exist_ok=True)  # another thread may have been faster
            sync_folder(path.parent.parent)
        temporary = path.with_name(path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)


def default_run_dir(source: str | Path) -> Path:
    """Names the run directory of a command that gives none, after its first source.

    Of a pattern the text counts, not its first file of today: the same command must find the same run tomorrow.

    Raises:
        SourceError: it is empty or a folder, after which nothing can be named.
    """
    if source == "-":
        return Path("stdin.run")
    if (address := _ADDRESS.match(str(source))) is not None:
        # Only of its path, and here: what stands before and behind that may be a password.
        words = [word for word in re.split(r"[?#]", address["rest"])[0].split("/")[1:] if word]
        return Path((re.sub(r"[^\w.=+-]+", "_", words[-1]) if words else address["scheme"]) + ".run")
    path = Path(str(source).removeprefix("sqlite:"))
    if not path.name:
        raise SourceError(f"{str(source)!r} names no file.")
    if os.path.exists(path) or not _MAGIC.search(str(source)):  # noqa: PTH110 - Path.exists raises for a very long one
        return path.with_name(path.name + ".run")
    fixed = next(parent for parent in path.parents if not _MAGIC.search(str(parent)))
    return fixed / (re.sub(r"[*?\[\]/]+", "_", str(path.relative_to(fixed))) + ".run")


_NEXT: Final = {
    errno.ENOSPC: "Make room on that disk",
    errno.EDQUOT: "Make room within the quota",
    errno.EIO: "That disk may be failing: look at the system's log, and copy the run directory to another",
    errno.EROFS: "Make that file system writable",
}


def not_written(path: Path | str, error: OSError, done: str = "written") -> str:
    """Says in sentences that a file cannot be written (or whatever is to be `done`), why, and what to do."""
    advice = _NEXT.get(error.errno or 0, "Mend that")
    return f"{path} cannot be {done}: {error.strerror or error}. {advice}, then give the same command again."


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all of it, because a nearly full disk takes a part without an error.

    Raises:
        OSError: the rest was not taken.
    """
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def unnamed_file(folder: Path) -> int:
    """Opens a file that nobody else can see and that is gone with the process; -1 if there can be none."""
    import tempfile  # noqa: PLC0415 - few runs need one

    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return os.dup(file.fileno())
    except OSError:
        return -1


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, not only the content behind them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
