"""The account gate against servers described in data files: thirty days each, on a clock that nobody waits for.

What a scenario is about and what must come of it stands in `tests/scenarios`; `docs/account-gate.md` has the table.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.scenarios import FOLDER, load, names, play, problems
from support.scenarios.broken import BROKEN, EagerPolls
from support.scenarios.engine import play_engine
from support.scenarios.loop import Loop
from support.scenarios.scenario import Work, parse


@pytest.mark.parametrize("name", names())
def test_the_gate_does_as_the_scenario_says(name: str) -> None:
    scenario = load(name)
    report = play(scenario)
    print(report)
    assert problems(report, scenario.expect) == []


@pytest.mark.parametrize(
    ("wrong", "name", "seen_in"),
    [
        ("a token is free a window after the start of its request", "worst-moments", {"fullest", "lockouts"}),
        ("nothing but aiolimiter", "jittered-latency", {"fullest", "lockouts"}),
        ("the window is not restored", "restarts-in-a-full-window", {"fullest", "lockouts"}),
        ("a lock-out is not restored", "restarts-in-a-lock-out", {"sent-into-lockouts"}),
        ("requests are spread evenly", "a-short-run", {"finish"}),
    ],
)
def test_a_scenario_finds_a_broken_controller(wrong: str, name: str, seen_in: set[str]) -> None:
    scenario = load(name)
    if scenario.work.span_s is not None:
        scenario = replace(scenario, work=Work(span_s=2 * 86_400.0))
    assert problems(play(scenario), {what: scenario.expect[what] for what in seen_in - {"lockouts"}}) == []
    found = problems(play(scenario, BROKEN[wrong]), scenario.expect)
    assert seen_in <= {one.split(": ")[1].split(" is ")[0] for one in found}, found


def test_a_scenario_finds_questions_that_eat_what_submits_need() -> None:
    scenario = replace(load("slots-in-a-small-window"), work=Work(span_s=6 * 3_600.0))
    make = BROKEN["no token is kept for submits"]
    found = problems(play(scenario, make, EagerPolls), scenario.expect)
    assert {"slot-use", "finish"} <= {one.split(": ")[1].split(" is ")[0] for one in found}, found


def test_a_controller_that_never_lets_time_go_on_is_found_at_once() -> None:
    loop = Loop()

    def again() -> None:
        loop.at(loop.now, again)

    loop.at(1.0, again)
    with pytest.raises(RuntimeError, match="time does not go on"):
        loop.run(2.0)


@pytest.mark.parametrize("phase_s", range(0, 300, 25))
def test_no_phase_of_fixed_windows_is_met_by_more_than_the_limit(phase_s: int) -> None:
    scenario = load("fixed-windows")
    config = replace(scenario.config, fixed_window_phase_s=float(phase_s), seed=phase_s)
    scenario = replace(scenario, config=config, seed=phase_s, work=Work(span_s=86_400.0))
    assert problems(play(scenario), scenario.expect) == []


@pytest.mark.parametrize("name", [name for name in names() if load(name).engine_chunks is not None])
def test_the_whole_engine_does_as_the_scenario_says(name: str, tmp_path: Path) -> None:
    scenario = load(name)
    report = play_engine(scenario, tmp_path)
    print(report)
    assert problems(report, scenario.engine_expect) == []


def test_the_page_shows_every_scenario() -> None:
    page = (Path(__file__).parents[1] / "docs" / "account-gate.md").read_text()
    assert [name for name in names() if f"| {load(name).title} |" not in page] == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[server]", "[sever]", "sever"),
        ('rate = "6/5m"', 'rat = "6/5m"', "rat"),
        ('answer = "0s..15s"', 'answr = "0s..15s"', "answr"),
        ('answer = "0s..15s"', 'answer = "0s..15s"\ncounted = "sometimes"', "sometimes"),
    ],
)
def test_a_file_with_a_word_that_means_nothing_is_refused(before: str, after: str, message: str) -> None:
    text = (FOLDER / "jittered-latency.toml").read_text()
    assert parse("good", text).title
    with pytest.raises(ValueError, match=message):
        parse("bad", text.replace(before, after, 1))
