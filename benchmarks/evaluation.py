"""What scoring costs beside a bare ONNX Runtime loop over the same prepared batches.

    python benchmarks/evaluation.py [REFERENCE…] [--samples 128] [--batch 16] [--rounds 7] [--json FILE]

Both run the FP32 graph of references with one graph, in turn, so that a busy machine slows both alike; samples a second
are medians over the rounds, the ratio is the median of the rounds' ratios. Without a reference: EfficientNet-Lite0 of
../shared/data and ppocr-cls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort

from quantbench.datasets import open_dataset
from quantbench.evaluation import evaluate
from quantbench.graphs import SessionExecutor
from quantbench.references import Reference, load_reference, source_models
from quantbench.tasks import make_task

DEFAULT = [str(Path(__file__).parents[2] / "shared" / "data" / "efficientnet_lite0.toml"), "ppocr-cls"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=DEFAULT)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'reference':<20}{'bare loop /s':>14}{'evaluate /s':>14}{'ratio':>8}")
    rows = []
    for name in options.references:
        row = measure(load_reference(name), options.samples, options.batch, options.rounds)
        rows.append(row)
        print(f"{row['reference']:<20}{row['bare']:>14.1f}{row['evaluate']:>14.1f}{row['ratio']:>8.1%}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(reference: Reference, samples: int, batch: int, rounds: int) -> dict[str, Any]:
    """Samples a second of both ways."""
    dataset = open_dataset(reference)
    model = source_models(reference)["model"].SerializeToString()
    executor = SessionExecutor({"model": model})
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    samples = min(samples, len(dataset.scored))
    inputs = [dataset.scored.input(index) for index in range(samples)]
    task = make_task(reference, dataset)
    batches = [task.feeds(executor, inputs[start : start + batch])[0].feeds for start in range(0, samples, batch)]
    bare, scored = [], []
    for _ in range(rounds):
        session.run(None, batches[0])  # evaluate warms its session up too
        begun = time.perf_counter()
        for feeds in batches:
            session.run(None, feeds)
        bare.append(samples / (time.perf_counter() - begun))
        score = evaluate(reference, executor, dtype="fp32", samples=samples, batch=batch, dataset=dataset)
        scored.append(score.samples_per_second)
    ratios = [ours / theirs for ours, theirs in zip(scored, bare, strict=True)]
    return {
        "reference": reference.name,
        "samples": samples,
        "batch": batch,
        "bare": statistics.median(bare),
        "evaluate": statistics.median(scored),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


if __name__ == "__main__":
    main()
