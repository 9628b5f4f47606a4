"""The rounds against the rules' tables (facts of MLPerf), and against what LoadGen itself carries."""

from __future__ import annotations

import math

import mlperf_loadgen as lg
import pytest

from quantbench.errors import InputError
from quantbench.references import load_reference
from quantbench.scenarios.rounds import ROUNDS, SCENARIOS, settings, slow_settings

# round, scenario, task, queries, seconds, percentile, samples a query
RULES = [
    ("v0.5", "SingleStream", "image-classification", 1024, 60, 0.90, 1),
    ("v0.5", "MultiStream", "image-classification", 270336, 60, 0.99, None),
    ("v0.5", "MultiStream", "translation", 90112, 60, 0.97, None),
    ("v0.5", "Server", "object-detection", 270336, 60, 0.99, 1),
    ("v0.5", "Server", "translation", 90112, 60, 0.97, 1),
    ("v0.5", "Offline", "translation", 24576, 60, 0.90, None),
    ("current", "MultiStream", "image-classification", 662, 600, 0.99, 8),
    ("current", "SingleStream", "translation", 64, 600, 0.90, 1),
]


@pytest.mark.parametrize(("round_", "scenario", "task", "queries", "seconds", "percentile", "samples"), RULES)
def test_the_rules_tables(
    round_: str, scenario: str, task: str, queries: int, seconds: float, percentile: float, samples: int | None
) -> None:
    rules = settings(round_, scenario, task)
    assert (rules.min_queries, rules.min_seconds, rules.percentile) == (queries, seconds, percentile)
    assert rules.samples_per_query == samples
    assert rules.max_seconds == 0


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_current_round_is_the_one_that_loadgen_carries(scenario: str) -> None:
    official = lg.TestSettings()
    built_in = 0  # of LoadGen's kinds of configuration file, the one that it carries within itself
    official.FromConfig("", "resnet50", scenario, built_in)
    rules = settings("current", scenario, "image-classification")
    assert rules.seeds.qsl == official.qsl_rng_seed
    assert rules.seeds.sample_index == official.sample_index_rng_seed
    assert rules.seeds.schedule == official.schedule_rng_seed
    assert rules.min_seconds * 1000 == official.min_duration_ms
    assert load_reference("resnet50").performance_samples == official.performance_sample_count_override
    percentile = {
        "SingleStream": official.single_stream_target_latency_percentile,
        "MultiStream": official.multi_stream_target_latency_percentile,
        "Server": official.server_target_latency_percentile,
    }.get(scenario)
    assert percentile is None or rules.percentile == pytest.approx(percentile)
    if scenario in ("MultiStream", "Offline"):  # the others have no count of their own there
        assert rules.min_queries == official.min_query_count
    if scenario == "MultiStream":
        assert rules.samples_per_query == official.multi_stream_samples_per_query


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server"])
def test_a_slow_variant_has_the_fewest_queries_that_tell_a_median_with_99_percent_confidence(scenario: str) -> None:
    """Of 10 queries, one or none is faster than the median with a probability of 11/1024, of 11 with 12/2048. Where
    they have to keep to a bound, 20 let four be over it."""
    rules = slow_settings(settings("current", scenario, "translation", quick=True))
    assert (rules.percentile, rules.min_queries, rules.max_seconds) == (0.5, 20 if scenario == "Server" else 11, 0)
    assert sum(math.comb(20, over) for over in range(5)) / 2**20 < 0.01
    assert 12 / 2**11 < 0.01 < 11 / 2**10
    assert rules.samples_per_query == settings("current", scenario, "translation").samples_per_query


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_quick_takes_seconds(round_: str, scenario: str) -> None:
    rules = settings(round_, scenario, "translation", quick=True)
    assert rules.min_seconds <= rules.max_seconds <= 10
    assert rules.min_queries <= 64
    assert rules.seeds == settings(round_, scenario, "translation").seeds


def test_samples_in_memory_by_reference() -> None:
    """The numbers of the Inference Rules 0.5, section "Benchmarks"."""
    numbers = {"resnet50": 1024, "mobilenet": 1024, "ssd-mobilenet": 256, "ssd-resnet34": 64}
    assert {name: load_reference(name).performance_samples for name in numbers} == numbers


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"v0\.5 or current"):
        settings("v0.7", "Server", "translation")
    with pytest.raises(InputError, match="SingleStream, MultiStream, Server, Offline"):
        settings("v0.5", "server", "translation")


def test_what_is_searched_for_and_how_often_it_is_run() -> None:
    """v0.5's results of MultiStream and Server are the highest that keeps to the bound, Server's the worst of five."""
    for round_, scenario, quantity, quick in [
        ("v0.5", "MultiStream", "samples_per_query", True),
        ("v0.5", "Server", "target_qps", True),
        ("current", "Server", "target_qps", False),
    ]:
        full = settings(round_, scenario, "translation")
        assert full.search is not None and full.search.quantity == quantity
        assert full.runs == (5 if (round_, scenario) == ("v0.5", "Server") else 1)
        hurried = settings(round_, scenario, "translation", quick=True)
        assert (hurried.search is not None, hurried.runs) == (quick, 1)
    assert all(settings(round_, "Offline", "translation").search is None for round_ in ROUNDS)
    assert settings("current", "MultiStream", "translation").search is None
