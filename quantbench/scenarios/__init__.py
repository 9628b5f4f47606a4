"""Scenarios: variants that passed the gate, put through MLPerf LoadGen."""

from quantbench.scenarios.admission import require_passing
from quantbench.scenarios.record import Probe, Run
from quantbench.scenarios.rounds import ROUNDS, SCENARIOS
from quantbench.scenarios.runs import run

__all__ = ["ROUNDS", "SCENARIOS", "Probe", "Run", "require_passing", "run"]
