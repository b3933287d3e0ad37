"""Scenarios as data files: thirty days against a server that was described, in seconds.

    report = play(load("answers-of-seconds"))
    assert problems(report, scenario.expect) == []

`scenario` reads the files, `service` is the server (the simulator's own rules), `client` the pure controller with
what its shell does, `optimum` the best that any client could have done there, `reachable` the best that one could which does
not see the future, `playing` plays and reports.
"""

from __future__ import annotations

from support.scenarios.playing import Report, markdown, play, problems
from support.scenarios.scenario import FOLDER, Scenario, load, names

__all__ = ["FOLDER", "Report", "Scenario", "load", "markdown", "names", "play", "problems"]
