"""Deterministic simulation: the real engine and the simulated service in one process, decided by one number.

    outcome = simulate(scenario_of(42))
    assert outcome.violations == []

Engine, ledger, SQLite and files are the real ones; network, threads, clocks and the end of processes are played.
The database may stay open in memory from process to process (`databases`), which leads to the same trace sooner.
Everything that is played follows from the seed, so a seed that fails fails again, and its trace can be read.
What holds at every step is watched at every step (`watch`), what holds at the end is judged at the end (`world`).
"""

from support.simulation.playing import simulate
from support.simulation.scenario import Scenario, long_scenario_of, reconciled, scenario_of
from support.simulation.world import Outcome

__all__ = ["Outcome", "Scenario", "long_scenario_of", "reconciled", "scenario_of", "simulate"]
