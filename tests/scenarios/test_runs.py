"""Whole runs by LoadGen: what is reported is what LoadGen's own logs say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_reference import SAMPLES, TinyExecutor, TinyTask

from quantbench.datasets.base import Dataset
from quantbench.evaluation import evaluate
from quantbench.references import Reference
from quantbench.references.schema import Latency
from quantbench.scenarios import SCENARIOS, run, runs
from quantbench.scenarios.record import Run
from quantbench.scenarios.traffic import Traffic
from quantbench.scenarios.trial import Setup, trial

LINE = re.compile(
    r"TestScenario\.(\w+) qps=(\d+\.\d\d), mean=(\d+\.\d{4}), time=(\d+\.\d{3}), "
    r"(?:acc=(\d+\.\d{3})%, )?queries=(\d+), "
    r"tiles=50\.0:[\d.]+,80\.0:[\d.]+,90\.0:[\d.]+,95\.0:[\d.]+,99\.0:[\d.]+,99\.9:[\d.]+"
)


def loadgen_says(logs: Path) -> dict[str, Any]:
    lines = (logs / "mlperf_log_detail.txt").read_text().splitlines()
    entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    return {entry["key"]: entry["value"] for entry in entries}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_performance(
    scenario: str,
    tmp_path: Path,
    reference: Reference,
    executor: TinyExecutor,
    dataset: Dataset,
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs = tmp_path / "logs"
    done = run(reference, executor, dataset, TinyTask(0.002), dtype="fp32", scenario=scenario, quick=True, logs=logs)
    said = loadgen_says(logs)
    assert capfd.readouterr().out == ""
    assert done.valid == (said["result_validity"] == "VALID")
    assert "Result is : " + ("VALID" if done.valid else "INVALID") in (logs / "mlperf_log_summary.txt").read_text()
    assert (done.quick, done.accuracy) == (True, None)

    # Latencies come from the trace; LoadGen computes these percentiles itself. It knows no 80th.
    per = "_per_query" if scenario == "MultiStream" else ""
    for percentile in ("50.0", "90.0", "95.0", "99.0", "99.9"):
        official = said[f"result_{float(percentile):.2f}_percentile{per}_latency_ns"]
        assert done.latency_ms[percentile] == pytest.approx(official / 1e6, abs=2e-6)
    assert done.latency_ms["50.0"] <= done.latency_ms["80.0"] <= done.latency_ms["90.0"]
    mean = said["result_mean_query_latency_ns" if per else "result_mean_latency_ns"]
    assert done.latency_ms["mean"] == pytest.approx(mean / 1e6, abs=2e-6)
    assert done.queries == said["result_query_count"]
    assert done.samples == done.queries * said["effective_samples_per_query"]

    key, scale, unit = {
        "SingleStream": ("result_90.00_percentile_latency_ns", 1e-6, "ms"),
        "MultiStream": ("result_99.00_percentile_per_query_latency_ns", 1e-6, "ms"),
        "Server": ("result_completed_samples_per_sec", 1, "queries/s"),
        "Offline": ("result_samples_per_second", 1, "samples/s"),
    }[scenario]
    assert (done.result, done.unit) == (pytest.approx(said[key] * scale), unit)
    assert json.loads((logs / "run.json").read_text()) == done.document()

    line = LINE.fullmatch(done.line())
    assert line is not None
    count = done.samples if scenario == "Offline" else done.queries
    assert (line[1], line[5], int(line[6])) == (scenario, None, count)
    assert float(line[2]) == pytest.approx(count / float(line[4]), rel=1e-2)


def test_scenarios_batch_as_they_should(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    largest = {}
    for scenario in SCENARIOS:
        task = TinyTask(0.002)  # whatever the batch: the largest is the most efficient
        run(
            reference,
            executor,
            dataset,
            task,
            dtype="fp32",
            scenario=scenario,
            quick=True,
            mode="accuracy",
            logs=tmp_path,
        )
        answered = executor.batches[-SAMPLES:]
        # The probe's batches come first, LoadGen's make up the data set.
        while sum(answered) > SAMPLES:
            answered = answered[1:]
        largest[scenario] = max(answered)
    assert largest["SingleStream"] == 1
    assert largest["MultiStream"] == 8
    assert largest["Server"] > 1
    assert largest["Offline"] > 8


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("round_", ["v0.5", "current"])
def test_accuracy_is_the_evaluated_score(
    scenario: str, round_: str, tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    done = run(
        reference,
        executor,
        dataset,
        TinyTask(),
        dtype="fp32",
        scenario=scenario,
        mode="accuracy",
        round=round_,
        logs=tmp_path,
    )
    score = evaluate(reference, executor, dtype="fp32", dataset=dataset)
    assert done.accuracy == done.result == score.score == 32 / 40
    assert (done.unit, done.valid) == ("top1", True)
    assert done.samples >= SAMPLES
    line = LINE.fullmatch(done.line())
    assert line is not None and line[5] == "80.000"

    # The reference implementation's layout: one float32 class, in hex.
    logged = json.loads((tmp_path / "mlperf_log_accuracy.json").read_text())
    assert {entry["qsl_idx"] for entry in logged} == set(range(SAMPLES))
    for entry in logged:
        assert np.frombuffer(bytes.fromhex(entry["data"]), "<f4").tolist() == [entry["qsl_idx"] % 4]


@pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
def test_a_quick_run_of_a_slow_variant_is_valid_too(
    scenario: str, tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    """64 queries of 0.15 s would take 10 s; a quick run lasts 2."""
    roomy = replace(reference, latency=Latency(server_ms=2000.0, multi_stream_ms=2000.0))
    task = TinyTask(0.15)
    done = run(roomy, executor, dataset, task, dtype="fp32", scenario=scenario, quick=True, logs=tmp_path / "logs")
    assert done.valid and done.quick
    assert 11 <= done.queries < 64
    assert done.seconds < 8


@pytest.mark.parametrize(("highest", "tries"), [(1e9, 1), (0.3, 3), (0.01, 3)])
def test_a_quick_server_run_halves_a_rate_that_is_too_much(
    highest: float,
    tries: int,
    tmp_path: Path,
    reference: Reference,
    executor: TinyExecutor,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`highest`: what the system bears, as a share of the first rate."""
    asked: list[float] = []

    def bearing(setup: Setup, traffic: Traffic, folder: Path, what: str) -> Run:
        assert traffic.target_qps is not None
        asked.append(traffic.target_qps)
        return replace(trial(setup, traffic, folder, what), valid=asked[-1] <= highest * asked[0])

    monkeypatch.setattr(runs, "trial", bearing)
    words = {"dtype": "fp32", "scenario": "Server", "quick": True}
    done = run(reference, executor, dataset, TinyTask(0.002), logs=tmp_path / "logs", **words)
    assert asked == [asked[0] / 2**halved for halved in range(tries)]
    assert done.target_qps == asked[-1] and done.valid == (asked[-1] <= highest * asked[0])
    assert loadgen_says(tmp_path / "logs")["effective_target_qps"] == pytest.approx(asked[-1], rel=1e-3)
