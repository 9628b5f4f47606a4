"""Stages that are a hard-swish and nothing else, computed here in one pass through memory.

ONNX Runtime computes x·max(0, min(1, αx + β)) as two operations, HardSigmoid and Mul, with a tensor between them. Each
step of it is one correctly rounded float32 operation or a choice, so whoever computes it gets the same bits, unless
ONNX Runtime was compiled to contract αx + β on its processor. That is tried out, once a process.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantbench.graphs.executor import SessionExecutor
from quantbench.graphs.stages import DirectStage, Stage, hard_swishes

__all__ = ["hard_swish_stage"]

Array = NDArray[Any]

_TRIED = 1 << 16
"""Float32 patterns, spread over all of them, on which the bits are compared."""


def hard_swish_stage(stage: Stage, given: Collection[str], threads: int | None) -> DirectStage | None:
    """The stage as one pass, or None where it is anything else, or ONNX Runtime's bits are others here.

    What comes out takes the memory of what goes in, where nothing else reads that and it is not among `given`, the
    inputs of the graph.
    """
    constants = _constants(stage)
    if constants is None or not _same_bits():
        return None
    alpha, beta = constants
    (source,) = stage.inputs
    overwrite = source in stage.released and source not in given
    from quantbench.graphs.hard_swish_kernel import hard_swish  # compiles: only where it is used

    (made,) = stage.outputs

    def compute(values: dict[str, Array]) -> bool:
        x = values[source] if overwrite else values[source].copy()
        hard_swish(x, alpha, beta, threads)
        values[made] = x
        return True

    return compute


def _constants(stage: Stage) -> tuple[np.float32, np.float32] | None:
    """α and β of a stage of HardSigmoid and Mul that make a hard-swish."""
    nodes = stage.model.graph.node
    if len(nodes) != 2 or [(*stage.inputs, *stage.outputs)] != list(hard_swishes(nodes)):
        return None
    given = {attribute.name: attribute.f for attribute in nodes[0].attribute}
    return np.float32(given.get("alpha", 0.2)), np.float32(given.get("beta", 0.5))


@lru_cache(maxsize=1)
def _same_bits() -> bool:
    """Whether ONNX Runtime gives the bits that are computed here."""
    from quantbench.graphs.hard_swish_kernel import hard_swish

    helper = onnx.helper
    nodes = [helper.make_node("HardSigmoid", ["x"], ["h"], alpha=1 / 6), helper.make_node("Mul", ["x", "h"], ["y"])]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [_TRIED]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "hard_swish", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    # half of them are spread over all float32 patterns, half over the values where the gate is neither 0 nor 1
    patterns = np.linspace(0, 2**32 - 1, _TRIED // 2, dtype=np.float64).astype(np.uint32).view(np.float32)
    x = np.concatenate([patterns, np.linspace(-3.1, 3.1, _TRIED // 2, dtype=np.float32)])
    (wanted,) = SessionExecutor({"model": model.SerializeToString()}, threads=1).run({"x": x})
    hard_swish(x, np.float32(1 / 6), np.float32(0.5), threads=1)
    same = (x.view(np.uint32) == wanted.view(np.uint32)) | (np.isnan(x) & np.isnan(wanted))
    return bool(same.all())
