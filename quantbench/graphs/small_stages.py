"""Stages of exact operations alone, done by numpy where the tensors are small.

Calling a session takes several microseconds, many times what numpy takes to add two short vectors. A sum, a difference
and a product of floats have one correctly rounded result (IEEE 754, section 4.3), so it does not matter who computes
them: the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantbench.graphs.stages import DirectStage, Stage

__all__ = ["SMALL", "small_stage"]

Array = NDArray[Any]

SMALL = 1 << 16
"""Elements of the largest input up to which numpy, on one thread, is done before a session has got going."""

_EXACT: dict[str, Callable[[Array, Array], Array]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}

_Operation = Callable[[dict[str, Array]], None]
"""From tensors by name to a further one, which is put among them."""


def small_stage(stage: Stage) -> DirectStage | None:
    """The stage as numpy calls, or None where it holds anything but Add, Sub, Mul and Split."""
    graph = stage.model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    operations = [_operation(node, constants, stage.outputs) for node in graph.node]
    known = [operation for operation in operations if operation is not None]
    if len(known) < len(operations):
        return None
    inputs = stage.inputs
    inner = [name for node in graph.node for name in node.output if name not in stage.outputs]

    def compute(values: dict[str, Array]) -> bool:
        for name in inputs:
            if values[name].size > SMALL:
                return False
        for operation in known:
            operation(values)
        for name in inner:
            del values[name]
        return True

    return compute


def _operation(node: onnx.NodeProto, constants: Mapping[str, Array], outputs: Collection[str]) -> _Operation | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _EXACT:
        return _exact(_EXACT[node.op_type], node.input, node.output[0], constants)
    if node.op_type == "Split" and all(name in constants for name in node.input[1:] if name):
        return _split(node, constants, outputs)
    return None


def _exact(
    function: Callable[[Array, Array], Array], inputs: Sequence[str], made: str, constants: Mapping[str, Array]
) -> _Operation:
    first, second = inputs
    # numpy makes numbers of arrays without dimensions: asarray
    if second in constants:
        right = constants[second]
        return lambda values: values.__setitem__(made, np.asarray(function(values[first], right)))
    if first in constants:
        left = constants[first]
        return lambda values: values.__setitem__(made, np.asarray(function(left, values[second])))
    return lambda values: values.__setitem__(made, np.asarray(function(values[first], values[second])))


def _split(node: onnx.NodeProto, constants: Mapping[str, Array], outputs: Collection[str]) -> _Operation:
    source, parts = node.input[0], list(node.output)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    sizes = [int(size) for size in constants[node.input[1]]] if len(node.input) > 1 and node.input[1] else None

    def split(values: dict[str, Array]) -> None:
        whole = values[source]
        before = (slice(None),) * (axis % whole.ndim)
        each = -(-whole.shape[axis] // len(parts))  # all alike, a last one may be smaller
        start = 0
        for name, size in zip(parts, sizes or [each] * len(parts), strict=True):
            part = whole[(*before, slice(start, start + size))]
            values[name] = part.copy() if name in outputs else part  # who gets it may change it, but not the whole
            start += size

    return split
