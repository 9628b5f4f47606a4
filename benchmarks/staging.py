"""What staged execution costs: FP32, staged without taps, staged with rounding, and the portable graph, side by side.

    python benchmarks/staging.py [REFERENCE…] [--format fp11] [--batches 1,8,32] [--rounds 15] [--json FILE]

Runs are interleaved; times are medians, and the best of the rounds beside them. Threads that wait between stages
without spinning lose their core to whoever else wants it, and FP32's, which spin, do not: what the ratio of medians
says needs free cores, and `free` says how many there were (benchmarks/rounding.py; ? below 1.8). Peak memory is that of
a process of its own for each way of running. Without a reference, EfficientNet-Lite0 of ../shared/data is taken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from rounding import FREE, free_cores

import quantbench
from quantbench.datasets import open_dataset
from quantbench.graphs.executor import Executor, SessionExecutor
from quantbench.graphs.load import load_graphs
from quantbench.graphs.rounding_points import rounding_points
from quantbench.graphs.staging import StagedExecutor, Tap
from quantbench.quantization.variant import load_variant, open_variant
from quantbench.references import load_reference
from quantbench.tasks import make_task

WAYS = ("fp32", "staged", "staged+round", "portable")
"""Plain ONNX Runtime on the reference's own graphs; stages that nothing touches; emulation; emulation in the graph."""

DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "efficientnet_lite0.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", default=[str(DEFAULT)])
    parser.add_argument("--format", default="fp11")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(
        f"{'reference':20} {'batch':>5} {'way':14} {'ms':>9} {'of fp32':>8} {'best':>9} {'of fp32':>8} {'free':>6} "
        f"{'peak MB':>8} {'of fp32':>8}"
    )
    with multiprocessing.get_context("spawn").Pool(2) as processes, tempfile.TemporaryDirectory() as variants:
        free_cores(processes)  # started before they are timed
        for name in arguments.references:
            for batch in map(int, arguments.batches.split(",")):
                for row in measure(name, arguments.format, batch, arguments.rounds, processes, Path(variants)):
                    rows.append(row)
                    show(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def show(row: dict[str, Any]) -> None:
    doubt = " " if row["free_cores"] >= FREE else "?"
    print(
        f"{row['reference']:20} {row['batch']:5} {row['way']:14} {row['ms']:9.2f} {row['time_ratio']:7.2f}{doubt} "
        f"{row['best_ms']:9.2f} {row['best_ratio']:8.2f} {row['free_cores']:6.2f} {row['peak_mb']:8.0f} "
        f"{row['peak_ratio']:8.2f}",
        flush=True,
    )


def measure(
    name: str, format_name: str, batch: int, rounds: int, processes: Pool, variants: Path
) -> list[dict[str, Any]]:
    """One row for each way of running `batch` scored samples of a reference."""
    reference = load_reference(name)
    dataset = open_dataset(reference)
    task = make_task(reference, dataset)
    samples = [dataset.scored.input(index) for index in range(batch)]
    quantbench.convert(reference, format_name, out=variants)
    executors = {way: open_way(way, name, format_name, variants) for way in WAYS}
    feeds = {way: task.feeds(executor, samples) for way, executor in executors.items()}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    free = free_cores(processes)
    for turn in range(rounds + 2):
        for way, executor in executors.items():
            if way == "portable" and turn > 4:
                continue  # slow, and three times say it
            time.sleep(0.02)  # the last way's threads stop spinning
            start = time.perf_counter()
            task.infer(executor, feeds[way])
            if turn >= 2:
                seconds[way].append(time.perf_counter() - start)
    free = min(free, free_cores(processes))
    del executors
    peaks = {way: peak_in_process(_run_thrice, way, name, format_name, batch, variants) for way in WAYS}
    medians = {way: statistics.median(values) * 1e3 for way, values in seconds.items()}
    best = {way: min(values) * 1e3 for way, values in seconds.items()}
    return [
        {
            "reference": reference.name,
            "format": format_name,
            "batch": batch,
            "way": way,
            "ms": medians[way],
            "time_ratio": medians[way] / medians["fp32"],
            "best_ms": best[way],
            "best_ratio": best[way] / best["fp32"],
            "free_cores": free,
            "peak_mb": peaks[way],
            "peak_ratio": peaks[way] / peaks["fp32"],
        }
        for way in WAYS
    ]


def open_way(way: str, name: str, format_name: str, variants: Path) -> Executor:
    """The reference or its variant, opened as `evaluate` does, or in one of the other ways."""
    reference = load_reference(name)
    if way == "fp32":
        return open_variant(reference, "fp32", variants)
    if way == "staged":
        graphs = load_graphs(reference)
        points = {key: rounding_points(graph) for key, graph in graphs.items()}
        nothing = {key: dict.fromkeys(names, Tap(lambda values: None)) for key, names in points.items()}
        return StagedExecutor(graphs, nothing)
    if way == "portable":
        return SessionExecutor(load_variant(variants, reference, format_name).graphs)
    return open_variant(reference, format_name, variants)


def peak_in_process(work: Callable[..., object], *arguments: Any) -> float:
    """Peak resident memory in MB of a fresh process that calls `work` with the arguments."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(sender, work, arguments))
    process.start()
    sender.close()
    peak = float(receiver.recv())
    process.join()
    return peak


def _report_peak(sender: Any, work: Callable[..., object], arguments: Sequence[Any]) -> None:
    work(*arguments)
    sender.send(_peak_mb())


def _run_thrice(way: str, name: str, format_name: str, batch: int, variants: Path) -> None:
    reference = load_reference(name)
    dataset = open_dataset(reference)
    task = make_task(reference, dataset)
    samples = [dataset.scored.input(index) for index in range(batch)]
    executor = open_way(way, name, format_name, variants)
    feeds = task.feeds(executor, samples)
    for _ in range(3):
        task.infer(executor, feeds)


def _peak_mb() -> float:
    """Peak resident memory of this process. On Linux getrusage would count the process that it was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
