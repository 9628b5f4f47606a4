"""Remove operations that change nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import constant, drop_unused, only_user, removable, replace_value

__all__ = ["simplify"]

_NEUTRAL = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0}


def simplify(model: ir.Model) -> ir.Model:
    """Remove x·1, x/1, x + 0, x − 0, and the Flatten and Reshape that the opset converter puts around Softmax.

    Requires: constants are initializers; shapes are inferred.
    Ensures: none of these is left where x alone decides the shape of the result.
    """
    graph = model.graph
    for node in list(graph):
        if node.graph is None or node.domain != "":
            continue
        if node.op_type in _NEUTRAL:
            _drop_neutral(graph, node)
        elif node.op_type == "Softmax":
            _unflatten(graph, node)
    return model


def _drop_neutral(graph: ir.Graph, node: ir.Node) -> None:
    commutes = node.op_type in ("Add", "Mul")
    for index, value in enumerate(node.inputs):
        other = node.inputs[1 - index]
        array = constant(other)
        if value is None or array is None or array.size != 1 or not (commutes or index == 0):
            continue
        rank = None if value.shape is None else value.shape.rank()
        if np.all(array == _NEUTRAL[node.op_type]) and rank is not None and rank >= array.ndim:
            if removable(node, value):
                replace_value(graph, node.outputs[0], value)
                graph.remove(node, safe=True)
            return


def _unflatten(graph: ir.Graph, softmax: ir.Node) -> None:
    """Flatten(axis = rank − 1) → Softmax(last axis) → Reshape(to the shape before) is Softmax over the last axis."""
    flat, reshape = softmax.inputs[0], only_user(softmax.outputs[0])
    flatten = None if flat is None else flat.producer()
    if flatten is None or flatten.op_type != "Flatten" or reshape is None or reshape.op_type != "Reshape":
        return
    source = flatten.inputs[0]
    shape = None if reshape.inputs[1] is None else reshape.inputs[1].producer()
    if source is None or source.shape is None or shape is None or shape.op_type != "Shape" or len(shape.attributes):
        return
    last = source.shape.rank() - 1
    if shape.inputs[0] is not source or softmax.attributes.get_int("axis", -1) not in (-1, 1):
        return
    if flatten.attributes.get_int("axis", 1) not in (last, -1):
        return
    softmax.attributes["axis"] = ir.AttrInt64("axis", -1)
    softmax.replace_input_with(0, source)
    result = softmax.outputs[0]
    result.shape = source.shape
    replace_value(graph, reshape.outputs[0], result)
    drop_unused(graph, reshape)
    drop_unused(graph, flatten)
