"""Rounding of all 2^32 float32 inputs against oracles that were written independently of it.

    python benchmarks/rounding_exact.py [FORMAT…] [--every 1] [--json FILE]

The first oracle is a table: the format's values (by ml_dtypes or numpy; for FP11 by exact fractions from its
definition) and, in exact arithmetic, the float32 from which on each of them is the nearest, or the next toward zero.
The second, to nearest even, is the conversion of ml_dtypes or numpy itself, on a 64th of the inputs. `--every N` takes
one run of 2^22 consecutive inputs of N. The exit status is 1 when a single input differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from quantbench.numerics import round_inplace

CHUNK = 1 << 22
INFINITY = 0x7F800000
NAN = 0x7FC00000
STRIDE = 64

DTYPES: dict[str, Any] = {
    "bfloat16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "fp8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}

Patterns = NDArray[np.uint32]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=["fp11", *DTYPES])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'format':<14}{'rounding':<14}{'inputs':>14}{'differ':>8}{'converted':>12}{'differ':>8}{'seconds':>9}")
    rows = []
    for name in options.formats:
        for rounding in ("nearest-even", "toward-zero"):
            row = compare(name, rounding, options.every)
            rows.append(row)
            print(
                f"{name:<14}{rounding:<14}{row['inputs']:>14,}{row['differ']:>8}{row['converted']:>12,}"
                f"{row['converted_differ']:>8}{row['seconds']:>9.1f}"
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(row["differ"] or row["converted_differ"] for row in rows))


def compare(name: str, rounding: str, every: int) -> dict[str, Any]:
    """Count the inputs whose rounding differs from the oracles'."""
    starts, results = steps(name, rounding)
    dtype = DTYPES.get(name) if rounding == "nearest-even" else None
    row = {"format": name, "rounding": rounding, "inputs": 0, "differ": 0, "converted": 0, "converted_differ": 0}
    begin = time.perf_counter()
    for number, first in enumerate(range(0, 2**32, CHUNK)):
        if number % every:
            continue
        inputs = np.arange(first, first + CHUNK, dtype=np.uint64).astype(np.uint32)
        ours = inputs.copy()
        round_inplace(ours.view(np.float32), name, rounding=rounding)  # type: ignore[arg-type]
        sign = first & 0x80000000
        expected = expand(starts, results, first - sign) | np.uint32(sign)
        row["inputs"] += CHUNK
        row["differ"] += different(ours, expected)
        if dtype is not None:
            part = slice(number % STRIDE, None, STRIDE)
            with np.errstate(all="ignore"):
                converted = inputs[part].view(np.float32).astype(dtype).astype(np.float32)
            row["converted"] += converted.size
            row["converted_differ"] += different(ours[part], converted.view(np.uint32))
    return {**row, "seconds": time.perf_counter() - begin}


def different(ours: Patterns, theirs: Patterns) -> int:
    """How many differ to the bit, but for the sign and payload of NaN."""
    unequal = np.flatnonzero(ours != theirs)
    magnitudes = np.uint32(0x7FFFFFFF)
    both_nan = ((ours[unequal] & magnitudes) > INFINITY) & ((theirs[unequal] & magnitudes) > INFINITY)
    return int(unequal.size - both_nan.sum())


def expand(starts: NDArray[np.int64], results: Patterns, first: int) -> Patterns:
    """The results of the CHUNK consecutive positive patterns from `first`."""
    low = int(np.searchsorted(starts, first, "right")) - 1
    high = int(np.searchsorted(starts, first + CHUNK - 1, "right"))
    edges = np.concatenate([[first], starts[low + 1 : high], [first + CHUNK]])
    return np.repeat(results[low:high], np.diff(edges))


def steps(name: str, rounding: str) -> tuple[NDArray[np.int64], Patterns]:
    """Rounding of positive values as a staircase: from pattern starts[i] on, the result is results[i]."""
    values, has_infinity = positive_values(name)
    overflow = INFINITY if has_infinity else NAN
    beyond = 2 * values[-1] - values[-2]
    starts = [0]
    for index, (low, high) in enumerate(zip(values, [*values[1:], beyond], strict=True), start=1):
        if rounding == "toward-zero":
            starts.append(pattern(high) if index < len(values) else INFINITY)
        else:
            # the tie belongs to the even code; the values stand in the order of their codes, from 0
            starts.append(pattern((low + high) / 2) + index % 2)
    starts += [INFINITY, INFINITY + 1]
    results = [*map(pattern, values), overflow, overflow, NAN]
    return np.array(starts, np.int64), np.array(results, np.uint32)


def positive_values(name: str) -> tuple[list[Fraction], bool]:
    """Zero and the positive finite values in the order of their codes, and whether infinity follows."""
    if name == "fp11":  # 1-5-5, bias 15, subnormals, infinity and NaN in the top exponent
        fields = [divmod(code, 32) for code in range(31 * 32)]
        small = Fraction(1, 2**14)
        return [
            Fraction(fraction, 32) * small if field == 0 else (1 + Fraction(fraction, 32)) * Fraction(2) ** (field - 15)
            for field, fraction in fields
        ], True
    dtype = np.dtype(DTYPES[name])
    codes = np.arange(2 ** (8 * dtype.itemsize - 1), dtype=np.uint16 if dtype.itemsize == 2 else np.uint8)
    with np.errstate(invalid="ignore"):  # signalling NaN among the codes
        values = codes.view(dtype).astype(np.float64)
    return [Fraction(value) for value in values[np.isfinite(values)]], bool(np.isinf(values).any())


def pattern(value: Fraction) -> int:
    """The float32 pattern of a value that float32 holds."""
    single = np.float32(float(value))
    assert Fraction(float(single)) == value
    return int(single.view(np.uint32))


if __name__ == "__main__":
    sys.exit(main())
