"""What scoring costs: beside a bare ONNX Runtime loop over the same prepared batches, and of an emulated variant.

    python benchmarks/evaluation.py [REFERENCE…] [--dtype fp11] [--batches 1,8,32] [--samples 128] [--rounds 7]
                                    [--json FILE]

Samples a second of the FP32 graph in a bare loop (references with one graph) and as `evaluate` scores it, and of the
emulated variant as `evaluate` scores it: all in turn, so that a busy machine slows them alike. They are medians over
the rounds, and so are the ratios of a round. `of fp32` is the emulated variant's inference time over FP32's; peak
memory is that of a process of its own that does nothing but score. Without a reference: EfficientNet-Lite0 of
../shared/data and the embedded references that the bars name.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort
from staging import peak_in_process

import quantbench
from quantbench.datasets import Dataset
from quantbench.evaluation import evaluate
from quantbench.quantization import open_variant
from quantbench.references import Reference, load_reference, source_models
from quantbench.tasks import make_task, open_with_truths

DEFAULT = [
    str(Path(__file__).parents[2] / "shared" / "data" / "efficientnet_lite0.toml"),
    "ppocr-cls",
    "ppocr-rec",
    "g2p-gru",
]
HEADINGS = ("batch", "bare /s", "fp32 /s", "of bare", "emulated", "of fp32", "fp32 MB", "emul. MB", "of fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=DEFAULT)
    parser.add_argument("--dtype", default="fp11")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'reference':<20}" + "".join(f"{heading:>10}" for heading in HEADINGS))
    rows = []
    with tempfile.TemporaryDirectory() as variants:
        for name in options.references:
            reference = load_reference(name)
            quantbench.convert(reference, options.dtype, out=variants)
            for batch in map(int, options.batches.split(",")):
                row = measure(reference, options.dtype, options.samples, batch, options.rounds, Path(variants))
                peaks = [
                    peak_in_process(evaluated, name, dtype, options.samples, batch, variants)
                    for dtype in ("fp32", options.dtype)
                ]
                rows.append({**row, "fp32_peak_mb": peaks[0], "emulated_peak_mb": peaks[1]})
                show(rows[-1])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def show(row: dict[str, Any]) -> None:
    bare = f"{row['bare']:>10.1f}" if row["bare"] else f"{'–':>10}"
    of_bare = f"{row['of_bare']:>10.1%}" if row["bare"] else f"{'–':>10}"
    print(
        f"{row['reference']:<20}{row['batch']:>10}{bare}{row['fp32']:>10.1f}{of_bare}{row['emulated']:>10.1f}"
        f"{row['emulated_time']:>9.2f}×{row['fp32_peak_mb']:>10.0f}{row['emulated_peak_mb']:>10.0f}"
        f"{row['emulated_peak_mb'] / row['fp32_peak_mb']:>9.2f}×",
        flush=True,
    )


def measure(reference: Reference, dtype: str, samples: int, batch: int, rounds: int, variants: Path) -> dict[str, Any]:
    """Samples a second of the three ways, and their ratios."""
    dataset = open_with_truths(reference)
    samples = min(samples, len(dataset.scored))
    executors = {name: open_variant(reference, name, variants, scoring=True) for name in ("fp32", dtype)}
    loop = bare_loop(reference, dataset, samples, batch)
    rates: dict[str, list[float]] = {"bare": [], "fp32": [], "emulated": []}
    for _ in range(rounds):
        if loop is not None:
            rates["bare"].append(samples / loop())
        for way, name in (("fp32", "fp32"), ("emulated", dtype)):
            score = evaluate(reference, executors[name], dtype=name, samples=samples, batch=batch, dataset=dataset)
            rates[way].append(score.samples_per_second)
    return {
        "reference": reference.name,
        "dtype": dtype,
        "samples": samples,
        "batch": batch,
        "bare": statistics.median(rates["bare"]) if loop else None,
        "fp32": statistics.median(rates["fp32"]),
        "emulated": statistics.median(rates["emulated"]),
        "of_bare": statistics.median(map(_over, rates["fp32"], rates["bare"])) if loop else None,
        "emulated_time": statistics.median(map(_over, rates["fp32"], rates["emulated"])),
        "rates": rates,
    }


def bare_loop(reference: Reference, dataset: Dataset, samples: int, batch: int) -> Any:
    """A call that runs every batch in plain ONNX Runtime and returns the seconds; None with several graphs."""
    models = source_models(reference)
    if list(models) != ["model"]:
        return None
    session = ort.InferenceSession(models["model"].SerializeToString(), providers=["CPUExecutionProvider"])
    task = make_task(reference, dataset)
    executor = open_variant(reference, "fp32", Path())
    inputs = [dataset.scored.input(index) for index in range(samples)]
    batches = [
        group.feeds
        for start in range(0, samples, batch)
        for group in task.feeds(executor, inputs[start : start + batch])
    ]

    def loop() -> float:
        session.run(None, batches[0])  # evaluate warms its session up too
        begun = time.perf_counter()
        for feeds in batches:
            session.run(None, feeds)
        return time.perf_counter() - begun

    return loop


def evaluated(name: str, dtype: str, samples: int, batch: int, variants: str) -> None:
    """What the peak is measured of."""
    quantbench.evaluate(name, dtype, samples=samples, batch=batch, out=variants)


def _over(one: float, other: float) -> float:
    return one / other


if __name__ == "__main__":
    main()
