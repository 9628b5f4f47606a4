"""The search: what bears up to a known capacity is found to bear that, and everything that was tried is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_reference import TinyExecutor, TinyTask

from quantbench.datasets.base import Dataset
from quantbench.references import Reference
from quantbench.references.schema import Latency
from quantbench.scenarios import run
from quantbench.scenarios.rounds import Settings, settings
from quantbench.scenarios.search import highest


@given(
    capacity=st.floats(1e-3, 1e6),
    off=st.floats(0.02, 50.0),
    tolerance=st.sampled_from([0.01, 0.02, 0.1]),
)
def test_a_rate_is_found_to_the_tolerance(capacity: float, off: float, tolerance: float) -> None:
    tried: list[float] = []

    def fits(rate: float) -> bool:
        tried.append(rate)
        return rate <= capacity

    found = highest(fits, capacity * off, tolerance=tolerance)
    assert found is not None and found in tried
    assert found <= capacity <= found * (1 + tolerance) * (1 + 1e-9)
    assert len(tried) <= 25


@given(capacity=st.integers(0, 5000), guess=st.integers(1, 5000), most=st.integers(1, 5000))
def test_whole_numbers_are_found_exactly(capacity: int, guess: int, most: int) -> None:
    found = highest(lambda number: number <= capacity, guess, tolerance=0.0, whole=True, most=most)
    assert found == (min(capacity, most) or None)


def test_what_nothing_fits_is_given_up() -> None:
    tried: list[float] = []
    assert highest(lambda rate: bool(tried.append(rate)), 100.0, tolerance=0.02) is None
    assert min(tried) >= 1.0 and len(tried) < 15


class LineTask(TinyTask):
    """A batch of n takes n times as long as one."""

    def feeds(self, executor: TinyExecutor, inputs: list) -> dict:
        self.seconds = 0.004 * len(inputs)
        return super().feeds(executor, inputs)


def test_multistream_of_v05_finds_how_many_samples_fit_into_the_interval(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    """At 4 ms a sample and never less, 50 ms hold 12 samples; a busy machine may hold fewer, and none 13."""
    bounded = replace(reference, latency=Latency(multi_stream_ms=50.0))
    done = run(
        bounded,
        executor,
        dataset,
        LineTask(),
        dtype="fp32",
        scenario="MultiStream",
        round="v0.5",
        quick=True,
        logs=tmp_path / "logs",
    )
    assert done.valid and done.unit == "samples a query"
    assert 8 <= done.result <= 12
    assert done.bounded_ms is not None and done.bounded_ms <= 50.0
    assert done.result <= max(probe.tried for probe in done.search if probe.valid), "no more than a probe could do"
    assert any(not probe.valid and probe.tried > done.result for probe in done.search), "the next more was tried"
    for probe in done.search:
        assert probe.valid == (probe.bounded_ms is not None and probe.bounded_ms <= 50.0)
        assert probe.line.startswith("TestScenario.MultiStream qps=")

    logs = tmp_path / "logs"
    assert json.loads((logs / "run.json").read_text()) == done.document()
    assert (logs / "result_line.txt").read_text() == done.line() + "\n"
    assert "Result is : VALID" in (logs / "mlperf_log_summary.txt").read_text()
    places = sorted((logs / "probes").iterdir())
    assert len(places) == len(done.search)
    for place, probe in zip(places, done.search, strict=True):
        assert (place / "result_line.txt").read_text() == probe.line + "\n"
        assert (place / "mlperf_log_summary.txt").exists() and not (place / "mlperf_log_trace.json").exists()


def test_nothing_fits(tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset) -> None:
    """One sample takes 4 ms and the interval is 1 ms: the run is invalid, and says what one sample took."""
    bounded = replace(reference, latency=Latency(multi_stream_ms=1.0))
    done = run(
        bounded,
        executor,
        dataset,
        LineTask(),
        dtype="fp32",
        scenario="MultiStream",
        round="v0.5",
        quick=True,
        logs=tmp_path / "logs",
    )
    assert not done.valid
    assert (done.samples_per_query, [probe.tried for probe in done.search][-1]) == (1, 1)
    assert done.bounded_ms is not None and done.bounded_ms >= 4.0
    assert Path(done.logs).is_dir()


def test_server_of_v05_finds_the_rate_and_reports_the_worst_of_its_runs(
    tmp_path: Path,
    reference: Reference,
    executor: TinyExecutor,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches of one, 20 ms each, in a row: no rate above 50 a second holds, whatever the machine does."""

    def hurried(round_: str, scenario: str, task: str, *, quick: bool = False) -> Settings:
        rules = settings(round_, scenario, task, quick=quick)
        return replace(rules, min_seconds=1.0, runs=settings(round_, scenario, task).runs)

    monkeypatch.setattr("quantbench.scenarios.runs.settings", hurried)
    monkeypatch.setattr("quantbench.scenarios.probe.MOST_WORKERS", 1)
    monkeypatch.setattr("quantbench.scenarios.probe.BATCHES", (1,))
    bounded = replace(reference, latency=Latency(server_ms=150.0))
    done = run(
        bounded,
        executor,
        dataset,
        TinyTask(0.02),
        dtype="fp32",
        scenario="Server",
        round="v0.5",
        quick=True,
        logs=tmp_path / "logs",
    )
    assert done.valid
    assert done.target_qps is not None and 15.0 < done.target_qps < 65.0  # 64 queries may come in bursts or gaps
    assert len(done.repeats) == 5 and all(each.valid for each in done.repeats)
    assert done.result == min(each.result for each in done.repeats)
    assert any(not probe.valid and probe.tried > done.target_qps for probe in done.search)
    logs = tmp_path / "logs"
    assert sorted(place.name for place in logs.glob("run_*")) == [f"run_{number}" for number in range(1, 6)]
    assert Path(done.logs).parent == logs
    assert (Path(done.logs) / "result_line.txt").read_text() == done.line() + "\n"
    assert json.loads((logs / "run.json").read_text())["repeats"][0]["tried"] == done.target_qps


def test_what_fails_at_full_length_is_lowered(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search is made to find 14 samples, which take 56 ms and cannot hold."""
    bounded = replace(reference, latency=Latency(multi_stream_ms=50.0))
    found: list[int] = []

    def lenient(fits: object, guess: float, **_: object) -> int:
        fits(guess)  # type: ignore[operator]
        found.append(14)
        return 14

    monkeypatch.setattr("quantbench.scenarios.runs.highest", lenient)
    done = run(
        bounded,
        executor,
        dataset,
        LineTask(),
        dtype="fp32",
        scenario="MultiStream",
        round="v0.5",
        quick=True,
        logs=tmp_path / "logs",
    )
    assert found == [14]
    assert done.samples_per_query == 12, "14, then a tenth less, 12, which are the two attempts of a quick run"


def test_a_rate_that_is_given_is_not_searched_for(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    done = run(
        reference,
        executor,
        dataset,
        TinyTask(),
        dtype="fp32",
        scenario="Server",
        round="v0.5",
        quick=True,
        target_qps=100.0,
        logs=tmp_path / "logs",
    )
    assert (done.target_qps, done.search) == (100.0, ())
