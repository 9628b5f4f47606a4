"""What a round of MLPerf asks of a run, read from `rounds.toml`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantbench.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ROUNDS", "SCENARIOS", "Search", "Seeds", "Settings", "settings", "slow_settings"]

ROUNDS = ("v0.5", "current")
SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")


@dataclass(frozen=True)
class Seeds:
    """LoadGen's three seeds: which samples are loaded, in which order they come, and when (Server)."""

    qsl: int
    sample_index: int
    schedule: int


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the highest that keeps to a bound is searched for.

    Attributes:
        quantity: what of: "target_qps" or "samples_per_query"; unit: as it is printed.
        tolerance: how near, as a part of what is found.
        attempts: how often what is found is run at full length, each time a little less, until it holds.
        shorter: which settings a probe takes in place of the run's own.
    """

    quantity: str
    unit: str
    tolerance: float
    attempts: int
    shorter: dict[str, Any]


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
    search: Search | None = None
    runs: int = 1
    """How many times the round wants the run; the worst is the result."""
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
    search = rules.pop("search", None)
    variants = {key: rules.pop(key) for key, value in list(rules.items()) if isinstance(value, dict)}
    rules |= variants.get(task, {})
    if quick:
        rules |= _hurry(tables["quick"], scenario)
    if search is not None and (not quick or search["quick"]):
        how = tables["search"]["quick" if quick else "full"]
        rules["search"] = Search(quantity=search["quantity"], unit=search["unit"], **how)
    return Settings(round=round_, scenario=scenario, seeds=Seeds(**tables[round_]["seeds"]), **rules)


def slow_settings(rules: Settings) -> Settings:
    """A quick run's rules for a variant that is too slow for them: fewer queries, and all the time that they take."""
    return replace(rules, **_hurry(_tables()["quick"]["slow"], rules.scenario))


def _hurry(table: dict[str, Any], scenario: str) -> dict[str, Any]:
    keys = {key: value for key, value in table.items() if key != "slow"}
    return {key: value[scenario] if isinstance(value, dict) else value for key, value in keys.items()}


def _tables() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "rounds.toml").read_text(encoding="utf-8"))
