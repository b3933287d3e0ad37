"""The soaks in the size of a commit: sixty kills on one ledger, and each kind of fault once."""

import json
from collections import Counter
from pathlib import Path

import pytest
from soak import cli
from soak.faults import FAULTS, FaultsPlan, run_faults
from soak.kills import KillPlan, run_kills
from soak.strict import StrictPlan, run_strict
from soak.town import Result


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sixty_kills_on_one_ledger_lose_nothing_and_send_nothing_twice(tmp_path: Path) -> None:
    result = run_kills(KillPlan(cycles=60, ids=6_000, seed=1), tmp_path)
    print(result.table())
    assert result.violations == []
    assert result.figures["kills"] >= 40
    assert result.figures["met_nothing_new"] >= 3, "some kills come before anything happened"
    assert sum(result.figures[f"met_{count}_in_flight"] for count in range(1, 5)) >= 20
    assert result.figures["delivered"] + result.figures["held"] == 6_000


@pytest.mark.slow
def test_ids_go_through_every_fault_and_each_is_accounted_for(tmp_path: Path) -> None:
    result = run_faults(FaultsPlan(ids=10_000, seed=1, chunk_ids=10, every=40, kills=2), tmp_path)
    print(result.table())
    assert result.violations == []
    met = {name for name in FAULTS if result.figures[f"fault_{name}"]}
    assert len(met) > len(FAULTS) * 3 / 4
    assert result.figures["delivered"] + result.figures["held"] == 10_000


@pytest.mark.slow
def test_a_real_server_never_counts_more_than_the_limit(tmp_path: Path) -> None:
    result = run_strict(StrictPlan(seconds=6.0, rate="20/500ms", answer_s=0.6, workers=10, kills=1), tmp_path)
    print(result.table())
    assert result.violations == []
    assert result.figures["kills"] == 1
    assert 10 <= result.figures["fullest_window"] <= 20


@pytest.mark.parametrize(("violations", "code"), [([], 0), (["an id is lost"], 1)])
def test_the_exit_code_tells_whether_the_promise_was_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    violations: list[str],
    code: int,
) -> None:
    def run(plan: FaultsPlan, folder: Path) -> Result:
        assert folder == tmp_path / "kept"
        return Result({"seed": plan.seed}, violations, Counter(lost=len(violations)), 1.5)

    monkeypatch.setattr(cli, "run_faults", run)
    assert cli.main(["faults", "--seed", "7", "--keep", str(tmp_path / "kept")]) == code
    told = capsys.readouterr()
    assert json.loads(told.out) == {
        "parameters": {"seed": 7}, "violations": violations, "figures": {"lost": len(violations)}, "elapsed_s": 1.5,
    }  # fmt: skip
    assert ("VIOLATION: an id is lost" in told.err) == bool(violations)
