"""From a plan to graphs that carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.graphs.qdq import Affine, QuantizedTensor, write_activations, write_weights
from quantbench.graphs.rounding_functions import write_rounded
from quantbench.numerics import get_format
from quantbench.quantization.affine import quantize, symmetric_affine
from quantbench.quantization.placement import WeightUse, weight_uses
from quantbench.quantization.plan import GraphPlan, TensorPlan

__all__ = ["write_graph"]

Array = NDArray[Any]

_BIAS_CODES = 2.0**30
"""Largest code of a bias: the accumulator keeps room for the products."""


def write_graph(model: ir.Model, plan: GraphPlan) -> ir.Model:
    """A copy of a prepared graph that holds its tensors as the plan says, in standard ONNX.

    Integer formats become QuantizeLinear and DequantizeLinear; float formats rounding functions or Cast pairs.
    """
    written = model.clone()
    uses = weight_uses(written)
    floats = {name: get_format(tensor.format) for name, tensor in plan.tensors.items() if not _integer(tensor)}
    activations = {
        name: Affine(tensor.format, np.float32(_number(tensor.scale)), np.int64(tensor.zero_point or 0))
        for name, tensor in plan.of_role("activation").items()
        if _integer(tensor)
    }
    codes: dict[str, QuantizedTensor] = {}
    for name, tensor in plan.of_role("weight").items():
        if _integer(tensor):
            codes |= _weight_and_bias(written, name, tensor, uses[name], plan, activations)
    write_activations(written, activations, plan.integer_nodes)
    write_weights(written, codes)
    return write_rounded(written, floats) if floats else written


def _weight_and_bias(
    model: ir.Model,
    name: str,
    tensor: TensorPlan,
    use: WeightUse,
    plan: GraphPlan,
    activations: Mapping[str, Affine],
) -> dict[str, QuantizedTensor]:
    weight = _array(model, name)
    amplitude = _amplitude(weight, tensor)
    bias_plan = plan.tensors.get(use.bias or "")
    source = activations.get(use.source)
    if bias_plan is None or use.bias is None or source is None or bias_plan.role != "bias":
        affine = symmetric_affine(amplitude, tensor.format, tensor.axis, tensor.block_size)
        return {name: QuantizedTensor(quantize(weight, affine), affine)}
    bias = _array(model, use.bias).reshape(-1)
    # The bias is a code of the accumulator, whose step is source scale × weight scale: a step too small for the
    # bias to fit is widened. A channel of zeros alone gets the step that its bias needs.
    step = np.abs(bias).astype(np.float64) / (_BIAS_CODES * float(source.scale))
    needed = step * _largest_code(tensor.format)
    amplitude = np.maximum(amplitude, needed if tensor.axis is not None else needed.max())
    affine = symmetric_affine(amplitude, tensor.format, tensor.axis)
    scale = np.broadcast_to(np.float32(source.scale) * affine.scale, bias.shape).astype(np.float32)
    if tensor.axis is None:
        bias_affine = Affine("int32", scale[:1].reshape(()), np.zeros((), np.int64))
    else:
        bias_affine = Affine("int32", scale, np.zeros(scale.shape, np.int64), axis=0)
    bias_codes = np.rint(bias.astype(np.float64) / scale).astype(np.int32)
    return {
        name: QuantizedTensor(quantize(weight, affine), affine),
        use.bias: QuantizedTensor(bias_codes, bias_affine),
    }


def _largest_code(name: str) -> int:
    """The largest code of a weight format, counted from its middle."""
    return (1 << (get_format(name).bits - 1)) - 1


def _amplitude(weight: Array, tensor: TensorPlan) -> Array:
    """max|w| in the shape of the scales."""
    magnitude = np.abs(weight)
    if tensor.axis is None:
        return np.asarray(magnitude.max(initial=0.0))
    if not tensor.block_size:
        others = tuple(axis for axis in range(weight.ndim) if axis != tensor.axis)
        return np.asarray(magnitude.max(axis=others, initial=0.0))
    starts = np.arange(0, weight.shape[tensor.axis], tensor.block_size)
    return np.maximum.reduceat(magnitude, starts, axis=tensor.axis)


def _array(model: ir.Model, name: str) -> Array:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def _integer(tensor: TensorPlan) -> bool:
    return tensor.role == "bias" or get_format(tensor.format).kind == "int"


def _number(scale: float | str | None) -> float:
    if not isinstance(scale, float):
        raise InputError(f"the plan gives an activation the scale {scale!r}, which is not a number")
    return scale
