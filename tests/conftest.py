"""What every test has in common: nothing of it is left on the machine, and nothing of the machine reaches it."""

from __future__ import annotations

import pytest

from bulkjobs.ledger import reserve


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
