"""From a plan to graphs that carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.block_operands import held_format
from quantbench.graphs.code_bounds import bound_codes
from quantbench.graphs.qdq import LARGEST_MULTIPLE, Affine, QuantizedTensor, write_activations, write_weights
from quantbench.graphs.rounding_functions import write_rounded
from quantbench.numerics import get_format
from quantbench.quantization.affine import integer_range, quantize, symmetric_affine
from quantbench.quantization.placement import WeightUse, weight_uses
from quantbench.quantization.plan import GraphPlan, TensorPlan
from quantbench.quantization.transforms import smallest_error_amplitude

__all__ = ["activation_affines", "round_weights", "write_graph"]

Array = NDArray[Any]

_BIAS_CODES = 2.0**30
"""Largest code of a bias: the accumulator keeps room for the products."""


def round_weights(model: ir.Model, plan: GraphPlan) -> dict[str, QuantizedTensor]:
    """The codes of every weight that the plan puts into integers, each rounded to the nearest code."""
    uses = weight_uses(model)
    activations = activation_affines(plan)
    rounded: dict[str, QuantizedTensor] = {}
    for name, tensor in plan.of_role("weight").items():
        if is_integer(tensor):
            weight = _array(model, name)
            use = uses[name]
            needed = _needed(model, name, use, tensor, plan, activations)
            amplitude = np.maximum(_amplitude(weight, tensor), needed)
            affine = symmetric_affine(amplitude, tensor.format, tensor.axis, tensor.block_size, use.channel_axis)
            rounded[name] = QuantizedTensor(quantize(weight, affine), affine)
    return rounded


def write_graph(
    model: ir.Model, plan: GraphPlan, weights: Mapping[str, QuantizedTensor], shifts: Mapping[str, Array]
) -> ir.Model:
    """A copy of a prepared graph that holds its tensors as the plan says, in standard ONNX.

    Integer formats become QuantizeLinear and DequantizeLinear; float and block formats rounding functions or Cast
    pairs.

    Args:
        model: left as it is.
        plan: of this graph.
        weights: the codes of the integer weights.
        shifts: what bias correction adds to biases, by initializer name.
    """
    written = model.clone()
    uses = weight_uses(written)
    for name, shift in shifts.items():
        _replace_array(written, name, (_array(written, name) + shift).astype(np.float32))
    activations = activation_affines(plan)
    codes = dict(weights)
    for name, tensor in weights.items():
        bias = uses[name].bias
        if bias is not None and bias in plan.tensors and plan.tensors[bias].role == "bias":
            codes[bias] = _round_bias(_array(written, bias), tensor.affine, activations[uses[name].source])
    write_activations(written, activations, plan.integer_nodes)
    bound_codes(written)
    write_weights(written, codes)
    planned = {name: get_format(tensor.format) for name, tensor in plan.tensors.items() if not is_integer(tensor)}
    floats = {name: held_format(fmt) for name, fmt in planned.items()}
    blocks = {
        (node, index): get_format(block)
        for node, pair in plan.operands.items()
        for index, block in enumerate(pair)
        if block is not None
    }
    return write_rounded(written, floats, blocks) if floats or blocks else written


def activation_affines(plan: GraphPlan) -> dict[str, Affine]:
    """The parameters of the tensors that carry codes."""
    return {
        name: Affine(tensor.format, np.asarray(tensor.scale, np.float32), np.asarray(tensor.zero_point, np.int64))
        for name, tensor in plan.of_role("activation").items()
        if is_integer(tensor)
    }


def is_integer(tensor: TensorPlan) -> bool:
    """Whether a tensor is held in integer codes."""
    return tensor.role == "bias" or get_format(tensor.format).kind == "int"


def _needed(
    model: ir.Model, name: str, use: WeightUse, tensor: TensorPlan, plan: GraphPlan, activations: Mapping[str, Affine]
) -> Array:
    """The amplitude below which the bias would not fit the accumulator.

    A bias is a code of the accumulator, whose step is source scale × weight scale: where that is too small for the
    bias to fit, the weight scale has to grow. A channel of zeros alone gets the step that its bias needs.
    """
    bias_plan = plan.tensors.get(use.bias or "")
    if use.bias is None or bias_plan is None or bias_plan.role != "bias":
        return np.zeros(())
    bias = np.abs(_array(model, use.bias).reshape(-1).astype(np.float64))
    smallest, largest = integer_range(tensor.format)
    needed = bias / (_BIAS_CODES * float(activations[use.source].scale)) * ((largest - smallest) // 2)
    if tensor.block_size:
        along = [1] * len(_array(model, name).shape)
        along[use.channel_axis] = -1
        return (needed * LARGEST_MULTIPLE).reshape(along)
    return needed if tensor.axis is not None else np.asarray(needed.max())


def _round_bias(bias: Array, weight: Affine, source: Affine) -> QuantizedTensor:
    """The bias in codes of the accumulator (ONNX QLinearConv: scale = source scale × weight scale, zero point 0)."""
    scale = (np.float32(source.scale) * weight.channel_scale).astype(np.float32)
    codes = np.rint(bias.reshape(-1).astype(np.float64) / scale)
    limit = np.iinfo(np.int32).max
    axis = None if scale.ndim == 0 else 0
    return QuantizedTensor(
        np.clip(codes, -limit, limit).astype(np.int32), Affine("int32", scale, np.zeros(scale.shape, np.int64), axis)
    )


def _amplitude(weight: Array, tensor: TensorPlan) -> Array:
    """What the largest code stands for, in the shape of the scales."""
    if tensor.amplitude == "mse":
        smallest, largest = integer_range(tensor.format)
        return smallest_error_amplitude(weight, (largest - smallest) // 2, tensor.axis, tensor.block_size)
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


def _replace_array(model: ir.Model, name: str, array: Array) -> None:
    model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
