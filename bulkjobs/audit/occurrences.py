"""Where an id stands in a text: found by its bytes, without looking at any other id.

The rules are those of `chunking`: ids are parted by newlines and commas, blanks around one are taken off, a carriage
return before a newline belongs to it. A test compares the two on the same texts.
"""

from __future__ import annotations

from typing import Final

from bulkjobs.ids import BLANKS

__all__ = ["Finder"]

_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_REST_BYTES: Final = 64 * 1024
_SEPARATORS: Final = b"\n,"


class Finder:
    """Finds one id in the text of a source, block by block."""

    def __init__(self, wanted: bytes) -> None:
        """Takes the id, which is a valid one."""
        self._wanted = wanted
        self._between = b"\n" + wanted + b"\n"
        self._line = 1
        self._rest = b""
        self._begun = False

    def feed(self, block: bytes) -> list[int]:
        """Takes the next block; gives the lines on which the id stands, one for each time."""
        data = self._rest + block
        if not self._begun:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._rest = data
                return []
            data = data.removeprefix(_BOM)
            self._begun = True
        end = max(data.rfind(b"\n"), data.rfind(b",")) + 1
        self._rest = data[end:]
        if len(self._rest) > _LONGEST_REST_BYTES:
            self._shorten_rest()
        return self._search(data[:end]) if end else []

    def end(self) -> list[int]:
        """Ends the source: what follows its last separator may be the id too."""
        rest = self._rest if self._begun else self._rest.removeprefix(_BOM)
        return self._search(rest + b"\n")

    def _shorten_rest(self) -> None:
        """Keeps of a long beginning what decides whether it is the id."""
        rest = self._rest.lstrip(BLANKS)
        core = rest.removesuffix(b"\r").rstrip(BLANKS)
        if len(core) > len(self._wanted):
            self._rest = b"x"  # whatever follows
        else:
            self._rest = core + b" " + (b"\r" if rest.endswith(b"\r") else b"")

    def _search(self, data: bytes) -> list[int]:
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if b", " in data:
            data = data.replace(b", ", b",")
        blanks = b" " in data or b"\t" in data
        found = self._trimmed(data) if blanks else self._bare(data.replace(b",", b"\n"))
        lines = []
        at, line = 0, self._line
        for position in found:
            line += data.count(b"\n", at, position)
            at = position
            lines.append(line)
        self._line = line + data.count(b"\n", at)
        return lines

    def _bare(self, text: bytes) -> list[int]:
        """Finds it where nothing but newlines stands between ids."""
        found = [0] if text.startswith(self._between[1:]) else []
        at = text.find(self._between)
        while at >= 0:
            found.append(at + 1)
            at = text.find(self._between, at + len(self._between) - 1)
        return found

    def _trimmed(self, data: bytes) -> list[int]:
        """Finds it where blanks may stand around it."""
        found = []
        at = data.find(self._wanted)
        while at >= 0:
            end = at + len(self._wanted)
            begin = at
            while begin and data[begin - 1] in BLANKS:
                begin -= 1
            while data[end] in BLANKS:  # the text ends with a separator
                end += 1
            if (not begin or data[begin - 1] in _SEPARATORS) and data[end] in _SEPARATORS:
                found.append(at)
            at = data.find(self._wanted, at + len(self._wanted))
        return found
