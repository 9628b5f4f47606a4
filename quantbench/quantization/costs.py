"""What an operation takes in float and in integers, roughly: the numbers behind where integers are worth it.

Fitted to what benchmarks/kernels.py and profiles of networks show (docs/kernels.md), in nanoseconds on two cores with
VNNI and AMX. They are a table and not measured anew when a model is converted, because the same inputs have to give the
same variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from quantbench.graphs.code_shifts import scaled_and_shifted
from quantbench.graphs.edit import constant, only_user

__all__ = ["Cost", "cost_of", "crossing"]

_LANES = 16
"""Channels that the integer kernel of depthwise convolutions takes at once."""
_CALL = 4000.0
"""Any operation, however small."""


@dataclass(frozen=True)
class Cost:
    """Nanoseconds a sample, in float and in integers."""

    in_float: float
    in_integers: float


_ELEMENTWISE = {
    "Add": Cost(0.4, 0.4),
    "Concat": Cost(0.4, 0.1),
    "GlobalAveragePool": Cost(0.3, 0.15),
    "HardSwish": Cost(1.2, 0.7),
    "MaxPool": Cost(0.6, 0.6),
    "Mul": Cost(0.5, 0.6),
    "Transpose": Cost(0.3, 0.1),
}
"""For each element of the output, of the input where that is larger."""
_FREE = Cost(0.0, 0.0)
"""Activations that fuse, and operations that only change a shape."""


def crossing(elements: float) -> float:
    """A tensor that goes from float to codes or back: QuantizeLinear or DequantizeLinear, and the change of layout."""
    return 0.6 * elements + _CALL


def cost_of(node: ir.Node, taken: float, given: float) -> Cost:
    """The cost of a node that reads `taken` elements a sample and gives `given`."""
    if any(scaled_and_shifted(node, value) is not None for value in node.inputs):
        return Cost(0.4 * given + _CALL, 0.0)
    array = constant(node.inputs[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
    if array is not None:
        return _with_calls(_linear(node, array.shape, taken, given))
    each = _ELEMENTWISE.get(node.op_type)
    if each is None:
        return _FREE
    elements = max(taken, given)
    cost = _with_calls(Cost(each.in_float * elements, each.in_integers * elements))
    return Cost(0.0, cost.in_integers + _CALL) if _fuses_in_float(node) else cost


def _fuses_in_float(node: ir.Node) -> bool:
    """Whether a convolution in float takes the operation along, which needs two integer operations."""
    source = node.inputs[0] if node.op_type == "HardSwish" else None
    maker = None if source is None else source.producer()
    return source is not None and maker is not None and maker.op_type == "Conv" and only_user(source) is node


def _linear(node: ir.Node, shape: tuple[int, ...], taken: float, given: float) -> Cost:
    """Multiplying by weights: of many input channels integers do several times as many at once, of one no more."""
    weights = float(prod(shape))
    if node.op_type != "Conv":
        channels = shape[0] if node.attributes.get_int("transB", 0) else shape[-1]
        products, results = taken * channels, taken * channels * channels / weights
        return Cost(products / 30 + 0.1 * weights, products / 120 + 0.04 * weights + 0.4 * results)
    taps = prod(shape[2:])
    if shape[1] == 1 and (node.attributes.get_int("group", 1) or 1) > 1:
        rest = shape[0] % _LANES / shape[0]  # channels beyond whole vectors go one by one
        return Cost(0.035 * taps * given, (0.05 * (1 - rest) + 0.5 * rest) * taps * given)
    products = given * weights / shape[0]
    unfolding = 4.0 * taps * given / shape[0] if taps > 1 else 0.0
    return Cost(products / 70 + 0.05 * (taken + given), products / 400 + 0.1 * given + unfolding + 0.1 * weights)


def _with_calls(cost: Cost) -> Cost:
    return Cost(cost.in_float + _CALL, cost.in_integers + _CALL)
