"""What the harness adds to a SingleStream query: LoadGen, its Python binding and ours, around ONNX Runtime's own call.

    python benchmarks/scenarios.py [REFERENCE…] [--rounds 3] [--json FILE]

Each round is a quick LoadGen run and a bare ONNX Runtime loop over the same prepared samples, of the same length, in
turn. On a machine that other things run on these two differ by tens of percent either way, so what is added is measured
within the run: a query's latency, as LoadGen has it, less the time inside the runtime's call, both as means over the
queries of all rounds. The row `null` is a system that answers without computing. Latencies are in milliseconds. Without
a reference: EfficientNet-Lite0 of ../shared/data, mobilenet-twin, ppocr-cls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantbench.datasets import open_dataset
from quantbench.datasets.base import Dataset
from quantbench.datasets.keeping import keep_samples
from quantbench.graphs import Executor, SessionExecutor
from quantbench.graphs.executor import PassingExecutor
from quantbench.references import Reference, load_reference, source_models
from quantbench.scenarios import run
from quantbench.tasks import Task, make_task

DEFAULT = [
    str(Path(__file__).parents[2] / "shared" / "data" / "efficientnet_lite0.toml"),
    "mobilenet-twin",
    "ppocr-cls",
]
SAMPLES = 16
"""Of each reference; the latency of a query does not depend on which it is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'reference':<20}{'bare loop ms':>14}{'LoadGen ms':>12}{'inside ms':>11}{'added us':>10}{'ratio':>8}")
    rows: list[dict[str, Any]] = []
    for name in options.references:
        reference = load_reference(name)
        dataset = _in_memory(open_dataset(reference))
        task = make_task(reference, dataset)
        executor = SessionExecutor({"model": source_models(reference)["model"].SerializeToString()})
        if not rows:
            rows.append(measure("null", reference, NullExecutor(executor), dataset, NullTask(), options.rounds))
            show(rows[-1])
        rows.append(measure(reference.name, reference, executor, dataset, task, options.rounds))
        show(rows[-1])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _in_memory(dataset: Dataset) -> Dataset:
    """The first samples, prepared once for all runs: drawing them takes longer than the runs."""
    kept = keep_samples(dataset.scored, min(SAMPLES, len(dataset.scored)), "preparing samples")
    return replace(dataset, scored=kept)


def measure(
    name: str, reference: Reference, executor: Executor, dataset: Dataset, task: Task, rounds: int
) -> dict[str, Any]:
    """Mean latencies in milliseconds: of a bare loop, under LoadGen, and of the runtime's call under LoadGen."""
    timed = TimedExecutor(executor)
    feeds = [task.feeds(executor, [dataset.scored.input(index)]) for index in range(len(dataset.scored))]
    alone: list[float] = []
    under_loadgen: list[float] = []
    inside: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            done = run(
                reference,
                timed,
                dataset,
                task,
                dtype="fp32",
                scenario="SingleStream",
                quick=True,
                logs=Path(folder) / "logs",
            )
        under_loadgen += [done.latency_ms["mean"]] * done.queries
        inside += timed.seconds[-done.queries :]  # those before were to find out how fast it is
        timed.seconds.clear()
        for number in range(done.queries):
            task.infer(timed, feeds[number % len(feeds)])
        alone += timed.seconds
        timed.seconds.clear()
    latency, within = statistics.fmean(under_loadgen), 1000 * statistics.fmean(inside)
    return {
        "reference": name,
        "bare_ms": 1000 * statistics.fmean(alone),
        "loadgen_ms": latency,
        "inside_ms": within,
        "ratio": latency / within,
    }


def show(row: dict[str, Any]) -> None:
    added = 1000 * (row["loadgen_ms"] - row["inside_ms"])
    print(
        f"{row['reference']:<20}{row['bare_ms']:>14.4f}{row['loadgen_ms']:>12.4f}{row['inside_ms']:>11.4f}"
        f"{added:>10.1f}{row['ratio']:>8.4f}",
        flush=True,
    )


class TimedExecutor(PassingExecutor):
    """Notes how long each run takes."""

    def __init__(self, executor: Executor) -> None:
        super().__init__(executor)
        self.seconds: list[float] = []

    def run(self, feeds: Mapping[str, Any], graph: str = "model") -> Sequence[Any]:
        started = time.perf_counter()
        try:
            return super().run(feeds, graph)
        finally:
            self.seconds.append(time.perf_counter() - started)


class NullExecutor(TimedExecutor):
    """Computes nothing."""

    def run(self, feeds: Mapping[str, Any], graph: str = "model") -> Sequence[Any]:
        return ()


class NullTask:
    """Answers class 0 without looking."""

    name = "image-classification"

    def feeds(self, executor: Executor, inputs: Sequence[Any]) -> int:
        return len(inputs)

    def infer(self, executor: Executor, feeds: int) -> int:
        executor.run({})
        return feeds

    def predictions(self, raw: int) -> list[int]:
        return [0] * raw

    def classes(self, raw: int) -> int | None:
        return None

    def to_bytes(self, prediction: int, index: int) -> bytes:
        return b"\0\0\0\0"

    def from_bytes(self, data: bytes) -> int:
        return 0


if __name__ == "__main__":
    main()
