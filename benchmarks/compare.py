"""INT8 by quantbench beside that of every installed peer, by its defaults and with scales per channel.

    python benchmarks/compare.py [REFERENCE…] [--dtype int8] [--samples 400] [--json FILE]

Without a reference: EfficientNet-Lite0 of ../shared/data and the embedded four. Peers are onnxruntime, which is always
there, and nncf and neural-compressor where they are installed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from quantbench.operations.comparisons import Comparison, compare
from quantbench.references import builtin_references

SHARED = Path(__file__).parents[2] / "shared" / "data" / "efficientnet_lite0.toml"


def main() -> None:
    embedded = [reference.name for reference in builtin_references() if reference.suite == "embedded"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=[str(SHARED), *embedded])
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(
        f"{'reference':<20}{'scales':<10}{'backend':<19}{'ratio':>8}{'interval':>18}{'speed':>8}{'MB':>7}{'seconds':>9}"
        f"{'peak MB':>9}"
    )
    rows = []
    for name in options.references:
        for granularity in (None, "channel"):
            for row in compare(name, options.dtype, samples=options.samples, granularity=granularity):
                rows.append({"granularity": granularity, **row.document()})
                print(f"{row.reference:<20}{granularity or 'default':<10}{row.backend:<19}{_cells(row)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _cells(row: Comparison) -> str:
    if row.error is not None or row.ratio is None:
        return f"  {row.error}"
    interval = f"{row.ratio_low:.2%}–{row.ratio_high:.2%}"
    return (
        f"{row.ratio:>8.2%}{interval:>18}{row.speedup:>7.2f}×{row.model_bytes / 1e6:>7.2f}{row.seconds:>9.1f}"
        f"{row.peak_bytes / 1e6:>9.0f}"
    )


if __name__ == "__main__":
    main()
