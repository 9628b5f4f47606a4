"""Stages of exact operations alone, done by numpy where the tensors are small.

Calling a session takes several microseconds, many times what numpy takes to add two short vectors. A sum, a difference
and a product of floats have one correctly rounded result (IEEE 754, section 4.3), so it does not matter who computes
them: the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantbench.graphs.optimise import initializers
from quantbench.graphs.stages import Stage

__all__ = ["SMALL", "Arithmetic", "SmallStage", "Split", "small_stage"]

Array = NDArray[Any]

SMALL = 1 << 16
"""Elements of the largest input up to which numpy, on one thread, is done before a session has got going."""

_EXACT: dict[str, Callable[..., Array]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}


@dataclass(frozen=True)
class Arithmetic:
    """A tensor `made` of two others, each the name of one or a constant."""

    function: Callable[..., Array]
    left: str | Array
    right: str | Array
    made: str

    def __call__(self, values: dict[str, Array]) -> None:
        left, right = (values[each] if isinstance(each, str) else each for each in (self.left, self.right))
        values[self.made] = np.asarray(self.function(left, right))  # a number where both have no dimensions


@dataclass(frozen=True)
class Split:
    """Consecutive parts of a tensor along an axis.

    Attributes:
        sizes: of the parts; None: all alike, but for a last one that may be smaller.
    """

    source: str
    parts: tuple[str, ...]
    axis: int
    sizes: tuple[int, ...] | None

    def __call__(self, values: dict[str, Array]) -> None:
        values.update(self.views(values[self.source]))

    def views(self, whole: Array) -> dict[str, Array]:
        """The parts by name, in the memory of the whole."""
        before = (slice(None),) * (self.axis % whole.ndim)
        each = -(-whole.shape[self.axis] // len(self.parts))
        ends = accumulate(self.sizes or [each] * len(self.parts), initial=0)
        return {name: whole[(*before, slice(*ends))] for name, ends in zip(self.parts, pairwise(ends), strict=True)}


@dataclass(frozen=True)
class SmallStage:
    """A stage as calls of numpy: a `DirectStage`.

    Attributes:
        operations: in their order.
        inputs, outputs: of the stage.
    """

    operations: tuple[Arithmetic | Split, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, values: dict[str, Array]) -> bool:
        for name in self.inputs:
            if values[name].size > SMALL:
                return False
        made = {name: values[name] for name in self.inputs}
        for operation in self.operations:
            operation(made)
        for name in self.outputs:
            # who gets a part may change it, but not the whole
            values[name] = made[name] if made[name].base is None else made[name].copy()
        return True


def small_stage(stage: Stage, weights: Mapping[str, NDArray[np.float32]]) -> SmallStage | None:
    """The stage as numpy calls, or None where it holds anything but Add, Sub, Mul and Split.

    Args:
        weights: of `Cut`.
    """
    graph = stage.model.graph
    constants = initializers(graph, weights)
    operations = [_operation(node, constants) for node in graph.node]
    known = tuple(operation for operation in operations if operation is not None)
    return SmallStage(known, stage.inputs, stage.outputs) if len(known) == len(operations) else None


def _operation(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Arithmetic | Split | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _EXACT:
        left, right = (constants.get(name, name) for name in node.input)
        return Arithmetic(_EXACT[node.op_type], left, right, node.output[0])
    if node.op_type == "Split" and all(name in constants for name in node.input[1:] if name):
        return _split(node, constants)
    return None


def _split(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Split:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    given: Sequence[int] | None = None
    if len(node.input) > 1 and node.input[1]:
        given = [int(size) for size in constants[node.input[1]]]
    return Split(node.input[0], tuple(node.output), axis, None if given is None else tuple(given))
