"""Scenarios with a bound: what keeps to it is valid, what does not is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_reference import TinyExecutor, TinyTask

from quantbench.datasets.base import Dataset
from quantbench.references import Reference
from quantbench.references.schema import Latency
from quantbench.scenarios import run
from quantbench.scenarios.probe import Speed
from quantbench.scenarios.rounds import settings
from quantbench.scenarios.traffic import plan_traffic


@pytest.mark.parametrize(("samples", "fits"), [(2, True), (40, False)])
def test_the_fixed_interval_of_v05(
    samples: int, fits: bool, tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    """A batch takes 5 ms; 40 samples take two, which 8 ms cannot hold. A second holds any, on a busy machine too."""
    bounded = replace(reference, latency=Latency(multi_stream_ms=1000.0 if fits else 8.0))
    done = run(
        bounded,
        executor,
        dataset,
        TinyTask(0.005),
        dtype="fp32",
        scenario="MultiStream",
        round="v0.5",
        quick=True,
        samples_per_query=samples,
        logs=tmp_path,
    )
    assert (done.result, done.unit) == (samples, "samples a query")
    assert done.samples == samples * done.queries
    assert done.valid is fits
    assert "Result is : VALID" in (tmp_path / "mlperf_log_summary.txt").read_text()  # LoadGen knows of no interval


def test_an_overloaded_server_is_invalid(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    """Eight workers at most with batches of one, 10 ms each: 800 a second at best, and 3000 are asked for."""
    bounded = replace(reference, latency=Latency(server_ms=15.0))
    done = run(
        bounded,
        executor,
        dataset,
        TinyTask(0.01),
        dtype="fp32",
        scenario="Server",
        quick=True,
        target_qps=3000.0,
        logs=tmp_path,
    )
    assert not done.valid
    assert (done.target_qps, done.bound_ms) == (3000.0, 15.0)
    assert done.latency_ms["90.0"] > 15.0


def test_a_server_within_its_bound_is_valid_at_the_rate_asked_for(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    roomy = replace(reference, latency=Latency(server_ms=1000.0))  # this machine may be busy
    done = run(
        roomy,
        executor,
        dataset,
        TinyTask(0.002),
        dtype="fp32",
        scenario="Server",
        quick=True,
        target_qps=100.0,
        logs=tmp_path,
    )
    assert done.valid
    assert done.result == pytest.approx(100.0, rel=0.5)  # arrivals are random


def test_the_chosen_rate_leaves_room_for_the_queue() -> None:
    """Service time 1 ms. With room for 2.303 ms of waiting, ln(100)/2 · s, the load may be one half: 500 a second."""
    speed = Speed(best={1: 0.0005}, mean={1: 0.001})
    rules = settings("current", "Server", "image-classification")
    for bound_ms, load in [(3.3026, 0.5), (1000.0, 0.7), (0.5, 0.05)]:
        traffic = plan_traffic(rules, speed, mode="performance", total=100, bound_ms=bound_ms)
        assert traffic.target_qps == pytest.approx(1000 * load, rel=1e-3)


def test_a_server_far_behind_is_given_up() -> None:
    """At 100 queries a second, 500 open queries are five seconds of work, a hundred times the bound of 50 ms."""
    rules = settings("v0.5", "Server", "image-classification")
    speed = Speed(best={1: 0.0005}, mean={1: 0.001})
    traffic = plan_traffic(rules, speed, mode="performance", total=100, bound_ms=50.0, target_qps=100.0)
    assert traffic.settings().server_max_async_queries == 500


def test_the_batch_is_the_smallest_that_is_worth_it() -> None:
    speed = Speed(best={1: 1.0, 2: 1.2, 4: 2.0, 8: 3.99}, mean={1: 2.0, 2: 2.0, 4: 4.0, 8: 8.0})
    assert speed.batch() == 4  # 8 brings under 3% more
    assert speed.batch(within=1.5) == 2
    assert speed.batch(largest=2) == 2
    assert speed.batch(within=0.1) == 1
    assert speed.throughput(4) == 2.0
    assert speed.throughput(4, sustained=True) == 1.0
