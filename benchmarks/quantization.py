"""INT8 by quantbench beside INT8 by ONNX Runtime's own quantizer: quality, time and memory of converting, speed.

    python benchmarks/quantization.py [REFERENCE…] [--int4] [--samples 400] [--rounds 7] [--json FILE]

ONNX Runtime: quant_pre_process and quantize_static, QDQ, MinMax, per channel, uint8 activations, on the model raised to
opset 17 where it is older, with the same calibration samples. Each conversion runs in a process of its own, which gives
its peak memory; the time is that of the conversion alone. Speed is the median over rounds of the ratio of two runs in
turn over the same prepared batches. `--int4` adds a row for our INT4, opened as `evaluate` opens it. Works for
references with one graph; without any: EfficientNet-Lite0 of ../shared/data and the PP-OCR three. The peak is read from
/proc, so on Linux alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnx.version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from quantbench.datasets import Dataset, open_dataset
from quantbench.datasets.base import Samples
from quantbench.evaluation import evaluate, judge
from quantbench.graphs import Executor, SessionExecutor
from quantbench.quantization import Recipe, convert
from quantbench.quantization.variant import open_graphs
from quantbench.references import Reference, load_reference, source_models
from quantbench.tasks import make_task

SHARED = Path(__file__).parents[2] / "shared" / "data" / "efficientnet_lite0.toml"
DEFAULT = [str(SHARED), "ppocr-cls", "ppocr-det", "ppocr-rec"]
BATCHES = (1, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=DEFAULT)
    parser.add_argument("--int4", action="store_true")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    columns = "".join(f"{f'speed b{batch}':>10}" for batch in BATCHES)
    print(f"{'reference':<20}{'by':<13}{'ratio':>8}{'interval':>18}{'convert s':>11}{'peak MB':>9}{'MB':>7}{columns}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.references:
            for row in measure(load_reference(name), Path(folder), options.int4, options.samples, options.rounds):
                rows.append(row)
                interval = f"{row['ratio_low']:.2%}–{row['ratio_high']:.2%}"
                speeds = "".join(f"{row['speed'][batch]:>9.2f}×" for batch in BATCHES)
                print(
                    f"{row['reference']:<20}{row['by']:<13}{row['ratio']:>8.2%}{interval:>18}{row['seconds']:>11.1f}"
                    f"{row['peak_mb']:>9.0f}{row['megabytes']:>7.2f}{speeds}"
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(reference: Reference, folder: Path, int4: bool, samples: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each of the two quantizers, and maybe one for our INT4."""
    dataset = open_dataset(reference)
    exact = SessionExecutor({"model": source_models(reference)["model"].SerializeToString()})
    baseline = evaluate(reference, exact, dtype="fp32", samples=samples, dataset=dataset)
    makers: dict[str, Callable[[Reference, Path], Path]] = {"quantbench": by_quantbench, "onnxruntime": by_onnxruntime}
    if int4:
        makers["int4"] = partial(by_quantbench, dtype="int4")
    for by, make in makers.items():
        file, seconds, peak = in_a_process(make, reference, folder)
        executor = open_graphs({"model": file})
        score = evaluate(reference, executor, dtype=by, samples=samples, dataset=dataset)
        verdict = judge(reference, baseline, score, variant_sha256="")
        yield {
            "reference": reference.name,
            "by": by,
            "ratio": verdict.ratio,
            "ratio_low": verdict.ratio_low,
            "ratio_high": verdict.ratio_high,
            "seconds": seconds,
            "peak_mb": peak,
            "megabytes": file.stat().st_size / 1e6,
            "speed": {batch: speed(reference, dataset, exact, executor, batch, rounds) for batch in BATCHES},
        }


def in_a_process(make: Any, reference: Reference, folder: Path) -> tuple[Path, float, float]:
    """(file, seconds of the conversion, peak memory of its process in MB)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (make, str(reference.file), folder))


def _measured(make: Any, file: str, folder: Path) -> tuple[Path, float, float]:
    reference = load_reference(file)
    started = time.perf_counter()
    result = make(reference, folder)
    seconds = time.perf_counter() - started
    return result, seconds, peak_mb()


def peak_mb() -> float:
    """The most memory that this process has held."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1e3


def by_quantbench(reference: Reference, folder: Path, dtype: str = "int8") -> Path:
    return convert(reference, Recipe(dtype), out=folder, force=True).path / "model.onnx"


def by_onnxruntime(reference: Reference, folder: Path) -> Path:
    model = source_models(reference)["model"]
    if model.opset_import[0].version < 13:
        model = onnx.version_converter.convert_version(model, 17)
    source, target = folder / f"{reference.name}.onnx", folder / f"{reference.name}.int8.onnx"
    onnx.save(model, source)
    quant_pre_process(source, source, skip_symbolic_shape=True)
    quantize_static(
        source,
        target,
        Reader(open_dataset(reference).calibration, model.graph.input[0].name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return target


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """The calibration samples one by one, as ONNX Runtime asks for them."""

    def __init__(self, samples: Samples, name: str) -> None:
        self._feeds = ({name: samples.input(index)[None]} for index in range(len(samples)))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def speed(reference: Reference, dataset: Dataset, exact: Executor, variant: Executor, batch: int, rounds: int) -> float:
    """FP32's time over the variant's."""
    task = make_task(reference, dataset)
    inputs = [dataset.scored.input(index) for index in range(batch)]
    repeats = max(1, 32 // batch)
    ratios = []
    for _ in range(rounds):
        times = []
        for executor in (exact, variant):
            feeds = task.feeds(executor, inputs)
            task.infer(executor, feeds)
            started = time.perf_counter()
            for _ in range(repeats):
                task.infer(executor, feeds)
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
