"""What a disk may hold after its power was lost behind any call of a trace.

The rules are those of POSIX and no more: a sync of a file keeps its content and length, a sync of a folder keeps
its names, and until then anything may be there or not. Three models of that:

- `dropped`: nothing that was not synced is there.
- `kept`: all of it is there, as after `kill -9`.
- `torn(seed)`: of each file some of the later writes are there, whole or by sectors of 512 bytes in any order; of
  each folder some of the later names, in half of the seeds only such as are a beginning of what was done.

A sync that fails is worse than none: the system shows what was written, takes it for clean, and never writes it
again. So those writes are lost with the power, whatever is synced later, unless they are made once more.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from support.storage.disk import Kind

__all__ = ["Call", "Image", "Model", "PowerLoss", "read_trace", "write_image"]

_HEAD: Final = struct.Struct("=5Q")
_SECTOR_BYTES: Final = 512

Image = Mapping[str, bytes | None]
"""A file tree: the content of each path, None for a folder."""
Model = Literal["dropped", "kept"] | int
"""The name of a model, or the seed of `torn`."""


@dataclass(frozen=True, slots=True)
class Call:
    """Is one call of a trace."""

    kind: Kind
    inode: int
    number: int
    """Offset of a write, length after a truncation or an allocation, 1 for a sync that failed."""
    data: bytes
    """What was written; else the path or the text of a mark."""
    second: str
    """The new path of a rename."""

    @property
    def text(self) -> str:
        """Is `data` as what it mostly is."""
        return self.data.decode()

    def __str__(self) -> str:
        what = f"{len(self.data)} bytes" if self.kind is Kind.WRITE else self.data.decode(errors="replace")
        return f"{self.kind.name} inode {self.inode} at {self.number} {what} {self.second}".rstrip()


def read_trace(path: Path) -> tuple[int, list[Call]]:
    """Reads the inode of the watched folder, which stands in front, and what the disk took down."""
    text = path.read_bytes()
    calls, at = [], 8
    while at < len(text):
        kind, inode, number, first, second = _HEAD.unpack_from(text, at)
        at += _HEAD.size
        data, name = text[at : at + first], text[at + first : at + first + second]
        calls.append(Call(Kind(kind), inode, number, data, name.decode()))
        at += first + second
    return int.from_bytes(text[:8], "little"), calls


@dataclass(slots=True)
class _File:
    synced: bytearray = field(default_factory=bytearray)
    shown: bytearray = field(default_factory=bytearray)
    """What whoever reads it gets while the power is there."""
    later: list[Call] = field(default_factory=list)
    """Writes and changes of length that another sync would make durable."""

    def change(self, call: Call) -> None:
        _apply(self.shown, call)
        self.later.append(call)

    def sync(self, *, fails: bool) -> None:
        if not fails:
            for call in self.later:
                _apply(self.synced, call)
        self.later.clear()

    def dropped(self) -> bytes:
        return bytes(self.synced)

    def kept(self) -> bytes:
        return bytes(self.shown)

    def torn(self, chance: random.Random) -> bytes:
        content = bytearray(self.synced)
        share = chance.choice((0.1, 0.5, 0.9))
        for call in self.later:
            if chance.random() >= share:
                continue
            if call.kind is Kind.WRITE and chance.random() < 0.5:
                for part in _sectors(call):
                    if chance.random() < 0.5:
                        _apply(content, part)
            else:
                _apply(content, call)
        return bytes(content)


def _apply(content: bytearray, call: Call) -> None:
    end = call.number + (len(call.data) if call.kind is Kind.WRITE else 0)
    if call.kind is Kind.TRUNCATE:
        del content[end:]
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if call.kind is Kind.WRITE:
        content[call.number : end] = call.data


def _sectors(call: Call) -> Iterator[Call]:
    at = call.number
    end = at + len(call.data)
    while at < end:
        upto = min(end, (at // _SECTOR_BYTES + 1) * _SECTOR_BYTES)
        yield Call(call.kind, call.inode, at, call.data[at - call.number : upto - call.number], "")
        at = upto


@dataclass(slots=True)
class _Change:
    """Is what a call did to the names of one folder."""

    gone: str | None
    there: str | None
    what: _File | _Folder | None


@dataclass(slots=True)
class _Folder:
    path: str
    synced: dict[str, _File | _Folder] = field(default_factory=dict)
    later: list[_Change] = field(default_factory=list)

    def names(self, changes: list[_Change]) -> dict[str, _File | _Folder]:
        names = dict(self.synced)
        for change in changes:
            if change.gone is not None:
                names.pop(change.gone, None)
            if change.there is not None and change.what is not None:
                names[change.there] = change.what
        return names

    def torn(self, chance: random.Random) -> list[_Change]:
        if chance.random() < 0.5:
            return self.later[: chance.randint(0, len(self.later))]
        return [change for change in self.later if chance.random() < 0.5]


class PowerLoss:
    """Follows a trace call by call and gives, behind each, what the disk may hold."""

    def __init__(self, root_inode: int) -> None:
        """Begins with an empty folder, the watched one."""
        self._root = _Folder("")
        self._folders = {root_inode: self._root}
        self._by_path: dict[str, _Folder] = {"": self._root}
        self._files: dict[int, _File] = {}
        self.marks: list[str] = []
        """All marks so far."""

    def follow(self, call: Call) -> None:
        """Takes the next call."""
        match call.kind:
            case Kind.MARK:
                self.marks.append(call.text)
            case Kind.CREATE:
                self._files[call.inode] = _File()
                self._change(call.text, self._files[call.inode])
            case Kind.MKDIR:
                folder = self._folders[call.inode] = self._by_path[call.text] = _Folder(call.text)
                self._change(call.text, folder)
            case Kind.WRITE | Kind.TRUNCATE | Kind.ALLOCATE:
                self._files[call.inode].change(call)
            case Kind.SYNC:
                self._files[call.inode].sync(fails=call.number == 1)
            case Kind.SYNCDIR:
                folder = self._folders[call.inode]
                folder.synced, folder.later = folder.names(folder.later), []
            case Kind.UNLINK:
                self._change(call.text, None)
            case Kind.RENAME:
                self._rename(call.text, call.second)
            case _:
                raise ValueError(f"What is {call}?")

    def _change(self, path: str, what: _File | _Folder | None) -> None:
        folder, name = os.path.split(path)
        change = _Change(name, None, None) if what is None else _Change(None, name, what)
        self._by_path[folder].later.append(change)

    def _rename(self, old: str, new: str) -> None:
        (folder, gone), (other, there) = os.path.split(old), os.path.split(new)
        if folder != other:
            raise ValueError(f"{old} moves to another folder, which this model does not know.")
        home = self._by_path[folder]
        home.later.append(_Change(gone, there, home.names(home.later)[gone]))

    def image(self, model: Model) -> Image:
        """Gives what the disk holds if the power is lost now."""
        chance = random.Random(model)
        tree: dict[str, bytes | None] = {}
        self._collect(self._root, model, chance, tree)
        return tree

    def _collect(
        self, folder: _Folder, model: Model, chance: random.Random, tree: dict[str, bytes | None]
    ) -> None:
        changes = {"dropped": [], "kept": folder.later}.get(str(model))
        names = folder.names(folder.torn(chance) if changes is None else changes)
        for name, what in names.items():
            path = f"{folder.path}/{name}" if folder.path else name
            if isinstance(what, _Folder):
                tree[path] = None
                self._collect(what, model, chance, tree)
            elif model == "dropped":
                tree[path] = what.dropped()
            else:
                tree[path] = what.kept() if model == "kept" else what.torn(chance)


def write_image(image: Image, folder: Path) -> None:
    """Makes files of it, in a folder that is there and empty."""
    for path, content in image.items():
        if content is None:
            (folder / path).mkdir(mode=0o700)
        else:
            (folder / path).write_bytes(content)
            (folder / path).chmod(0o600)
