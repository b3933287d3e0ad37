"""How the contenders in Python cut a file: line by line."""

from collections.abc import Iterator

__all__ = ["bodies"]


def bodies(path: str, size: int) -> Iterator[str]:
    """Gives the lines of a file in chunks."""
    chunk: list[str] = []
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as everybody does
        for line in file:
            chunk.append(line.strip())
            if len(chunk) == size:
                yield "\n".join(chunk)
                chunk = []
    if chunk:
        yield "\n".join(chunk)
