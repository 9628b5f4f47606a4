"""What the harness adds to a SingleStream query, beside a bare ONNX Runtime loop over the same prepared samples.

    python benchmarks/scenarios.py [REFERENCE…] [--rounds 3] [--json FILE]

Each round is a quick LoadGen run and a bare loop of the same length, in turn, so that a busy machine slows both alike.
Latencies are the medians of the rounds' medians, in milliseconds; the ratio is the median of the rounds' ratios. The
row `null` is a system that answers without computing: the cost of LoadGen, its Python binding and ours alone, against
a bare call of the same nothing. Without a reference: EfficientNet-Lite0 of ../shared/data, mobilenet-twin, ppocr-cls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quantbench.datasets import open_dataset
from quantbench.datasets.base import Dataset
from quantbench.graphs import Executor, SessionExecutor
from quantbench.references import Reference, load_reference, source_models
from quantbench.scenarios import run
from quantbench.tasks import Task, make_task

DEFAULT = [
    str(Path(__file__).parents[2] / "shared" / "data" / "efficientnet_lite0.toml"),
    "mobilenet-twin",
    "ppocr-cls",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'reference':<20}{'bare loop ms':>14}{'LoadGen ms':>14}{'added us':>10}{'ratio':>8}")
    rows = []
    for name in options.references:
        reference = load_reference(name)
        dataset = open_dataset(reference)
        task = make_task(reference, dataset)
        executor = SessionExecutor({"model": source_models(reference)["model"].SerializeToString()})
        feeds = task.feeds(executor, [dataset.scored.input(0)])[0].feeds
        if not rows:
            rows.append(measure("null", reference, executor, dataset, NullTask(), lambda: None, options.rounds))
            show(rows[-1])
        bare = lambda executor=executor, feeds=feeds: executor.run(feeds)  # noqa: E731
        rows.append(measure(reference.name, reference, executor, dataset, task, bare, options.rounds))
        show(rows[-1])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(
    name: str,
    reference: Reference,
    executor: Executor,
    dataset: Dataset,
    task: Task,
    bare: Callable[[], Any],
    rounds: int,
) -> dict[str, Any]:
    """Median latency in milliseconds of both ways."""
    alone, under_loadgen = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            done = run(
                reference,
                executor,
                dataset,
                task,
                dtype="fp32",
                scenario="SingleStream",
                quick=True,
                logs=Path(folder) / "logs",
            )
        under_loadgen.append(done.latency_ms["50.0"])
        alone.append(median_ms(bare, done.queries))
    ratios = [with_it / without for with_it, without in zip(under_loadgen, alone, strict=True)]
    return {
        "reference": name,
        "bare_ms": statistics.median(alone),
        "loadgen_ms": statistics.median(under_loadgen),
        "ratio": statistics.median(ratios),
    }


def median_ms(call: Callable[[], Any], count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def show(row: dict[str, Any]) -> None:
    added = 1000 * (row["loadgen_ms"] - row["bare_ms"])
    print(f"{row['reference']:<20}{row['bare_ms']:>14.4f}{row['loadgen_ms']:>14.4f}{added:>10.1f}{row['ratio']:>8.3f}")


class NullTask:
    """Answers class 0 without looking."""

    name = "image-classification"

    def feeds(self, executor: Executor, inputs: Sequence[Any]) -> int:
        return len(inputs)

    def infer(self, executor: Executor, feeds: int) -> int:
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
