"""Fold scales and shifts into the convolution after them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import channel_vector, constant, only_user, replace_initializer_input

__all__ = ["fold_affine_forward"]


def fold_affine_forward(model: ir.Model) -> ir.Model:
    """Fold Mul and Add by per-channel constants, whose one reader is a Conv with constant weights, into that Conv.

    Conv(scale·x) = Conv'(x) with W'[o, i] = W[o, i]·scale[i]; Conv(x + shift) adds Σ_i W[o, i]·shift[i] to the bias,
    exact only where no padding mixes zeros among the shifted values. Computed in float64.

    Requires: constants are initializers.
    Ensures: no such Mul before a Conv, no such Add before an unpadded Conv.
    """
    graph = model.graph
    for node in reversed(list(graph)):
        if node.op_type == "Conv" and node.domain == "":
            while _fold_previous(graph, node):
                pass
    return model


def _fold_previous(graph: ir.Graph, conv: ir.Node) -> bool:
    source = conv.inputs[0]
    weight = constant(conv.inputs[1])
    producer = None if source is None else source.producer()
    if source is None or weight is None or producer is None or producer.domain != "" or only_user(source) is not conv:
        return False
    if producer.op_type not in ("Mul", "Add") or (len(conv.inputs) > 2 and constant(conv.inputs[2]) is None):
        return False
    group = conv.attributes.get_int("group", 1) or 1
    channels = weight.shape[1] * group
    for index, value in enumerate(producer.inputs):
        other = producer.inputs[1 - index]
        array = constant(value)
        if array is None or other is None or constant(other) is not None:
            continue
        if other.shape is None or other.shape.rank() != weight.ndim:  # else broadcasting could make the tensor larger
            continue
        vector = channel_vector(array, weight.ndim, channels)
        if vector is None or (producer.op_type == "Add" and _padded(conv)):
            continue
        per_group = vector.reshape(group, 1, weight.shape[1], *(1,) * (weight.ndim - 2))
        grouped = weight.astype(np.float64).reshape(group, -1, *weight.shape[1:])
        if producer.op_type == "Mul":
            scaled = (grouped * per_group).reshape(weight.shape).astype(np.float32)
            replace_initializer_input(graph, conv, 1, scaled, f"{conv.name}_weight")
        else:
            added = (grouped * per_group).sum(axis=tuple(range(2, grouped.ndim))).reshape(-1)
            bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
            old = np.zeros(len(added)) if bias is None else bias.astype(np.float64)
            replace_initializer_input(graph, conv, 2, (old + added).astype(np.float32), f"{conv.name}_bias")
        conv.replace_input_with(0, other)
        graph.remove(producer, safe=True)
        return True
    return False


def _padded(conv: ir.Node) -> bool:
    automatic = conv.attributes.get_string("auto_pad", "NOTSET")
    return automatic in ("SAME_UPPER", "SAME_LOWER") or any(conv.attributes.get_ints("pads", []) or [])
