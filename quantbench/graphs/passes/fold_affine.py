"""Fold per-channel scales and shifts into the convolution, Gemm or transposed convolution before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import channel_vector, constant, only_user, replace_initializer_input, replace_value

__all__ = ["fold_affine"]

Array = NDArray[Any]
_LINEAR = {"Conv", "ConvTranspose", "Gemm"}


def fold_affine(model: ir.Model) -> ir.Model:
    """Fold BatchNormalization and Add, Sub, Mul, Div by per-channel constants into the linear operation before.

    With y = W x + b and z = scale·y + shift per output channel: W' = scale·W, b' = scale·b + shift, in float64.

    Requires: constants are initializers.
    Ensures: no Conv, ConvTranspose (one group) or Gemm with constant weights is followed, alone, by such an operation.
    """
    graph = model.graph
    for node in graph:
        if node.op_type in _LINEAR and node.domain == "":
            while _fold_next(graph, node):
                pass
    return model


def _fold_next(graph: ir.Graph, node: ir.Node) -> bool:
    weight = constant(node.inputs[1])
    output = node.outputs[0]
    user = only_user(output)
    if weight is None or user is None or not _supported(node):
        return False
    bias_input = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(bias_input)
    if bias_input is not None and bias is None:
        return False
    axis = _channel_axis(node)
    channels = weight.shape[axis]
    rank = weight.ndim
    affine = _affine(user, output, rank, channels)
    if affine is None:
        return False
    scale, shift = affine
    along = [1] * rank
    along[axis] = channels
    if bias is None:
        old_bias: Array = np.zeros(channels)
    elif bias.size == 1 or bias.size == channels == bias.shape[-1]:  # a Gemm's bias may also run along the rows
        old_bias = np.broadcast_to(bias.reshape(-1).astype(np.float64), (channels,))
    else:
        return False
    with np.errstate(over="ignore"):  # checked below
        new_weight = (weight * scale.reshape(along)).astype(np.float32)
        new_bias = (old_bias * scale + shift).astype(np.float32)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return False
    replace_initializer_input(graph, node, 1, new_weight, f"{node.name}_weight")
    replace_initializer_input(graph, node, 2, new_bias, f"{node.name}_bias")
    replace_value(graph, user.outputs[0], output)
    graph.remove(user, safe=True)
    return True


def _supported(node: ir.Node) -> bool:
    attributes = node.attributes
    if node.op_type == "ConvTranspose":
        return attributes.get_int("group", 1) == 1
    if node.op_type == "Gemm":
        return attributes.get_float("alpha", 1.0) == 1.0 and attributes.get_float("beta", 1.0) == 1.0
    return True


def _channel_axis(node: ir.Node) -> int:
    """The axis of the weight that counts output channels."""
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def _affine(user: ir.Node, source: ir.Value, rank: int, channels: int) -> tuple[Array, Array] | None:
    """(scale, shift), each (channels,), such that `user` computes scale·source + shift; None when it does not."""
    if user.domain != "":
        return None
    if user.op_type == "BatchNormalization":
        if len(user.outputs) > 1 and any(output.uses() for output in user.outputs[1:]):
            return None
        if user.attributes.get_int("training_mode", 0) or user.inputs[0] is not source:
            return None
        parameters = [constant(value) for value in user.inputs[1:5]]
        gamma, beta, mean, variance = (None if p is None else p.astype(np.float64) for p in parameters)
        if gamma is None or beta is None or mean is None or variance is None:
            return None
        scale = gamma / np.sqrt(variance + user.attributes.get_float("epsilon", 1e-5))
        return scale, beta - scale * mean
    if user.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    left, right = user.inputs
    other = right if left is source else left
    array = constant(other)
    if array is None or left is right:
        return None
    vector = channel_vector(array, rank, channels)
    if vector is None:
        return None
    ones, zeros = np.ones(channels), np.zeros(channels)
    first = left is source
    if user.op_type == "Add":
        return ones, vector
    if user.op_type == "Mul":
        return vector, zeros
    if user.op_type == "Sub":
        return (ones, -vector) if first else (-ones, vector)
    if first and np.all(vector != 0):
        return 1.0 / vector, zeros
    return None
