"""Open narrow integer weights as 8-bit ones: the same numbers, and kernels that are fast.

CPU runtimes compute with 8-bit weights. A 4-bit code under the scale of its channel is an 8-bit code, too; one under
the scale of a block is, once it is multiplied, where that scale is a small multiple of its channel's
(`qdq.Affine.channel_axis`). So weights are widened when a model is opened, not on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import add_initializer, constant, drop_unused, drop_unused_initializers

__all__ = ["widen_weights"]

Array = NDArray[Any]

_NARROW = {ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2, ir.DataType.UINT2}


def widen_weights(model: ir.Model) -> bool:
    """Replace weights in 2 or 4 bits by INT8 ones of the same real values, in place; says whether there were any.

    Weights in blocks whose scales are no multiples of a channel's stay as they are.
    """
    graph = model.graph
    widened = False
    for node in list(graph):
        codes = node.inputs[0] if node.inputs else None
        if codes is None or codes.dtype not in _NARROW or _is_scale(node.outputs[0]):
            continue
        if node.op_type == "Cast":
            widened |= _widen_cast(graph, node)
        elif node.op_type == "DequantizeLinear" and (wide := _wide(node)) is not None:
            _replace(graph, node, *wide)
            widened = True
    drop_unused_initializers(graph)
    return widened


def _widen_cast(graph: ir.Graph, node: ir.Node) -> bool:
    """Let a Cast read its constant codes as 8-bit ones: a weight of operations in float (`qdq.write_weights`)."""
    codes = _integers(node.inputs[0])
    if codes is None:
        return False
    node.replace_input_with(0, add_initializer(graph, f"{node.name}/codes", codes.astype(np.int8)))
    return True


def _wide(node: ir.Node) -> tuple[Array, Array, int | None] | None:
    """(8-bit codes with zero point 0, their scale, its axis) of a DequantizeLinear, or None where there are none."""
    codes = _integers(node.inputs[0])
    if codes is None:
        return None
    axis, size = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    zero_point = _integers(node.inputs[2] if len(node.inputs) > 2 else None)
    scale = constant(node.inputs[1])
    if size:
        parts = _channel_scale(node.inputs[1])
        if parts is None:
            return None
        multiples, scale, channel_axis = parts
        expanded = [
            None if each is None else np.repeat(each, size, axis=axis).take(range(codes.shape[axis]), axis=axis)
            for each in (multiples, zero_point)
        ]
        wide = (codes - (0 if expanded[1] is None else expanded[1])) * expanded[0]
        axis = channel_axis
    else:
        if scale is None:
            return None
        if zero_point is not None and zero_point.ndim:
            zero_point = zero_point.reshape([-1 if each == axis % codes.ndim else 1 for each in range(codes.ndim)])
        wide = codes - (0 if zero_point is None else zero_point)
    if wide.min(initial=0) < -128 or wide.max(initial=0) > 127:
        return None
    return wide.astype(np.int8), scale, axis if scale.ndim else None


def _is_scale(value: ir.Value) -> bool:
    """Whether a value is nothing but the scale of blocks."""
    uses = list(value.uses())
    return bool(uses) and all(node.op_type == "DequantizeLinear" and index == 1 for node, index in uses)


def _channel_scale(scale: ir.Value | None) -> tuple[Array, Array, int] | None:
    """(multiples, channel scale, channel axis) of the scale of blocks."""
    producer = None if scale is None else scale.producer()
    if producer is None or producer.op_type != "DequantizeLinear" or len(producer.inputs) > 2:
        return None
    multiples, channel = _integers(producer.inputs[0]), constant(producer.inputs[1])
    axis = producer.attributes.get_int("axis", 1)
    return None if multiples is None or channel is None or axis is None else (multiples, channel, axis)


def _replace(graph: ir.Graph, node: ir.Node, codes: Array, scale: Array, axis: int | None) -> None:
    name = node.outputs[0].name or ""
    inputs = [
        add_initializer(graph, f"{name}/codes", codes),
        add_initializer(graph, f"{name}/scale", scale),
        add_initializer(graph, f"{name}/zero_point", np.zeros(scale.shape, np.int8)),
    ]
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    wide = ir.Node("", "DequantizeLinear", inputs, attributes, name=node.name)
    old = node.outputs[0]
    wide.outputs[0].shape, wide.outputs[0].type = old.shape, old.type
    graph.insert_before(node, wide)
    old.replace_all_uses_with(wide.outputs[0], replace_graph_outputs=True)
    old.name = f"{name}/narrow"
    wide.outputs[0].name = name
    drop_unused(graph, node)


def _integers(value: ir.Value | None) -> Array | None:
    array = constant(value)
    return None if array is None else array.astype(np.int32)
