"""What a study of many formats costs beside as many FP32 evaluations, in the same run.

    python benchmarks/study.py [REFERENCE…] [--formats 30] [--samples 500] [--json FILE]

An FP32 evaluation is measured before the study and after it, each time without a study's help: `evaluate` opens the
data and prepares every sample, as a user of the command waits for it. The study is timed whole, with its heat map and
page. Both its shares are printed: of the evaluations' inference alone, which is the strict one, and of all they take.
The last column is the same study asked for again. Without a reference: ppocr-cls.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice, product
from pathlib import Path
from typing import Any

import quantbench
from quantbench.references import load_reference

HEADINGS = ("reference", "formats", "samples", "fp32 s", "whole s", "study s", "of fp32", "of whole", "again s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=["ppocr-cls"])
    parser.add_argument("--formats", type=int, default=30)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{HEADINGS[0]:<20}" + "".join(f"{heading:>10}" for heading in HEADINGS[1:]))
    rows = []
    for name in options.references:
        row = measure(name, options.formats, options.samples)
        rows.append(row)
        print(
            f"{row['reference']:<20}{row['formats']:>10}{row['samples']:>10}{row['fp32_seconds']:>10.2f}"
            f"{row['fp32_total_seconds']:>10.2f}{row['study_seconds']:>10.1f}{row['of_inference']:>9.2f}×"
            f"{row['of_total']:>9.2f}×{row['again_seconds']:>10.2f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(name: str, count: int, samples: int) -> dict[str, Any]:
    """One row: an FP32 evaluation, the study of `count` formats, and the study again."""
    reference = load_reference(name)
    shapes = ((exponent, mantissa) for mantissa, exponent in product(range(2, 24), range(3, 8)))
    formats = [f"e{exponent}m{mantissa}" for exponent, mantissa in islice(shapes, count)]
    quantbench.evaluate(reference, samples=1)  # fetched, rendered and imported, which neither side pays for
    before = quantbench.evaluate(reference, samples=samples)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        cells = quantbench.study(reference, formats, samples=samples, out=folder)
        studied = time.perf_counter()
        quantbench.study(reference, formats, samples=samples, out=folder)
        again = time.perf_counter()
    after = quantbench.evaluate(reference, samples=samples)
    inference = (before.seconds + after.seconds) / 2
    total = (before.total_seconds + after.total_seconds) / 2
    return {
        "reference": reference.name,
        "formats": len(cells),
        "samples": before.samples,
        "fp32_seconds": inference,
        "fp32_total_seconds": total,
        "study_seconds": studied - begun,
        "again_seconds": again - studied,
        "of_inference": (studied - begun) / (len(cells) * inference),
        "of_total": (studied - begun) / (len(cells) * total),
    }


if __name__ == "__main__":
    main()
