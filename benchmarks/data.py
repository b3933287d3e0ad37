"""Makes files of ids of any size, from a seed: `python -m benchmarks.data --ids 10_000_000 -o ids.txt`.

The n-th distinct id is the n-th value of a permutation, so nothing is held: a duplicate is the value at an earlier
position, computed again, and whoever checks a run computes the ids once more. Everything works on whole arrays.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
import numpy.typing as npt

__all__ = ["DataSpec", "Permutation", "blocks", "distinct_ids", "main", "opaque_text", "write"]

_Ids = npt.NDArray[np.uint64]

_BLOCK_IDS: Final = 1 << 16
"""Half a megabyte a column: the arrays of a block stay in the cache."""
_FEWEST_DIGITS: Final = 8
"""As real contact ids have; more when there are more ids than eight digits can tell apart."""
_MOST_DIGITS: Final = 18
_ROUNDS: Final = 3
_INVALID: Final = (
    b"n/a",
    b"88O2619",
    b"-17",
    b"1.0",
    b"12 345",
    b"007",
    b"0",
    b"88026198802619880261",
    b"\xff",
)
"""Lines that are no ids, each for another reason; taken in turn."""
_OPAQUE_CHARACTERS: Final = 64
_OPAQUE_WORDS: Final = 6
"""Of 64 bits: four characters stand for three bytes."""
_FOUR_DIGITS: Final = np.array([b"%04d" % number for number in range(10_000)], dtype="S4")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Describes a file of ids; the same values give the same bytes.

    Raises:
        ValueError: a value makes no sense.
    """

    ids: int
    """Distinct valid ids."""
    duplicates: float = 0.0
    """Lines that repeat an id, as a share of `ids`."""
    invalid: float = 0.0
    """Lines that are no id, as a share of `ids`."""
    spread: int = 1
    """The ids are drawn from a range of `ids` times this many numbers: 1 takes every number of the range."""
    seed: int = 1
    opaque: bool = False
    """Each id is written as the 64 characters that follow from its number."""

    def __post_init__(self) -> None:
        if self.ids < 1 or self.spread < 1 or self.seed < 0:
            raise ValueError("ids and spread must be at least 1, the seed at least 0.")
        if not (0 <= self.duplicates <= 1 and 0 <= self.invalid <= 1):
            raise ValueError("The shares of duplicates and of invalid lines must be 0 to 1.")
        if self.digits > _MOST_DIGITS:
            raise ValueError(f"{self.ids} ids times {self.spread} need more than {_MOST_DIGITS} digits.")

    @property
    def digits(self) -> int:
        """Is how many digits the number of every id has."""
        digits = _FEWEST_DIGITS
        while 9 * 10 ** (digits - 1) < self.ids * self.spread:
            digits += 1
        return digits

    @property
    def id_bytes(self) -> int:
        """Is the length of every id as it stands in the file."""
        return _OPAQUE_CHARACTERS if self.opaque else self.digits

    @property
    def lowest(self) -> int:
        """Is the first number of the range."""
        return int(10 ** (self.digits - 1))

    @property
    def duplicate_lines(self) -> int:
        """Is how many lines repeat an id."""
        return round(self.ids * self.duplicates)

    @property
    def invalid_lines(self) -> int:
        """Is how many lines are no id."""
        return round(self.ids * self.invalid)

    @property
    def lines(self) -> int:
        """Is the length of the file in lines."""
        return self.ids + self.duplicate_lines + self.invalid_lines


