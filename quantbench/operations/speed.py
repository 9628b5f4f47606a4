"""How fast a new variant runs beside FP32 on this machine."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from quantbench.datasets import open_dataset
from quantbench.graphs import Executor
from quantbench.numerics import get_format
from quantbench.quantization import Conversion, open_variant
from quantbench.quantization.variant import NATIVE, PLAN, open_graphs
from quantbench.references import Reference
from quantbench.tasks import Task, make_task

__all__ = ["only_stores_integers", "speedup"]

_SECONDS = 0.15
_ROUNDS = 3
"""At least so many runs of each, however long they take."""


def speedup(reference: Reference, conversion: Conversion) -> float | None:
    """FP32's time over the variant's for one calibration sample, the median of runs in turn, for about 0.15 seconds.

    None where nothing can be compared: what is emulated says nothing about hardware that has the format.
    """
    if get_format(conversion.dtype.partition("@")[0]).kind != "int":
        return None
    variant = open_graphs({file.stem: file for file in sorted(conversion.path.glob("*.onnx"))})
    if variant.execution != "native":
        return None
    dataset = open_dataset(reference)
    task = make_task(reference, dataset)
    sample = (dataset.calibration if len(dataset.calibration) else dataset.scored).input(0)
    pairs = [
        (executor, task.feeds(executor, [sample]))
        for executor in (open_variant(reference, "fp32", conversion.path), variant)
    ]
    for executor, feeds in pairs:
        task.infer(executor, feeds)  # the first run prepares memory
    ratios: list[float] = []
    started = time.perf_counter()
    while len(ratios) < _ROUNDS or time.perf_counter() - started < _SECONDS:
        exact, rounded = (_seconds(task, executor, feeds) for executor, feeds in pairs)
        ratios.append(exact / rounded)
    return statistics.median(ratios)


def only_stores_integers(conversion: Conversion) -> bool:
    """Whether a variant of ours could compute in integers, but every operation is faster in float, so that integers
    are only what its weights are stored in."""
    if conversion.backend != NATIVE:
        return False
    graphs = json.loads((conversion.path / PLAN).read_text(encoding="utf-8"))["graphs"].values()
    return any(graph["faster_in_float"] for graph in graphs) and not any(graph["integer_nodes"] for graph in graphs)


def _seconds(task: Task, executor: Executor, feeds: Any) -> float:
    started = time.perf_counter()
    task.infer(executor, feeds)
    return time.perf_counter() - started
