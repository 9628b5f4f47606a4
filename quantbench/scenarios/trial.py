"""One LoadGen test of an opened variant: what came out, and how it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError, QuantbenchError
from quantbench.graphs.executor import Executor
from quantbench.metrics import get_metric
from quantbench.references import Reference
from quantbench.scenarios import logs as loadgen_logs
from quantbench.scenarios.loadgen import run_test
from quantbench.scenarios.qsl import SampleLibrary
from quantbench.scenarios.record import PERCENTILES, Run
from quantbench.scenarios.sut import DirectSystem, QueueSystem, SystemUnderTest, answers
from quantbench.scenarios.traffic import Traffic
from quantbench.tasks.base import Task

__all__ = ["LINE_FILE", "Setup", "in_a_sentence", "trial"]

LINE_FILE = "result_line.txt"
"""The line of the reference harness, beside LoadGen's logs."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is run, and how: everything that the tests of one run share."""

    reference: Reference
    executor: Executor
    dataset: Dataset
    task: Task
    dtype: str
    mode: str
    quick: bool
    gated: bool

    @property
    def total(self) -> int:
        return len(self.dataset.scored)

    @property
    def in_memory(self) -> int:
        """How many samples performance queries are drawn from."""
        return min(self.total, self.reference.performance_samples)


def trial(setup: Setup, traffic: Traffic, folder: Path, what: str) -> Run:
    """One test by LoadGen; its logs and the line of the reference harness are in `folder` afterwards.

    Args:
        folder: an existing one.
        what: for the progress bar and for errors.

    Raises:
        InputError: the variant fails on a sample.
        MissingError: a sample is missing.
    """
    rules, settings = traffic.rules, traffic.settings()
    system, library = _system(setup, traffic)
    with in_a_sentence(what):
        run_test(
            system,
            library,
            settings,
            folder,
            performance_samples=setup.in_memory,
            expected_seconds=traffic.expected_seconds,
            what=what,
        )
    log = loadgen_logs.detail(folder)
    timing = loadgen_logs.timing(folder, by_query=rules.scenario != "Offline")
    bounded_ms = None if traffic.bound_ms is None else timing.percentile(rules.percentile) * 1e-6
    if setup.mode == "accuracy":
        score = _score(setup, folder)
        valid, result, unit = not log.errors, score, setup.reference.quality.metric
    else:
        in_bound = traffic.bound_ms is None or bounded_ms is None or bounded_ms <= traffic.bound_ms
        valid = log.result("result_validity") == "VALID" and in_bound
        score, result, unit = None, float(log.result(rules.result)) * rules.scale, rules.unit
    done = Run(
        reference=setup.reference.name,
        dtype=setup.dtype,
        scenario=rules.scenario,
        mode=setup.mode,
        round=rules.round,
        valid=valid,
        result=result,
        unit=unit,
        latency_ms=_latency_ms(timing),
        queries=timing.queries,
        samples=timing.samples,
        seconds=timing.seconds,
        accuracy=score,
        logs=str(folder),
        quick=setup.quick,
        gated=setup.gated,
        target_qps=traffic.target_qps,
        samples_per_query=traffic.samples_per_query if rules.scenario == "MultiStream" else 1,
        bound_ms=traffic.bound_ms,
        bounded_ms=bounded_ms,
    )
    (folder / LINE_FILE).write_text(done.line() + "\n", encoding="utf-8")
    return done


def _system(setup: Setup, traffic: Traffic) -> tuple[SystemUnderTest, SampleLibrary]:
    """The system for a scenario, over a sample library of its own."""
    executor, task, dataset, scenario = setup.executor, setup.task, setup.dataset, traffic.rules.scenario
    if scenario == "SingleStream":  # one sample is stacked as it is loaded: nothing but its batch axis is added
        library = SampleLibrary(dataset.scored, lambda sample: task.feeds(executor, [sample]))
        return DirectSystem(answers(executor, task, library.__getitem__, stacked=True), batch=1), library
    library = SampleLibrary(dataset.scored)
    answer = answers(executor, task, library.__getitem__)
    if scenario == "Server":
        return QueueSystem(answer, traffic.batch, traffic.workers), library
    return DirectSystem(answer, traffic.batch, order=lambda index: library[index].shape), library


def _score(setup: Setup, folder: Path) -> float:
    """The metric of the responses that LoadGen logged, over every scored sample."""
    responses = loadgen_logs.responses(folder)
    total, scored = setup.total, setup.dataset.scored
    if sorted(responses) != list(range(total)):
        raise InputError(
            f"LoadGen's accuracy log has answers to {len(responses)} samples of {total}; is the disk full?"
        )
    predictions = [setup.task.from_bytes(responses[index]) for index in range(total)]
    truths = [scored.truth(index) for index in range(total)]
    return get_metric(setup.reference.quality.metric)(predictions, truths).value


def _latency_ms(timing: loadgen_logs.Timing) -> dict[str, float]:
    percentiles = {str(percentile): timing.percentile(percentile / 100) * 1e-6 for percentile in PERCENTILES}
    return {"mean": float(timing.latencies.mean()) * 1e-6, **percentiles}


@contextmanager
def in_a_sentence(what: str) -> Iterator[None]:
    """Whatever fails in the runtime, the task or a sample becomes one sentence."""
    try:
        yield
    except QuantbenchError:
        raise
    except Exception as error:  # the runtime's exceptions share no base class
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{what} failed: {type(error).__name__}: {reason}; --debug shows where") from error
