"""Where integers go: which nodes compute in integers, which tensors carry codes, which weights are stored as codes.

The rules follow what ONNX Runtime has integer kernels for; `docs/design.md` says how they were found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantbench.graphs.code_shifts import scaled_and_shifted
from quantbench.graphs.edit import constant, only_user
from quantbench.graphs.exact import stays_exact

__all__ = ["Placement", "WeightUse", "joins", "place_activations", "weight_uses"]

_LINEAR = {"Conv", "Gemm", "MatMul"}
"""Multiply by constant weights in integers."""
_FOLLOWING = {"Add", "Concat", "GlobalAveragePool", "HardSwish", "Mul"}
"""Have an integer kernel that pays when the tensors around it carry codes anyway; that of AveragePool does not."""
_MOVING = {"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Work on codes as they are; input and output share scale and zero point."""
_ACTIVATIONS = {"Clip", "Min", "Relu"}
"""Vanish into the range of the tensor behind them; what a Min bounds per channel into a Min of its codes. So do a scale
and a shift by a number (`graphs.code_shifts`)."""


@dataclass(frozen=True)
class WeightUse:
    """A constant weight and the operation that reads it.

    Attributes:
        node: name of the reading node.
        op_type: Conv, ConvTranspose, Gemm, MatMul or Gather.
        channel_axis: the axis of the output channels, along which scales may run.
        reduction_axis: the axis summed over, along which blocks run; None where there is none.
        bias: the bias initializer added to the same accumulator, or None.
        added: the initializer that shifts each output channel: the bias, or what an Add behind a MatMul adds; or None.
        source: the tensor multiplied by the weight.
    """

    node: str
    op_type: str
    channel_axis: int
    reduction_axis: int | None
    bias: str | None
    added: str | None
    source: str


@dataclass(frozen=True)
class Placement:
    """Attributes:
    nodes: names of the nodes that compute in integers, in the order of the graph.
    tensors: the tensors that carry codes, in the order of the graph.
    tied: tensor → the tensor whose scale and zero point it shares.
    """

    nodes: tuple[str, ...]
    tensors: tuple[str, ...]
    tied: dict[str, str]


def weight_uses(model: ir.Model) -> dict[str, WeightUse]:
    """The weights of matrix operations and the tables of lookups, by initializer name: float32, two axes or more.

    Tables of boxes (`exact.stays_exact`) are none.
    """
    exact = stays_exact(model.graph)
    uses: dict[str, WeightUse] = {}
    for node in model.graph:
        position = 0 if node.op_type == "Gather" else 1
        if (
            node.domain != ""
            or node.op_type not in {*_LINEAR, "ConvTranspose", "Gather"}
            or len(node.inputs) <= position
            or not exact.isdisjoint(node.outputs)
        ):
            continue
        value = node.inputs[position]
        array = constant(value)
        if value is None or value.name is None or array is None or array.ndim < 2 or array.dtype != np.float32:
            continue
        channel, reduction = _axes(node, array.ndim)
        bias = node.inputs[2] if node.op_type != "Gather" and len(node.inputs) > 2 else None
        bias_array = constant(bias)
        bias_name = bias.name if bias is not None and bias_array is not None and bias_array.ndim == 1 else None
        source = node.inputs[1 - position]
        uses.setdefault(
            value.name,
            WeightUse(
                node=node.name or "",
                op_type=node.op_type,
                channel_axis=channel,
                reduction_axis=reduction,
                bias=bias_name,
                added=_added(node, array.shape[-1]) if node.op_type == "MatMul" else bias_name,
                source=(source.name or "") if source is not None else "",
            ),
        )
    return uses


