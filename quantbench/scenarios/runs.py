"""One LoadGen run of an opened variant: what came out, and how it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError, QuantbenchError
from quantbench.evaluation import get_metric
from quantbench.graphs.executor import Executor
from quantbench.references import Reference
from quantbench.scenarios import logs as loadgen_logs
from quantbench.scenarios.loadgen import run_test
from quantbench.scenarios.probe import probe
from quantbench.scenarios.qsl import SampleLibrary
from quantbench.scenarios.rounds import settings
from quantbench.scenarios.sut import DirectSystem, QueueSystem, SystemUnderTest, answers
from quantbench.scenarios.traffic import Traffic, latency_bound_ms, plan_traffic
from quantbench.support import atomic_folder, to_json
from quantbench.tasks.base import Task

__all__ = ["PERCENTILES", "Run", "run"]

PERCENTILES = (50.0, 80.0, 90.0, 95.0, 99.0, 99.9)
MODES = ("performance", "accuracy")

WORKERS = 2
"""Server threads: one decodes and encodes while the other is in the runtime."""
PROBED = 32


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a LoadGen run showed.

    In performance mode `result` and `unit` are what the round reports for the scenario, and `valid` is LoadGen's
    verdict, and in v0.5's MultiStream, whose interval LoadGen no longer knows, also whether the percentile keeps to it.
    In accuracy mode `result` is the score, `unit` the metric, and `valid` says that LoadGen logged no error.
    Latencies are those of queries; in Offline, which has a single query, those of samples.
    """

    reference: str
    dtype: str
    scenario: str
    mode: str
    round: str
    valid: bool
    result: float
    unit: str
    latency_ms: Mapping[str, float]
    queries: int
    samples: int
    seconds: float
    accuracy: float | None
    """The metric over the whole scored set; None in performance mode."""
    logs: str
    quick: bool
    """A shortened run, which is no result."""
    gated: bool
    """Whether a passing verdict was asked for."""
    target_qps: float | None
    """Server's arrival rate in queries a second."""
    bound_ms: float | None
    """What the round's latency percentile has to keep to."""

    def document(self) -> dict[str, Any]:
        """The run as one JSON object."""
        return {**vars(self), "latency_ms": dict(self.latency_ms)}

    def line(self) -> str:
        """The reference harness's line, times in seconds. Offline counts samples, the other scenarios queries."""
        count = self.samples if self.scenario == "Offline" else self.queries
        accuracy = "" if self.accuracy is None else f"acc={100 * self.accuracy:.3f}%, "
        tiles = ",".join(f"{fraction}:{self.latency_ms[str(fraction)] / 1000:.4f}" for fraction in PERCENTILES)
        return (
            f"TestScenario.{self.scenario} qps={count / self.seconds:.2f}, mean={self.latency_ms['mean'] / 1000:.4f}, "
            f"time={self.seconds:.3f}, {accuracy}queries={count}, tiles={tiles}"
        )


