"""The account gate against servers described in data files: thirty days each, on a clock that nobody waits for.

What a scenario is about and what must come of it stands in `tests/scenarios`; `docs/account-gate.md` has the table.
"""

from __future__ import annotations

import pytest
from support.scenarios import load, names, play, problems

AWAITED = {
    "clock-set-while-it-is-down": "the history has wall times only, and nothing tells that the clock was set",
    "lock-outs-that-are-nobodys-fault": "each lock-out lowers the limit, and nothing raises it again",
    "restarts-in-a-lock-out": "the same",
    "slots-of-minutes": "the next question waits for a tenth of a job's age",
    "slots-of-seconds": "the same, and for five seconds at least",
}
"""What the gate cannot do yet."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.xfail(reason=AWAITED[name], strict=True) if name in AWAITED else ()
        )
        for name in names()
    ],
)
def test_the_gate_does_as_the_scenario_says(name: str) -> None:
    scenario = load(name)
    report = play(scenario)
    print(report)
    assert problems(report, scenario.expect) == []
