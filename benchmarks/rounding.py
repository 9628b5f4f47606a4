"""How fast rounding is, beside memcpy and beside what ml_dtypes and numpy do, on one core and on two.

    python benchmarks/rounding.py [FORMAT…] [--values 10000000] [--rounds 9] [--json FILE]

GB/s are bytes of the array over the time of one pass, the best of the rounds; memcpy, one thread and two threads take
turns, so that a busy machine slows them alike. Rounding is in place; the peers' `x.astype(T).astype(float32)` is not,
and to nearest even alone.

`2 / 1` means something only where two cores are free. `free` says so: how much faster two processes of plain Python
get through twice the work, measured before and after each format, the lower of the two; below 1.8 (marked ?) the
second core was busy with something else and `2 / 1` is no measurement.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from quantbench.numerics import all_formats, get_format, round_inplace

ROUNDINGS = ("nearest-even", "nearest-away", "toward-zero", "up", "down", "stochastic")
FREE = 1.8
PEERS: dict[str, Any] = {
    "fp16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "fp8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [entry.name for entry in all_formats() if entry.kind != "int"] + ["int8"]
    parser.add_argument("formats", nargs="*", default=default)
    parser.add_argument("--values", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    x = np.random.default_rng(0).standard_normal(options.values).astype(np.float32)
    heads = ("memcpy", "1 core", "2 cores", "of memcpy", "2 / 1", "free", "peer")
    print(f"{'format':<14}{'rounding':<14}" + "".join(f"{head:>10}" for head in heads))
    rows = []
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        processes.map(spin, (0, 0), chunksize=1)  # started before they are timed
        for name in options.formats:
            before = free_cores(processes)
            measured = [measure(x, name, rounding, options.rounds) for rounding in ROUNDINGS]
            free = min(before, free_cores(processes))
            for row in measured:
                rows.append({**row, "free_cores": free})
                show(rows[-1])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def show(row: dict[str, Any]) -> None:
    peer = "" if row["peer_gbs"] is None else f"{row['peer_gbs']:.2f}"
    doubt = " " if row["free_cores"] >= FREE else "?"
    print(
        f"{row['format']:<14}{row['rounding']:<14}{row['memcpy_gbs']:>10.1f}{row['one_core_gbs']:>10.1f}"
        f"{row['two_cores_gbs']:>10.1f}{row['of_memcpy']:>10.0%}{row['two_cores_over_one']:>9.2f}{doubt}"
        f"{row['free_cores']:>10.2f}{peer:>10}"
    )


def free_cores(processes: Pool) -> float:
    """How many cores two processes really get: work that shares no memory, no lock and no code with rounding."""
    steps = 6_000_000
    alone = spin(steps)
    return 2 * alone / max(processes.map(spin, (steps, steps), chunksize=1))


def spin(steps: int) -> float:
    """Seconds that counting takes."""
    start = time.perf_counter()
    total = 0
    for step in range(steps):
        total += step
    return time.perf_counter() - start


def measure(x: NDArray[np.float32], name: str, rounding: str, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    entry = get_format(name)
    work, copy = x.copy(), np.empty_like(x)

    def rounded(threads: int) -> Callable[[], Any]:
        return lambda: round_inplace(work, entry, rounding=rounding, seed=1, threads=threads)  # type: ignore[arg-type]

    ways: dict[str, Callable[[], Any]] = {
        "memcpy_gbs": lambda: np.copyto(copy, x),
        "one_core_gbs": rounded(1),
        "two_cores_gbs": rounded(2),
    }
    best = dict.fromkeys(ways, float("inf"))
    for way in ways.values():
        way()
    for _ in range(rounds):
        for label, way in ways.items():
            np.copyto(work, x)
            best[label] = min(best[label], seconds(way))
    peer = None
    if rounding == "nearest-even" and name in PEERS:
        with np.errstate(all="ignore"):
            peer = min(seconds(lambda: x.astype(PEERS[name]).astype(np.float32)) for _ in range(2))
    speed = {label: x.nbytes / best[label] / 1e9 for label in ways}
    return {
        "format": name,
        "rounding": rounding,
        **speed,
        "of_memcpy": speed["one_core_gbs"] / speed["memcpy_gbs"],
        "two_cores_over_one": speed["two_cores_gbs"] / speed["one_core_gbs"],
        "peer_gbs": None if peer is None else x.nbytes / peer / 1e9,
    }


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
