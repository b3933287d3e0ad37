"""What every test has in common: nothing of it is left on the machine, and nothing of the machine reaches it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.postgres import Postgres, running_postgres
from support.s3 import S3Server, running_s3

from bulkjobs.ledger import reserve


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Is a PostgreSQL, started when the first test asks for it."""
    with running_postgres() as server:
        if server is None:
            pytest.skip("no PostgreSQL on this machine, and no wheel that brings one for it")
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Is a server that speaks S3, started when the first test asks for it."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the slow ones, so that no process waits for another in the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of runs need not fill sixteen MiB each."""
    monkeypatch.setattr(reserve, "RESERVE_BYTES", 2**16)


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of the account are shared within a test and not beyond."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{id(monkeypatch)}"))
