"""What each transform, method of rounding and calibrator does to quality: alone, and all together.

    python benchmarks/transforms.py [REFERENCE…] [--samples N] [--only TEXT] [--json FILE]

A row is one conversion: its score as a share of FP32's on the same scored samples, with the paired 95% interval, the
share of answers on the scored samples that stay those of FP32, and the seconds it took to convert. Without a reference:
EfficientNet-Lite0 of ../shared/data, g2p-gru and ppocr-cls. `docs/quantization.md` has the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from quantbench.evaluation import evaluate, judge
from quantbench.graphs.load import load_graphs
from quantbench.quantization import Recipe, convert, open_variant
from quantbench.quantization.agreement import Agreement
from quantbench.references import Reference, load_reference
from quantbench.tasks import make_task, open_with_truths

SHARED = Path(__file__).parents[2] / "shared" / "data" / "efficientnet_lite0.toml"
DEFAULT = [str(SHARED), "g2p-gru", "ppocr-cls"]

TENSOR = {"dtype": "int8", "granularity": "tensor"}
OFF: dict[str, Any] = {"equalization": False, "bias_correction": False, "output_error": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "int8 per tensor, nothing": TENSOR | OFF,
    "int8 per tensor, equalization": TENSOR | OFF | {"equalization": True},
    "int8 per tensor, bias correction": TENSOR | OFF | {"bias_correction": True},
    "int8 per tensor, weight range mse": TENSOR | OFF | {"weight_range": "mse"},
    "int8 per tensor, search": TENSOR | OFF | {"output_error": None},
    "int8 per tensor, default": TENSOR,
    "int8 per channel, nothing": {"dtype": "int8"} | OFF,
    "int8 per channel, equalization": {"dtype": "int8"} | OFF | {"equalization": True},
    "int8 per channel, bias correction": {"dtype": "int8"} | OFF | {"bias_correction": True},
    "int8 per channel, search": {"dtype": "int8"} | OFF | {"output_error": None},
    "int8 per channel, default": {"dtype": "int8"},
    "int8 per channel, minmax": {"dtype": "int8", "calibrator": "minmax"},
    "int8 per channel, percentile": {"dtype": "int8", "calibrator": "percentile"},
    "int8 per channel, entropy": {"dtype": "int8", "calibrator": "entropy"},
    "int4 per channel, nearest": {"dtype": "int4", "rounding": "nearest", "bias_correction": False},
    "int4 per channel, nearest, bias correction": {"dtype": "int4", "rounding": "nearest"},
    "int4 per channel, nearest, bias, range mse": {"dtype": "int4", "rounding": "nearest", "weight_range": "mse"},
    "int4 per channel, gptq": {"dtype": "int4", "bias_correction": False},
    "int4 per channel, default (gptq, bias)": {"dtype": "int4"},
    "int4 per channel, adaround, bias": {"dtype": "int4", "rounding": "adaround"},
    "int4 per channel, gptq, bias, equalization": {"dtype": "int4", "equalization": True},
    "int4 blocks of 32, default (gptq, bias)": {"dtype": "int4", "granularity": "block:32"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=DEFAULT)
    parser.add_argument("--samples", type=int, help="Score only the first N. Default: all.")
    parser.add_argument("--only", default="", help="Only recipes whose name holds this text.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'reference':<20}{'recipe':<45}{'ratio':>8}{'interval':>18}{'same':>8}{'seconds':>9}")
    rows = []
    for name in options.references:
        for row in measure(load_reference(name), options.samples, options.only):
            rows.append(row)
            interval = f"{row['ratio_low']:.2%}–{row['ratio_high']:.2%}"
            same = "–" if row["same"] is None else f"{row['same']:.1%}"
            print(
                f"{row['reference']:<20}{row['recipe']:<45}{row['ratio']:>8.2%}{interval:>18}{same:>8}"
                f"{row['seconds']:>9.1f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(reference: Reference, samples: int | None, only: str) -> Iterator[dict[str, Any]]:
    """A row for each recipe."""
    dataset = open_with_truths(reference)
    task = make_task(reference, dataset)
    count = min(samples or len(dataset.scored), len(dataset.scored))
    agreement = Agreement(load_graphs(reference), task, dataset.scored, count)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        exact = evaluate(reference, open_variant(reference, "fp32", out), dtype="fp32", samples=count, dataset=dataset)
        for label, recipe in RECIPES.items():
            if only not in label:
                continue
            made = convert(reference, Recipe(**recipe), out=out, force=True)
            variant = open_variant(reference, made.dtype, out)
            score = evaluate(reference, variant, dtype=made.dtype, samples=count, dataset=dataset)
            verdict = judge(reference, exact, score, variant_sha256="")
            graphs = {file.stem: ir.load(file) for file in sorted(made.path.glob("*.onnx"))}
            yield {
                "reference": reference.name,
                "recipe": label,
                "ratio": verdict.ratio,
                "ratio_low": verdict.ratio_low,
                "ratio_high": verdict.ratio_high,
                "same": 1 - agreement.changed(graphs) if agreement.tells else None,
                "seconds": made.seconds,
            }


if __name__ == "__main__":
    main()
