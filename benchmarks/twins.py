"""The twins beside ONNX Runtime's own quantizer: agreement with FP32, speed, and what a conversion costs.

    python benchmarks/twins.py [REFERENCE…] [--dtype int8] [--samples N] [--json FILE]

One row for each twin and quantizer, both with scales per channel, on the same calibration samples. Agreement is the
ratio to FP32's own score, with its paired 95% interval; speed is against FP32 in turns, at the batch that `evaluate`
takes. Seconds and peak memory are those of the conversion, in a process of its own, without starting Python; `observe`
is what our calibration takes over plain FP32 inference of the same samples, both one at a time. With another dtype than
an integer there is no peer, and speed is that of the emulation. Without a reference: all twins.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from quantbench.datasets import open_dataset
from quantbench.graphs import SessionExecutor
from quantbench.numerics import get_format
from quantbench.operations.comparisons import Comparison, compare
from quantbench.references import Reference, builtin_references, load_reference, source_models
from quantbench.tasks import make_task


def main() -> None:
    twins = [reference.name for reference in builtin_references() if reference.suite == "twin"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=twins)
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    backends = ["native", "onnxruntime"] if get_format(options.dtype).kind == "int" else ["native"]
    granularity = "channel" if len(backends) > 1 else None
    print(
        f"{'reference':<20}{'by':<13}{'agreement':>10}{'interval':>18}{'speed':>8}{'MB':>8}{'seconds':>9}{'peak MB':>9}"
        f"{'observe':>9}"
    )
    rows: list[dict[str, Any]] = []
    for name in options.references:
        reference = load_reference(name)
        for row in compare(reference, options.dtype, backends, samples=options.samples, granularity=granularity):
            observe = None
            if row.calibration_seconds:
                observe = row.calibration_seconds / inference_seconds(reference)
            rows.append({**row.document(), "observe": observe})
            print(f"{row.reference:<20}{row.backend:<13}{_cells(row, observe)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def inference_seconds(reference: Reference) -> float:
    """What the published FP32 graphs take for all calibration samples, one at a time, prepared before."""
    executor = SessionExecutor({name: model.SerializeToString() for name, model in source_models(reference).items()})
    dataset = open_dataset(reference)
    task = make_task(reference, dataset)
    seconds = 0.0
    for index in range(len(dataset.calibration)):
        feeds = task.feeds(executor, [dataset.calibration.input(index)])
        if index == 0:
            task.infer(executor, feeds)  # the first call sets up memory
        started = time.perf_counter()
        task.infer(executor, feeds)
        seconds += time.perf_counter() - started
    return seconds


def _cells(row: Comparison, observe: float | None) -> str:
    if row.error is not None or row.ratio is None:
        return f"  {row.error}"
    interval = f"{row.ratio_low:.2%}–{row.ratio_high:.2%}"
    return (
        f"{row.ratio:>10.2%}{interval:>18}{row.speedup:>7.2f}×{row.model_bytes / 1e6:>8.2f}{row.seconds:>9.1f}"
        f"{row.peak_bytes / 1e6:>9.0f}" + ("" if observe is None else f"{observe:>8.2f}×")
    )


if __name__ == "__main__":
    main()
