"""Recognise hard-swish, which exporters write out as four operations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import constant, drop_unused, only_user, replace_value

__all__ = ["fuse_hard_swish"]


def fuse_hard_swish(model: ir.Model) -> ir.Model:
    """Replace x·clip(x + 3, 0, 6)/6 and x·HardSigmoid(x; 1/6, 1/2) with HardSwish (ONNX opset 14).

    Requires: opset 14 or later; constants are initializers.
    Ensures: HardSwish in place of each such group whose inner tensors nothing else reads.
    """
    graph = model.graph
    for node in list(graph):
        if node.graph is None or node.domain != "":
            continue
        if node.op_type == "Clip":
            _fuse_clip(graph, node)
        elif node.op_type == "HardSigmoid":
            _fuse_hard_sigmoid(graph, node)
    return model


def _fuse_clip(graph: ir.Graph, clip: ir.Node) -> None:
    if not (_scalar(clip, 1) == 0.0 and _scalar(clip, 2) == 6.0) or clip.inputs[0] is None:
        return
    add = clip.inputs[0].producer()
    if add is None or add.op_type != "Add" or only_user(add.outputs[0]) is not clip:
        return
    source = _other_operand(add, 3.0)
    after = only_user(clip.outputs[0])
    if source is None or after is None:
        return
    if _divides_by_six(after, clip.outputs[0]):  # x · (clip / 6)
        multiply = only_user(after.outputs[0])
        if multiply is not None and _multiplies(multiply, source, after.outputs[0]):
            _replace(graph, source, multiply)
    elif _multiplies(after, source, clip.outputs[0]):  # (x · clip) / 6
        divide = only_user(after.outputs[0])
        if divide is not None and _divides_by_six(divide, after.outputs[0]):
            _replace(graph, source, divide)


def _fuse_hard_sigmoid(graph: ir.Graph, node: ir.Node) -> None:
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    source = node.inputs[0]
    multiply = only_user(node.outputs[0])
    if source is None or multiply is None or not (np.float32(alpha) == np.float32(1 / 6) and beta == 0.5):
        return
    if _multiplies(multiply, source, node.outputs[0]):
        _replace(graph, source, multiply)


def _replace(graph: ir.Graph, source: ir.Value, last: ir.Node) -> None:
    fused = ir.Node("", "HardSwish", [source], name=last.name)
    output = last.outputs[0]
    fused.outputs[0].shape, fused.outputs[0].type = output.shape, output.type
    name = output.name
    graph.insert_before(last, fused)
    fused.outputs[0].name = name
    replace_value(graph, output, fused.outputs[0])
    drop_unused(graph, last)
    fused.outputs[0].name = name


def _scalar(node: ir.Node, index: int) -> float | None:
    array = constant(node.inputs[index]) if index < len(node.inputs) else None
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _other_operand(node: ir.Node, expected: float) -> ir.Value | None:
    """The operand beside the scalar constant `expected`."""
    for index, value in enumerate(node.inputs):
        if _scalar(node, 1 - index) == expected and constant(value) is None:
            return value
    return None


def _divides_by_six(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type == "Div":
        return node.inputs[0] is source and _scalar(node, 1) == 6.0
    return node.op_type == "Mul" and any(
        value is source and (factor := _scalar(node, 1 - index)) is not None and np.float32(factor) == np.float32(1 / 6)
        for index, value in enumerate(node.inputs)
    )


def _multiplies(node: ir.Node, one: ir.Value, other: ir.Value) -> bool:
    return node.op_type == "Mul" and {id(value) for value in node.inputs} == {id(one), id(other)}
