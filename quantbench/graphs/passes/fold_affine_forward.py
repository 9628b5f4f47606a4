"""Fold scales and shifts into the convolution after them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import channel_vector, constant, only_user, replace_initializer_input

__all__ = ["fold_affine_forward"]

Array = NDArray[Any]


def fold_affine_forward(model: ir.Model) -> ir.Model:
    """Fold Mul and Add by per-channel constants, whose one reader is a Conv with constant weights, into that Conv.

    Conv(scale·x) = Conv'(x) with W'[o, i] = W[o, i]·scale[i]. Conv(x + shift) adds Σ_i W[o, i]·shift[i] to the bias,
    exact only where no padding mixes zeros among the shifted values; before a padded Conv, scale·x + shift becomes
    scale·(x + shift/scale), so that at least the scale folds. Computed in float64.

    Requires: constants are initializers.
    Ensures: no such Mul before a Conv, alone or ahead of such an Add; no such Add before an unpadded Conv.
    """
    graph = model.graph
    for node in reversed(list(graph)):
        if node.op_type == "Conv" and node.domain == "" and constant(node.inputs[1]) is not None:
            while _fold_previous(graph, node):
                pass
    return model


def _fold_previous(graph: ir.Graph, conv: ir.Node) -> bool:
    found = _operation(conv, conv)
    if found is None:
        return False
    operation, index, vector = found
    source = operation.inputs[1 - index]
    assert source is not None
    if operation.op_type == "Mul":
        _scale_weight(graph, conv, vector)
    elif not _padded(conv):
        if len(conv.inputs) > 2 and conv.inputs[2] is not None and constant(conv.inputs[2]) is None:
            return False
        _shift_bias(graph, conv, vector)
    else:
        return _swap_scale(graph, conv, operation, index, vector)
    conv.replace_input_with(0, source)
    graph.remove(operation, safe=True)
    return True


def _swap_scale(graph: ir.Graph, conv: ir.Node, add: ir.Node, index: int, shift: Array) -> bool:
    """Turn Conv(scale·x + shift) into Conv'(x + shift/scale)."""
    found = _operation(add, conv, 1 - index)
    if found is None or found[0].op_type != "Mul":
        return False
    multiply, position, scale = found
    moved = shift / np.where(scale == 0, np.nan, scale)
    if not np.isfinite(moved).all() or np.abs(moved).max() > 1e6:
        return False
    source = multiply.inputs[1 - position]
    uniform = np.all(moved == moved[0])
    rank = len(_weight(conv).shape)
    array = moved[:1] if uniform else moved.reshape(1, -1, *(1,) * (rank - 2))
    _scale_weight(graph, conv, scale)
    replace_initializer_input(graph, add, index, array.astype(np.float32), f"{add.name}_shift")
    add.replace_input_with(1 - index, source)
    graph.remove(multiply, safe=True)
    return True


def _operation(reader: ir.Node, conv: ir.Node, position: int = 0) -> tuple[ir.Node, int, Array] | None:
    """(node, index of its constant, the constant per channel) of a Mul or Add that input `position` comes from."""
    source = reader.inputs[position]
    producer = None if source is None else source.producer()
    if source is None or producer is None or producer.domain != "" or only_user(source) is not reader:
        return None
    if producer.op_type not in ("Mul", "Add"):
        return None
    weight = _weight(conv)
    channels = weight.shape[1] * (conv.attributes.get_int("group", 1) or 1)
    for index, value in enumerate(producer.inputs):
        other = producer.inputs[1 - index]
        array = constant(value)
        if array is None or other is None or constant(other) is not None:
            continue
        if other.shape is None or other.shape.rank() != weight.ndim:  # else broadcasting could enlarge the tensor
            continue
        if array.size > 1 and other.shape[1] != channels:
            continue
        vector = channel_vector(array, weight.ndim, channels)
        if vector is not None:
            return producer, index, vector
    return None


def _weight(conv: ir.Node) -> Array:
    weight = constant(conv.inputs[1])
    assert weight is not None
    return weight


def _scale_weight(graph: ir.Graph, conv: ir.Node, scale: Array) -> None:
    product = _times_input_channel(conv, scale).reshape(_weight(conv).shape)
    replace_initializer_input(graph, conv, 1, product.astype(np.float32), f"{conv.name}_weight")


def _shift_bias(graph: ir.Graph, conv: ir.Node, shift: Array) -> None:
    product = _times_input_channel(conv, shift)
    added = product.sum(axis=tuple(range(2, product.ndim))).reshape(-1)
    bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    total = added if bias is None else bias + added
    replace_initializer_input(graph, conv, 2, total.astype(np.float32), f"{conv.name}_bias")


def _times_input_channel(conv: ir.Node, vector: Array) -> Array:
    """W[g, o, i, …]·vector[g, i] in float64, with the groups on an axis of their own."""
    weight = _weight(conv).astype(np.float64)
    group = conv.attributes.get_int("group", 1) or 1
    grouped = weight.reshape(group, -1, *weight.shape[1:])
    return grouped * vector.reshape(group, 1, weight.shape[1], *(1,) * (weight.ndim - 2))


def _padded(conv: ir.Node) -> bool:
    automatic = conv.attributes.get_string("auto_pad", "NOTSET")
    return automatic in ("SAME_UPPER", "SAME_LOWER") or any(conv.attributes.get_ints("pads", []) or [])
