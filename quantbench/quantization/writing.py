"""From a plan to graphs that carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.accumulators import Accumulator, write_accumulators
from quantbench.graphs.block_operands import held_format
from quantbench.graphs.code_bounds import bound_codes
from quantbench.graphs.code_shifts import shift_codes
from quantbench.graphs.hard_swish_codes import hard_swish_codes
from quantbench.graphs.qdq import Affine, QuantizedTensor, write_activations, write_weights
from quantbench.graphs.rounding_functions import write_rounded
from quantbench.numerics import get_format
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.plan import GraphPlan, TensorPlan

__all__ = ["activation_affines", "array_of", "is_integer", "replace_array", "write_graph"]

Array = NDArray[Any]


def write_graph(
    model: ir.Model, plan: GraphPlan, weights: Mapping[str, QuantizedTensor], shifts: Mapping[str, Array]
) -> ir.Model:
    """A copy of a prepared graph that holds its tensors as the plan says, in standard ONNX.

    Integer formats become QuantizeLinear and DequantizeLinear; float and block formats rounding functions or Cast
    pairs; accumulators functions that round running sums.

    Args:
        model: left as it is.
        plan: of this graph.
        weights: the codes of the integer weights.
        shifts: what bias correction adds to biases, by initializer name.
    """
    written = model.clone()
    uses = weight_uses(written)
    add_shifts(written, shifts)
    activations = activation_affines(plan)
    codes = dict(weights)
    for name, tensor in weights.items():
        bias = uses[name].bias
        if bias is not None and bias in plan.tensors and plan.tensors[bias].role == "bias":
            codes[bias] = _round_bias(array_of(written, bias), tensor.affine, activations[uses[name].source])
    write_activations(written, activations, plan.integer_nodes)
    hard_swish_codes(written)
    shift_codes(written)
    bound_codes(written)
    write_weights(written, codes, plan.integer_nodes)
    planned = {name: get_format(tensor.format) for name, tensor in plan.tensors.items() if not is_integer(tensor)}
    floats = {name: held_format(fmt) for name, fmt in planned.items()}
    blocks = {
        (node, index): get_format(block)
        for node, pair in plan.operands.items()
        for index, block in enumerate(pair)
        if block is not None
    }
    if floats or blocks:
        write_rounded(written, floats, blocks)
    accumulators = {node: Accumulator(get_format(name), chunk) for node, (name, chunk) in plan.accumulators.items()}
    if accumulators:
        write_accumulators(written, accumulators)
    return written


def add_shifts(model: ir.Model, shifts: Mapping[str, Array]) -> None:
    """Give biases what bias correction adds to them, by initializer name."""
    for name, shift in shifts.items():
        replace_array(model, name, (array_of(model, name) + shift).astype(np.float32))


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


def _round_bias(bias: Array, weight: Affine, source: Affine) -> QuantizedTensor:
    """The bias in codes of the accumulator (ONNX QLinearConv: scale = source scale × weight scale, zero point 0)."""
    scale = (np.float32(source.scale) * weight.channel_scale).astype(np.float32)
    codes = np.rint(bias.reshape(-1).astype(np.float64) / scale)
    limit = np.iinfo(np.int32).max
    axis = None if scale.ndim == 0 else 0
    return QuantizedTensor(
        np.clip(codes, -limit, limit).astype(np.int32), Affine("int32", scale, np.zeros(scale.shape, np.int64), axis)
    )


def array_of(model: ir.Model, name: str) -> Array:
    """The values of an initializer."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def replace_array(model: ir.Model, name: str, array: Array) -> None:
    """Give an initializer other values."""
    model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
