"""Run a graph on many batches at once, one thread each, so that results do not depend on how many cores there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.executor import SessionExecutor
from quantbench.numerics.threads import cores
from quantbench.support import return_memory

__all__ = ["run_batches"]

Array = NDArray[Any]


def run_batches(model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> list[Sequence[Array]]:
    """For each batch of `feeds` every output of the graph.

    Raises:
        InputError: ONNX Runtime cannot load the graph.
    """
    if not feeds:
        return []
    try:
        return _run(model, feeds)
    finally:
        return_memory()


def _run(model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> list[Sequence[Array]]:
    executor = SessionExecutor({"model": ir.to_proto(model).SerializeToString()}, threads=1)
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(executor.run, feeds))
