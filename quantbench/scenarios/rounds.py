"""What a round of MLPerf asks of a run, read from `rounds.toml`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantbench.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ROUNDS", "SCENARIOS", "Seeds", "Settings", "settings"]

ROUNDS = ("v0.5", "current")
SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")


@dataclass(frozen=True)
class Seeds:
    """LoadGen's three seeds: which samples are loaded, in which order they come, and when (Server)."""

    qsl: int
    sample_index: int
    schedule: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One scenario under one round's rules, for one task. `rounds.toml` says what each key means."""

    round: str
    scenario: str
    seeds: Seeds
    min_queries: int
    min_seconds: float
    percentile: float
    result: str
    scale: float
    unit: str
    samples_per_query: int | None = None
    bound: str | None = None
    at_most_the_data_set: bool = False
    max_seconds: float = 0.0
    """0 is no limit; LoadGen calls a run that reaches the limit invalid."""


def settings(round_: str, scenario: str, task: str, *, quick: bool = False) -> Settings:
    """The rules for one scenario; `quick` makes them a matter of seconds, and the run no result.

    Raises:
        InputError: there is no such round or scenario.
    """
    if round_ not in ROUNDS:
        raise InputError(f"there is no round {round_!r}; --round takes {' or '.join(ROUNDS)}")
    if scenario not in SCENARIOS:
        raise InputError(f"there is no scenario {scenario!r}; --scenario takes {', '.join(SCENARIOS)}")
    tables = _tables()
    rules = dict(tables[round_][scenario])
    variants = {key: rules.pop(key) for key, value in tables[round_][scenario].items() if isinstance(value, dict)}
    rules |= variants.get(task, {})
    if quick:
        rules |= {**tables["quick"], "min_queries": tables["quick"]["min_queries"][scenario]}
    return Settings(round=round_, scenario=scenario, seeds=Seeds(**tables[round_]["seeds"]), **rules)


def _tables() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "rounds.toml").read_text(encoding="utf-8"))
