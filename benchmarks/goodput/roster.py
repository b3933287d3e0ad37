"""Who takes part, and the command that starts each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bulkjobs import __version__

__all__ = ["ROSTER", "Contender", "Errand"]

_CONTENDERS: Final = Path(__file__).parent / "contenders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Is what a contender is given for one run."""

    ids: Path
    chunk_ids: int
    base_url: str
    token: str
    count: int
    """The limit that it is told: so many requests in `window_s`."""
    window_s: float
    lockout_s: float
    slots: int | None
    folder: Path
    """An empty folder, its current one."""

    @property
    def environ(self) -> dict[str, str]:
        """Is its environment, without what this shell may have set for the engine or it has learned before."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BULKJOBS_")}
        root = str(Path(__file__).parents[2])
        return environ | {
            "ACCESS_TOKEN": self.token,
            "BULKJOBS_ACCESS_TOKEN": self.token,
            "XDG_STATE_HOME": str(self.folder.absolute() / "state"),
            "PYTHONPATH": os.pathsep.join(filter(None, (root, environ.get("PYTHONPATH")))),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Is one that takes part."""

    title: str
    command: Callable[[Errand], list[str]]
    libraries: tuple[str, ...] = ()
    """Distributions that it needs besides those of bulkjobs itself."""
    program: str | None = None
    """A program that it needs."""

    def missing(self) -> str | None:
        """Names what it needs and is not there."""
        if self.program is not None and shutil.which(self.program) is None:
            return self.program
        return next((name for name in self.libraries if _version(name) is None), None)

    def versions(self) -> dict[str, str | None]:
        """Gives the versions of what it is made of."""
        versions = {name: _version(name) for name in self.libraries}
        if self.program is not None:
            said = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=False)
            versions[self.program] = said.stdout.partition("\n")[0]
        return versions


def _version(distribution: str) -> str | None:
    if distribution == "bulkjobs":
        return __version__
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _engine(errand: Errand) -> list[str]:
    """Is `bulkjobs submit`, told the limit; its own waits of minutes are scaled as the window is (300 s in life)."""
    scale = errand.window_s / 300
    return [
        *(sys.executable, "-m", "bulkjobs", "submit", str(errand.ids), "--run", str(errand.folder / "run")),
        *("--base-url", errand.base_url, "--chunk-size", str(errand.chunk_ids), "--quiet"),
        *("--rate", f"{errand.count}/{errand.window_s:g}s", "--lockout", f"{errand.lockout_s:g}s"),
        *("--max-active-jobs", "none" if errand.slots is None else str(errand.slots)),
        *("--settle", f"{600 * scale:g}s", "--poll", f"{5000 * scale:.0f}ms"),
    ]


def _script(name: str) -> Callable[[Errand], list[str]]:
    def command(errand: Errand) -> list[str]:
        start = (
            ["sh", str(_CONTENDERS / name)]
            if name.endswith(".sh")
            else [sys.executable, "-m", f"benchmarks.goodput.contenders.{name}"]
        )
        url = f"{errand.base_url}/contact/job"
        return [
            *(*start, str(errand.ids), str(errand.chunk_ids), url),
            *(str(errand.count), f"{errand.window_s:g}"),
        ]

    return command


ROSTER: Final = {
    "bulkjobs": Contender(title="bulkjobs submit", command=_engine, libraries=("bulkjobs",)),
    "aiolimiter": Contender(
        title="aiolimiter", command=_script("aiolimiter_alone"), libraries=("aiolimiter", "aiohttp")
    ),
    "stamina": Contender(
        title="stamina", command=_script("stamina_backoff"), libraries=("stamina", "aiohttp")
    ),
    "aiolimiter+stamina": Contender(
        title="aiolimiter and stamina",
        command=_script("aiolimiter_stamina"),
        libraries=("aiolimiter", "stamina", "aiohttp"),
    ),
    "aiohttp-retry": Contender(
        title="aiohttp-retry", command=_script("aiohttp_retrying"), libraries=("aiohttp-retry", "aiohttp")
    ),
    "aiometer": Contender(
        title="aiometer with httpx", command=_script("aiometer_httpx"), libraries=("aiometer", "httpx")
    ),
    "curl": Contender(title="curl --parallel --retry", command=_script("curl.sh"), program="curl"),
}
"""By the names that the command line knows."""