def place_activations(model: ir.Model, skip: Iterable[str] = ()) -> Placement:
    """Choose the nodes and tensors that compute and travel in integers; nodes named in `skip` stay in float."""
    skipped = set(skip)
    exact = stays_exact(model.graph)
    order = [
        node
        for node in model.graph
        if node.domain == "" and node.name not in skipped and exact.isdisjoint(node.outputs)
    ]
    nodes: set[str | None] = set()
    carried: set[ir.Value] = set()
    tied: dict[ir.Value, ir.Value] = {}
    for node in order:
        if node.op_type in _LINEAR and _has_weight(node) and node.inputs[0] is not None and _is_float(node.inputs[0]):
            nodes.add(node.name)
            carried.add(node.inputs[0])
            if node.op_type == "Conv":
                carried.add(_after_activation(node.outputs[0], nodes))
    changed = True
    while changed:
        changed = False
        for node in order:
            if node.name in nodes:
                continue
            if node.op_type in _FOLLOWING and _all_carried(node, carried) and _alone(node):
                nodes.add(node.name)
                carried.add(_after_activation(node.outputs[0], nodes))
                changed = True
            elif node.op_type in _MOVING and node.outputs[0] in carried and _comes_from(node, nodes):
                source = node.inputs[0]
                assert source is not None
                nodes.add(node.name)
                carried.add(source)
                tied[node.outputs[0]] = source
                changed = True
    everything = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return Placement(
        nodes=tuple(node.name or "" for node in model.graph if node.name in nodes),
        tensors=tuple(value.name or "" for value in everything if value in carried),
        tied={value.name or "": source.name or "" for value, source in tied.items()},
    )


def joins(node: ir.Node, before: ir.Node) -> bool:
    """Whether `node` is an activation, a scale or a shift that vanishes where `before` computes in integers."""
    value = before.outputs[0]
    return only_user(value) is node and _vanishes(node, value) and before.op_type not in _MOVING


def _axes(node: ir.Node, rank: int) -> tuple[int, int | None]:
    """(channel axis, reduction axis) of a weight."""
    if node.op_type == "Gemm":
        return (0, 1) if node.attributes.get_int("transB", 0) else (1, 0)
    if node.op_type == "MatMul":
        return rank - 1, rank - 2
    if node.op_type == "ConvTranspose":
        return (1, 0) if (node.attributes.get_int("group", 1) or 1) == 1 else (0, None)
    return (0, None) if node.op_type == "Gather" else (0, 1)


def _added(matmul: ir.Node, channels: int) -> str | None:
    """The vector that an Add, alone behind a MatMul, adds to its result."""
    user = only_user(matmul.outputs[0])
    if user is None or user.op_type != "Add" or user.domain != "":
        return None
    for value in user.inputs:
        array = constant(value)
        if value is not None and array is not None and array.shape == (channels,) and len(value.uses()) == 1:
            return value.name
    return None


def _has_weight(node: ir.Node) -> bool:
    array = constant(node.inputs[1])
    if array is None or array.dtype != np.float32 or array.ndim < 2:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return bias is None or constant(bias) is not None


def _is_float(value: ir.Value) -> bool:
    return value.dtype in (None, ir.DataType.FLOAT)


def _after_activation(value: ir.Value, nodes: set[str | None]) -> ir.Value:
    """`value`, or what the activations, scales and shifts behind it make of it, each its only reader; they then count
    as integer."""
    user = only_user(value)
    while user is not None and _vanishes(user, value):
        nodes.add(user.name)
        value = user.outputs[0]
        user = only_user(value)
    return value


def _vanishes(node: ir.Node, value: ir.Value) -> bool:
    """Whether what the node does to `value` can be done by the parameters of its codes."""
    return _bounds(node, value) or scaled_and_shifted(node, value) is not None


def _bounds(node: ir.Node, value: ir.Value) -> bool:
    """Whether the node is an activation of `value` whose bounds are constant."""
    if node.domain != "" or node.op_type not in _ACTIVATIONS or node.inputs[0] is not value:
        return False
    return all(bound is None or constant(bound) is not None for bound in node.inputs[1:])


def _alone(node: ir.Node) -> bool:
    """Whether the codes of what the node reads can be its own choice, if it has one: hard-swish wants them from −3."""
    return node.op_type != "HardSwish" or (node.inputs[0] is not None and only_user(node.inputs[0]) is node)


def _all_carried(node: ir.Node, carried: set[ir.Value]) -> bool:
    return all(value is not None and value in carried for value in node.inputs) and all(
        output.dtype in (None, ir.DataType.FLOAT) for output in node.outputs
    )


def _comes_from(node: ir.Node, nodes: set[str | None]) -> bool:
    """Whether the node moves codes that an integer operation makes for it alone. A pool has a fast kernel for codes
    only in the layout in which convolutions give them."""
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    if value is None or producer is None or producer.name not in nodes or only_user(value) is None:
        return False
    if node.op_type != "MaxPool":
        return True
    while producer is not None and producer.op_type in (*_ACTIVATIONS, "MaxPool") and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "Conv"
