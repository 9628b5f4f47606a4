"""Recognise layer normalization, which exporters write out as nine operations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import constant, drop_unused, only_user, replace_value

__all__ = ["fuse_layer_norm"]


def fuse_layer_norm(model: ir.Model) -> ir.Model:
    """Replace (x − mean)/√(mean((x − mean)²) + ε)·γ + β over the last axis with LayerNormalization (ONNX opset 17).

    Requires: opset 17 or later; constants are initializers; shapes are inferred.
    Ensures: LayerNormalization in place of each such group whose inner tensors nothing else reads.
    """
    for node in list(model.graph):
        if node.graph is not None and node.op_type == "Div" and node.domain == "":
            _fuse(model.graph, node)
    return model


def _fuse(graph: ir.Graph, divide: ir.Node) -> None:
    centred, deviation = divide.inputs
    subtract = _producer(centred, "Sub")
    epsilon_add = _input_of(_producer(deviation, "Sqrt"), 0, "Add")
    if subtract is None or epsilon_add is None:
        return
    source, mean_value = subtract.inputs
    mean = _producer(mean_value, "ReduceMean")
    epsilon = next((e for value in epsilon_add.inputs if (e := _scalar(value)) is not None), None)
    variance = next((n for value in epsilon_add.inputs if (n := _producer(value, "ReduceMean"))), None)
    if source is None or mean is None or variance is None or epsilon is None or mean.inputs[0] is not source:
        return
    square = _producer(variance.inputs[0], "Pow") or _producer(variance.inputs[0], "Mul")
    if square is None or square.inputs[0] is not centred or not _squares(square):
        return
    if not (_over_last_axis(mean) and _over_last_axis(variance)):
        return
    multiply = only_user(divide.outputs[0])
    gamma = _vector_operand(multiply, "Mul", divide.outputs[0])
    if multiply is None or gamma is None:
        return
    add = only_user(multiply.outputs[0])
    beta = _vector_operand(add, "Add", multiply.outputs[0])
    if add is None or beta is None:
        return
    inside = {id(node) for node in (subtract, mean, square, variance, epsilon_add, divide)}
    if any(id(user) not in inside for user, _ in subtract.outputs[0].uses()):
        return
    attributes = [ir.AttrInt64("axis", -1), ir.AttrFloat32("epsilon", epsilon)]
    fused = ir.Node("", "LayerNormalization", [source, gamma, beta], attributes, name=add.name)
    output = add.outputs[0]
    name = output.name
    graph.insert_before(add, fused)
    replace_value(graph, output, fused.outputs[0])
    drop_unused(graph, add)
    fused.outputs[0].name = name


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def _input_of(node: ir.Node | None, index: int, op_type: str) -> ir.Node | None:
    return None if node is None else _producer(node.inputs[index], op_type)


def _scalar(value: ir.Value | None) -> float | None:
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _squares(node: ir.Node) -> bool:
    return _scalar(node.inputs[1]) == 2.0 if node.op_type == "Pow" else node.inputs[0] is node.inputs[1]


def _over_last_axis(node: ir.Node) -> bool:
    """True when a ReduceMean keeps its axes and works on the last one alone."""
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    source = node.inputs[0]
    rank = None if source is None or source.shape is None else source.shape.rank()
    if axes is None or axes.size != 1 or not node.attributes.get_int("keepdims", 1):
        return False
    axis = int(axes.reshape(()))
    return axis == -1 or (rank is not None and axis == rank - 1)


def _vector_operand(node: ir.Node | None, op_type: str, source: ir.Value) -> ir.Value | None:
    """The constant vector beside `source` in a Mul or Add."""
    if node is None or node.op_type != op_type or node.domain != "":
        return None
    for index, value in enumerate(node.inputs):
        array = constant(node.inputs[1 - index])
        if value is source and array is not None and array.ndim == 1 and array.dtype == np.float32:
            return node.inputs[1 - index]
    return None
