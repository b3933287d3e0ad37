"""Who watches the watchers: engines that are broken on purpose are found out, and the real one is not accused."""

from __future__ import annotations

import pytest
from controls import CONTROLS, Control, try_control

IN_THE_BOOKS = {control.name for control in CONTROLS} - {"lets a second process work on the run"}
"""Breaks that cost money or lose ids; a second process is stopped by the database before it does."""


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name.replace(" ", "-"))
def test_a_broken_engine_is_caught_where_the_real_one_passes(control: Control) -> None:
    findings = try_control(control)
    assert findings.of_the_real_one == []
    assert findings.at_a_step
    if control.name in IN_THE_BOOKS:
        assert findings.at_the_end, findings.at_a_step
        assert findings.by_the_judge, findings.at_a_step


def test_there_are_eight_controls() -> None:
    assert len({control.name for control in CONTROLS}) == len(CONTROLS) == 8