class Permutation:
    """Maps 0 to size - 1 onto itself in an order that looks random, position by position."""

    def __init__(self, size: int, seed: int) -> None:
        """Draws the permutation; `size` is at least 1."""
        bits = max(1, (size - 1).bit_length())
        random = np.random.default_rng([seed, size])
        self._size = np.uint64(size)
        self._mask = np.uint64((1 << bits) - 1)
        self._shift = np.uint64((bits + 1) // 2)
        drawn = random.integers(0, 1 << 63, size=(_ROUNDS, 2), dtype=np.uint64)
        self._rounds = [(factor | np.uint64(1), addend) for factor, addend in drawn]

    def __call__(self, positions: _Ids) -> _Ids:
        """Gives the values at these positions.

        The steps are bijections of the next power of two: an odd factor, a sum, a shift folded in. What falls
        outside the size goes round again until it is inside, which keeps it a bijection (cycle walking).
        """
        values = self._mixed(positions)
        while (outside := np.flatnonzero(values >= self._size)).size:
            values[outside] = self._mixed(values[outside])
        return values

    def _mixed(self, values: _Ids) -> _Ids:
        for factor, addend in self._rounds:
            values = (values * factor + addend) & self._mask
            values ^= values >> self._shift
        return values


def distinct_ids(spec: DataSpec) -> Iterator[_Ids]:
    """Gives the distinct valid ids of a file, in blocks."""
    permutation = Permutation(spec.ids * spec.spread, spec.seed)
    for begin in range(0, spec.ids, _BLOCK_IDS):
        positions = np.arange(begin, min(begin + _BLOCK_IDS, spec.ids), dtype=np.uint64)
        yield permutation(positions) + np.uint64(spec.lowest)


def blocks(spec: DataSpec) -> Iterator[bytes]:
    """Gives the text of a file in blocks of whole lines; duplicates and invalid lines are spread evenly."""
    permutation = Permutation(spec.ids * spec.spread, spec.seed)
    duplicates = invalid = 0
    for begin in range(0, spec.ids, _BLOCK_IDS):
        end = min(begin + _BLOCK_IDS, spec.ids)
        random = np.random.default_rng([spec.seed, begin])
        due = spec.duplicate_lines * end // spec.ids
        positions = _positions(begin, end, due - duplicates, random)
        duplicates = due
        numbers = permutation(positions) + np.uint64(spec.lowest)
        text = opaque_text(numbers) if spec.opaque else _text(numbers, spec.digits)
        due = spec.invalid_lines * end // spec.ids
        yield _with_invalid(text, spec.id_bytes + 1, range(invalid, due), random)
        invalid = due


def _positions(begin: int, end: int, duplicates: int, random: np.random.Generator) -> _Ids:
    """Gives positions `begin` to `end` in order and, among them, some from anywhere before."""
    fresh = np.arange(begin, end, dtype=np.uint64)
    if not duplicates:
        return fresh
    after = np.sort(random.integers(1, len(fresh), size=duplicates, endpoint=True))
    earlier = random.integers(0, begin + after, dtype=np.int64).astype(np.uint64)
    return np.insert(fresh, after, earlier)


def _text(ids: _Ids, digits: int) -> bytes:
    """Writes ids of one length as lines, four digits at a time."""
    ones, fours = digits % 4, digits // 4
    row = np.dtype([("ones", "u1", (ones,)), ("fours", "S4", (fours,)), ("newline", "u1")])
    lines = np.empty(len(ids), dtype=row)
    lines["newline"] = ord("\n")
    # 32-bit divisions are several times faster, and eight digits fit.
    rest = ids.astype(np.uint32) if digits <= 9 else ids
    for column in reversed(range(fours)):
        above = rest // 10_000
        lines["fours"][:, column] = _FOUR_DIGITS[rest - above * 10_000]
        rest = above
    for column in reversed(range(ones)):
        above = rest // 10
        lines["ones"][:, column] = rest - above * 10 + ord("0")
        rest = above
    return lines.tobytes()


def opaque_text(numbers: _Ids) -> bytes:
    """Writes an opaque id a line for each number, another for each: 64 letters, digits, `_` and `-`.

    The first word of an id is its number, mixed by steps that can each be undone (those of splitmix64).
    """
    words = numbers[:, np.newaxis] + np.arange(_OPAQUE_WORDS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    text = base64.urlsafe_b64encode((words ^ (words >> np.uint64(31))).astype("<u8").tobytes())
    lines = np.full((len(numbers), _OPAQUE_CHARACTERS + 1), ord("\n"), dtype=np.uint8)
    lines[:, :-1] = np.frombuffer(text, dtype=np.uint8).reshape(len(numbers), _OPAQUE_CHARACTERS)
    return lines.tobytes()


def _with_invalid(text: bytes, line_bytes: int, numbers: range, random: np.random.Generator) -> bytes:
    if not numbers:
        return text
    before = (
        np.sort(random.integers(0, len(text) // line_bytes, size=len(numbers), endpoint=True)) * line_bytes
    )
    parts, begin = [], 0
    for number, end in zip(numbers, before.tolist(), strict=True):
        parts += [text[begin:end], _INVALID[number % len(_INVALID)], b"\n"]
        begin = end
    return b"".join([*parts, text[begin:]])


def write(spec: DataSpec, path: Path, *, compress: bool = False) -> dict[str, object]:
    """Writes a file of ids, plain or gzip, and gives what it made: counts that a run must arrive at."""
    text_bytes = 0
    with path.open("wb") as file, _packed(file, compress=compress) as out:
        for block in blocks(spec):
            text_bytes += len(block)
            out.write(block)
    return {
        "file": str(path),
        "lines": spec.lines,
        "ids": spec.ids,
        "duplicate": spec.duplicate_lines,
        "invalid": spec.invalid_lines,
        "digits": spec.digits,
        "opaque": spec.opaque,
        "spread": spec.spread,
        "seed": spec.seed,
        "text_bytes": text_bytes,
        "file_bytes": path.stat().st_size,
    }


def _packed(file: IO[bytes], *, compress: bool) -> IO[bytes]:
    if not compress:
        return file
    # No name and no time in the header: the same values give the same bytes.
    return cast("IO[bytes]", gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the file that the command line describes and prints what it made as one line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description="Makes a file of ids from a seed."
    )
    parser.add_argument("--ids", type=int, required=True, help="distinct valid ids, such as 10_000_000")
    parser.add_argument(
        "--duplicates", type=float, default=0.0, help="lines that repeat an id, as a share of --ids"
    )
    parser.add_argument(
        "--invalid", type=float, default=0.0, help="lines that are no id, as a share of --ids"
    )
    parser.add_argument("--spread", type=int, default=1, help="numbers in the range for each id; 1 is dense")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--opaque", action="store_true", help="write each id as 64 letters, digits, _ and -")
    parser.add_argument("--gzip", action="store_true", help="write gzip")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE")
    given = parser.parse_args(arguments)
    try:
        spec = DataSpec(
            ids=given.ids,
            duplicates=given.duplicates,
            invalid=given.invalid,
            spread=given.spread,
            seed=given.seed,
            opaque=given.opaque,
        )
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(write(spec, given.output, compress=given.gzip)))


if __name__ == "__main__":
    main()
