"""Which files a path stands for: itself, those in a folder, or those that match a pattern; in stable order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from bulkjobs.errors import SourceError

__all__ = ["files_at"]


def files_at(path: str) -> list[str]:
    """Gives the files, in the order of the bytes of their paths, so that the same files come in the same order.

    Of a folder these are the regular files in it and in the folders in it, but for those whose name begins with a
    point or that lie in such a folder. A link to a file is one, a link to a folder is not followed.

    Raises:
        SourceError: a pattern or a folder has no file, or a folder cannot be read.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a very long one
        found = sorted(_files_in(path), key=os.fsencode)
        if not found:
            raise SourceError(f"There is no file in the folder {path}: hidden ones are left out.")
        return found
    if os.path.exists(path) or not glob.has_magic(path):  # noqa: PTH110 - as above
        return [path]
    matching = glob.glob(path, recursive=True)  # noqa: PTH207 - absolute patterns too
    found = sorted((one for one in matching if not os.path.isdir(one)), key=os.fsencode)  # noqa: PTH112 - as above
    if not found:
        raise SourceError(f"No file matches {path!r}.")
    return found


def _files_in(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    # A run directory that stands where the run was begun would be read by the next one.
                    if not os.path.exists(os.path.join(entry.path, "ledger.db")):  # noqa: PTH110, PTH118 - as above
                        yield from _files_in(entry.path)
                elif entry.is_file():
                    yield entry.path
    except OSError as error:
        raise SourceError(f"The folder {folder} cannot be read: {error.strerror or error}.") from error
