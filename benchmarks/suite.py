"""Every twin in every number format, all the way: convert, evaluate, gate, and a quick run of each scenario.

    python benchmarks/suite.py [--references R…] [--dtypes D…] [--samples N] [--calibration-samples N] [--json FILE]

One row for each twin and dtype: the verdict with its ratio to FP32's own score, the speed against FP32 in turns (of the
emulation, where the format has no hardware here), seconds and peak memory of the conversion, which has a process of its
own, and what LoadGen says of a quick run of each scenario. Where the gate fails the runs are made all the same, as
`--ungated` ones, and marked with a star. A failure is a row, too. Quick runs are no results: they say that it works.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantbench import evaluation
from quantbench.datasets.keeping import keep_samples
from quantbench.errors import QuantbenchError
from quantbench.operations.apart import convert_apart
from quantbench.operations.runs import run_scenarios
from quantbench.operations.scores import Bench, open_bench, score
from quantbench.operations.verdicts import judge
from quantbench.quantization import open_variant
from quantbench.references import Reference, builtin_references, load_reference
from quantbench.tasks import make_task

DTYPES = ["int8", "int4", "fp16", "bfloat16", "fp11"]
SCENARIOS = ["SingleStream", "MultiStream", "Server", "Offline"]


def main() -> None:
    twins = [reference.name for reference in builtin_references() if reference.suite == "twin"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", nargs="+", default=twins)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--samples", type=int, help="score only the first so many")
    parser.add_argument("--calibration-samples", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(
        f"{'reference':<19}{'dtype':<9}{'verdict':>8}{'ratio':>9}{'speed':>8}{'convert s':>10}{'peak MB':>9}  "
        + "".join(f"{name:<14}" for name in SCENARIOS)
        + f"{'all s':>7}"
    )
    rows: list[dict[str, Any]] = []
    for name in options.references:
        reference = load_reference(name)
        with tempfile.TemporaryDirectory() as folder:
            bench = _in_memory(open_bench(reference, Path(folder)), options.samples)
            baseline = score(bench, "fp32")
            for dtype in options.dtypes:
                started = time.perf_counter()
                row = {"reference": name, "dtype": dtype}
                try:
                    row |= measure(reference, bench, baseline, dtype, options.calibration_samples)
                except QuantbenchError as error:
                    row |= {"error": str(error)}
                row["all_seconds"] = time.perf_counter() - started
                rows.append(row)
                print(_line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(
    reference: Reference, bench: Bench, baseline: evaluation.Score, dtype: str, calibration_samples: int | None
) -> dict[str, Any]:
    """Everything that a row says of one variant."""
    asked = {"dtype": dtype, "backend": "native", "calibration_samples": calibration_samples}
    cost = convert_apart(reference, asked, bench.out)
    verdict = judge(bench, baseline, score(bench, dtype))
    exact, variant = (open_variant(reference, each, bench.out) for each in ("fp32", dtype))
    speed = evaluation.speedup(make_task(reference, bench.dataset), bench.dataset, exact, variant, rounds=3)
    passes = verdict.verdict == "pass"
    logs = bench.out / "runs"
    runs = run_scenarios(
        bench, dtype, SCENARIOS, mode="performance", round="current", quick=True, gated=passes, logs=logs
    )
    return {
        "verdict": verdict.verdict,
        "ratio": verdict.ratio,
        "ratio_low": verdict.ratio_low,
        "ratio_high": verdict.ratio_high,
        "samples": baseline.samples,
        "speed": speed,
        "seconds": cost.seconds,
        "calibration_seconds": cost.calibration_seconds,
        "peak_bytes": cost.peak_bytes,
        "model_bytes": cost.model_bytes,
        "gated": passes,
        "runs": {done.scenario: {"valid": done.valid, "result": done.result, "unit": done.unit} for done in runs},
    }


def _in_memory(bench: Bench, samples: int | None) -> Bench:
    """The same, with its scored samples drawn once for all that is done with them."""
    count = len(bench.dataset.scored) if samples is None else min(samples, len(bench.dataset.scored))
    kept = keep_samples(bench.dataset.scored, count, "drawing samples")
    return replace(bench, dataset=replace(bench.dataset, scored=kept))


def _line(row: dict[str, Any]) -> str:
    start = f"{row['reference']:<19}{row['dtype']:<9}"
    if "error" in row:
        return f"{start}  {row['error']}"
    runs = "".join(
        f"{('valid' if run['valid'] else 'INVALID') + ('' if row['gated'] else ' *'):<14}"
        for run in row["runs"].values()
    )
    return (
        f"{start}{row['verdict']:>8}{row['ratio']:>9.2%}{row['speed']:>7.2f}×{row['seconds']:>10.1f}"
        f"{row['peak_bytes'] / 1e6:>9.0f}  {runs}{row['all_seconds']:>7.0f}"
    )


if __name__ == "__main__":
    main()