def run(
    reference: Reference,
    executor: Executor,
    dataset: Dataset,
    task: Task,
    *,
    dtype: str,
    scenario: str,
    logs: Path,
    mode: str = "performance",
    round: str = "current",  # noqa: A002 - the name of the option and of the key
    quick: bool = False,
    gated: bool = True,
    target_qps: float | None = None,
    samples_per_query: int | None = None,
) -> Run:
    """Put an opened variant through LoadGen.

    Args:
        mode: "performance", or "accuracy": every scored sample once, its response logged and scored.
        quick: seconds instead of the rules' length; marks the run as no result.
        gated: only noted in the run; `require_passing` is what asks for a verdict.
        logs: the folder for LoadGen's logs and `run.json`; what stood there is replaced when the run is complete.
        target_qps: Server's queries a second; without it, a rate that the measured speed should sustain.
        samples_per_query: MultiStream's where the round leaves it open; without it, a number that should fit.

    Raises:
        InputError: an unknown scenario, mode or round; the reference lacks the bound that the scenario needs; the
            variant fails on a sample.
        MissingError: a sample is missing.
    """
    if mode not in MODES:
        raise InputError(f"there is no mode {mode!r}; --mode takes {' or '.join(MODES)}")
    rules = settings(round, scenario, reference.task, quick=quick)
    total = len(dataset.scored)
    if total == 0:
        raise InputError(f"reference {reference.name}: its data set has no samples left to score")
    bound_ms = latency_bound_ms(rules, reference) if mode == "performance" else None
    what = f"{reference.name} {dtype} {scenario}"
    with _in_a_sentence(what):
        speed = probe(executor, task, [dataset.scored.input(index) for index in range(min(PROBED, total))])
    traffic = plan_traffic(
        rules,
        speed,
        mode=mode,
        total=total,
        bound_ms=bound_ms,
        target_qps=target_qps,
        samples_per_query=samples_per_query,
    )
    load = traffic.settings()
    in_memory = min(total, reference.performance_samples)
    with atomic_folder(logs) as folder:
        system, library = _system(executor, dataset, task, traffic)
        with _in_a_sentence(what):
            run_test(
                system,
                library,
                load,
                folder,
                performance_samples=in_memory,
                expected_seconds=traffic.expected_seconds,
                what=what,
            )
        log = loadgen_logs.detail(folder)
        timing = loadgen_logs.timing(folder, by_query=scenario != "Offline")
        if mode == "accuracy":
            score = _score(reference, dataset, task, folder)
            valid, result, unit = not log.errors, score, reference.quality.metric
        else:
            in_bound = bound_ms is None or timing.percentile(rules.percentile) <= bound_ms * 1e6
            valid = log.result("result_validity") == "VALID" and in_bound
            score, result, unit = None, float(log.result(rules.result)) * rules.scale, rules.unit
        done = Run(
            reference=reference.name,
            dtype=dtype,
            scenario=scenario,
            mode=mode,
            round=round,
            valid=valid,
            result=result,
            unit=unit,
            latency_ms=_latency_ms(timing),
            queries=timing.queries,
            samples=timing.samples,
            seconds=timing.seconds,
            accuracy=score,
            logs=str(logs),
            quick=quick,
            gated=gated,
            target_qps=traffic.target_qps,
            bound_ms=bound_ms,
        )
        (folder / "run.json").write_text(to_json(done.document()), encoding="utf-8")
    return done


def _system(
    executor: Executor, dataset: Dataset, task: Task, traffic: Traffic
) -> tuple[SystemUnderTest, SampleLibrary]:
    """The system for a scenario, over a sample library of its own."""
    scenario = traffic.rules.scenario
    if scenario == "SingleStream":  # one sample is stacked as it is loaded: nothing but its batch axis is added
        library = SampleLibrary(dataset.scored, lambda sample: task.feeds(executor, [sample]))
        return DirectSystem(answers(executor, task, library.__getitem__, stacked=True), batch=1), library
    library = SampleLibrary(dataset.scored)
    answer = answers(executor, task, library.__getitem__)
    if scenario == "Server":
        return QueueSystem(answer, traffic.batch, WORKERS), library
    return DirectSystem(answer, traffic.batch, order=lambda index: library[index].shape), library


def _score(reference: Reference, dataset: Dataset, task: Task, folder: Path) -> float:
    """The metric of the responses that LoadGen logged, over every scored sample."""
    responses = loadgen_logs.responses(folder)
    total = len(dataset.scored)
    if sorted(responses) != list(range(total)):
        raise InputError(
            f"LoadGen's accuracy log has answers to {len(responses)} samples of {total}; is the disk full?"
        )
    predictions = [task.from_bytes(responses[index]) for index in range(total)]
    truths = [dataset.scored.truth(index) for index in range(total)]
    return get_metric(reference.quality.metric)(predictions, truths).value


def _latency_ms(timing: loadgen_logs.Timing) -> dict[str, float]:
    percentiles = {str(percentile): timing.percentile(percentile / 100) * 1e-6 for percentile in PERCENTILES}
    return {"mean": float(timing.latencies.mean()) * 1e-6, **percentiles}


@contextmanager
def _in_a_sentence(what: str) -> Iterator[None]:
    """Whatever fails in the runtime, the task or a sample becomes one sentence."""
    try:
        yield
    except QuantbenchError:
        raise
    except Exception as error:  # the runtime's exceptions share no base class
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{what} failed: {type(error).__name__}: {reason}; --debug shows where") from error
