"""What calibration costs: every calibrator of ours beside ONNX Runtime's, over plain inference of the same samples.

    python benchmarks/calibration.py [REFERENCE…] [--peers MinMax,Percentile,Entropy] [--rounds 5] [--json FILE]

From graphs and prepared samples in memory to the range of every tensor that will carry codes, opening the graphs
included; plain inference takes the samples one at a time in an open session. Each row is a process of its own, which
gives its peak memory, and does both in turns: `over inference` is the median of the rounds, `first` what it takes the
first time, with all there is to load. A last row of ours sees the samples ten times over. ONNX Runtime's calibrators
have their default settings and watch what `quantize_static` lets them watch; one whose first time takes more than 20
seconds gets no further round. Works for references with one graph; without any: EfficientNet-Lite0 of ../shared/data
and the PP-OCR three. The peak is read from /proc, so on Linux alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime.quantization.calibrate as peer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from quantization import DEFAULT, Reader, peak_mb

from quantbench.calibration import CALIBRATORS, Observer, get_calibrator
from quantbench.datasets import open_dataset
from quantbench.datasets.base import LazySamples, Samples
from quantbench.datasets.keeping import keep_samples
from quantbench.graphs import SessionExecutor
from quantbench.graphs.load import load_graphs
from quantbench.quantization import Recipe
from quantbench.quantization.planning import integer_placement
from quantbench.references import Reference, load_reference, source_models
from quantbench.tasks import Task, make_task

LONG = 20.0
TIMES = 10
LEVELS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=DEFAULT)
    parser.add_argument("--peers", default="MinMax,Percentile,Entropy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways = [("native", name, 1) for name in CALIBRATORS] + [("native", "mse", TIMES)]
    ways += [("onnxruntime", name, 1) for name in options.peers.split(",") if name]
    print(
        f"{'reference':<20}{'by':<13}{'calibrator':<12}{'samples':>8}{'inference s':>13}{'over inference':>16}"
        f"{'first':>8}{'peak MB':>9}"
    )
    rows = []
    for name in options.references:
        reference = load_reference(name)
        for by, calibrator, times in ways:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(measure, (str(reference.file), by, calibrator, times, options.rounds))
            rows.append(row)
            print(
                f"{row['reference']:<20}{by:<13}{calibrator:<12}{row['samples']:>8}{row['inference_seconds']:>13.2f}"
                f"{row['ratio']:>15.2f}×{row['first']:>7.2f}×{row['peak_mb']:>9.0f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(file: str, by: str, calibrator: str, times: int, rounds: int) -> dict[str, Any]:
    """One row."""
    reference = load_reference(file)
    dataset = open_dataset(reference)
    task = make_task(reference, dataset)
    count = len(dataset.calibration)
    kept = keep_samples(dataset.calibration, count, "reading calibration samples")
    samples = LazySamples(
        list(kept.ids) * times, lambda index: kept.input(index % count), lambda index: kept.truth(index % count)
    )
    models = load_graphs(reference)
    calibrate = ours(models, task, samples, calibrator) if by == "native" else theirs(models, samples, calibrator)
    infer = inference(reference, task, samples)
    inference_seconds, seconds = [infer()], [timed(calibrate)]
    if seconds[0] < LONG:
        for _ in range(rounds):
            inference_seconds.append(infer())
            seconds.append(timed(calibrate))
    ratios = [after / before for before, after in zip(inference_seconds, seconds, strict=True)]
    return {
        "reference": reference.name,
        "by": by,
        "calibrator": calibrator,
        "samples": len(samples),
        "inference_seconds": statistics.median(inference_seconds),
        "ratio": statistics.median(ratios[1:] or ratios),
        "first": ratios[0],
        "peak_mb": peak_mb(),
    }


def ours(models: dict[str, ir.Model], task: Task, samples: Samples, calibrator: str) -> Callable[[], None]:
    tensors = {name: integer_placement(model, Recipe("int8")).tensors for name, model in models.items()}

    def calibrate() -> None:
        seen, *_ = Observer(models, tensors).observe(task, samples, len(samples))
        for observations in seen.values():
            for observation in observations.values():
                get_calibrator(calibrator)(observation, LEVELS)

    return calibrate


def theirs(models: dict[str, ir.Model], samples: Samples, calibrator: str) -> Callable[[], None]:
    (model,) = models.values()
    proto = ir.to_proto(model)
    operators = sorted({*QLinearOpsRegistry, *QDQRegistry})
    method = peer.CalibrationMethod[calibrator]

    def calibrate() -> None:
        with tempfile.TemporaryDirectory() as folder:
            source, augmented = Path(folder) / "model.onnx", Path(folder) / "augmented.onnx"
            onnx.save(proto, source)
            made = peer.create_calibrator(source, operators, str(augmented), method)
            made.collect_data(Reader(samples, proto.graph.input[0].name))
            made.compute_data()

    return calibrate


def inference(reference: Reference, task: Task, samples: Samples) -> Callable[[], float]:
    """What runs the samples through the published graphs, one at a time, and returns the seconds in them."""
    executor = SessionExecutor({name: model.SerializeToString() for name, model in source_models(reference).items()})

    def run(index: int) -> float:
        feeds = task.feeds(executor, [samples.input(index)])
        return timed(lambda: task.infer(executor, feeds))

    run(0)  # sets up memory
    return lambda: sum(run(index) for index in range(len(samples)))


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
