"""Which tensors of a graph are rounded when it runs in a reduced float format: the definition of emulation.

A machine that keeps every tensor in format F and accumulates in float32 rounds its inputs and weights to F once, and
rounds what each arithmetic operation puts out, after the activation (Relu, Clip) that belongs to it. Operations that
only move or pick values leave them in F. This file says which tensors those are; it does not matter what runs them.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from quantbench.graphs.edit import only_user
from quantbench.graphs.exact import stays_exact

__all__ = ["carries_sizes", "float_weights", "operation_of", "rounding_points", "steers"]


def rounding_points(model: ir.Model, exclude: Collection[str] = ()) -> list[str]:
    """Names of the tensors that are rounded while the graph runs, in the order in which they come about.

    These are the float32 graph inputs, and every float32 output of an arithmetic operation. Where Relu or Clip is the
    only reader of such an output, the point is behind it. An operation that `PICKS` does not list is arithmetic, so
    an unknown one is rounded. Tensors that only say sizes (`carries_sizes`), boxes and indices (`exact.stays_exact`),
    and those inside the bodies of If, Loop and Scan, stay as they are.

    Requires: element types are known (`graphs.load.prepare` infers them).

    Args:
        model: the prepared graph.
        exclude: names that stay in float32.
    """
    graph = model.graph
    untouched = carries_sizes(graph) | stays_exact(graph)
    points = [value for value in graph.inputs if not value.is_initializer()]
    pending: set[ir.Value] = set()
    for node in graph:
        if _picks(node):
            continue
        if _bounds(node) and node.inputs[0] not in pending:
            continue  # what it reads is in the format already, and so are its bounds
        for value in node.outputs:
            reader = only_user(value)
            if reader is not None and _bounds(reader) and reader.inputs[0] is value and len(value.uses()) == 1:
                pending.add(value)
            else:
                points.append(value)
    return [
        value.name
        for value in points
        if value.name and _is_float(value) and value not in untouched
        if value.name not in exclude
    ]


def operation_of(activation: ir.Node) -> ir.Node | None:
    """The operation that a Relu or Clip belongs to, so that only what comes out of the activation is rounded; None for
    any other node, and for one that bounds what something else reads, too."""
    source = activation.inputs[0] if _bounds(activation) and activation.inputs else None
    before = None if source is None else source.producer()
    alone = before is not None and source is not None and only_user(source) is activation and len(source.uses()) == 1
    return before if alone and before is not None and not _picks(before) else None


def float_weights(model: ir.Model) -> list[str]:
    """Names of the float32 initializers that are operands of the computation, in the graph's order.

    Weights, biases, embedding tables, constant operands and the bounds of Clip are tensors that the machine holds, so
    they are rounded. Resize's scales and region, the thresholds of NonMaxSuppression and what only says sizes are
    settings rather than tensors, and are not; nor are default boxes, and what else only `exact.stays_exact` is made of.
    """
    graph = model.graph
    sizes = carries_sizes(graph)
    exact = stays_exact(graph)
    return [
        name
        for name, value in graph.initializers.items()
        if _is_float(value) and not value.is_graph_input() and value not in sizes
        if value.is_graph_output() or any(not exact.issuperset(reader.outputs) for reader, _ in value.uses())
    ]


def carries_sizes(graph: ir.Graph) -> set[ir.Value]:
    """Values that serve only as shapes, indices or settings of an operation, never as data.

    Such a value is read as nothing but an input of `SETTINGS`, directly, or through operations on shapes and
    constants. One that is computed from the values of a graph input (ArgMax of a score) is data.
    """
    data: set[ir.Value | None] = set(graph.inputs)
    for node in graph:
        if node.op_type not in ("Shape", "Size") and not data.isdisjoint(node.inputs):
            data.update(node.outputs)
    sizes: set[ir.Value] = set()
    for node in reversed(graph):
        sizes.update(value for value in node.outputs if _only_sizes(value, sizes, value in data))
    sizes.update(value for value in graph.initializers.values() if _only_sizes(value, sizes, False))
    sizes.update(value for value in graph.inputs if _only_sizes(value, sizes, True))
    return sizes


def steers(node: ir.Node, index: int, sizes: Collection[ir.Value]) -> bool:
    """Whether input `index` of `node` is a setting, or all that comes out of the node is among `sizes`."""
    if node.domain in ("", "ai.onnx") and index in SETTINGS.get(node.op_type, ()):
        return True
    used = [value for value in node.outputs if _used(value)]
    return bool(used) and all(value in sizes for value in used)


# fmt: off
PICKS = frozenset(
    {
        "ArgMax", "ArgMin", "CenterCropPad", "Compress", "Concat", "ConcatFromSequence", "DepthToSpace", "Dropout",
        "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "GlobalMaxPool", "Identity", "Max", "MaxPool",
        "MaxRoiPool", "MaxUnpool", "Min", "NonMaxSuppression", "NonZero", "OneHot", "Pad", "ReduceMax", "ReduceMin",
        "Reshape", "Resize", "ReverseSequence", "ScatterElements", "ScatterND", "SequenceAt", "Shape", "Size",
        "Slice", "SpaceToDepth", "Split", "SplitToSequence", "Squeeze", "Tile", "TopK", "Transpose", "Trilu",
        "Unique", "Unsqueeze", "Upsample", "Where",
    }
)
# fmt: on
"""Operations whose every output value is one of their input values, so that no rounding is needed. Resize and Upsample
count only where they take the nearest value, the Scatter operations where they do not reduce."""

BOUNDS = frozenset({"Relu", "Clip"})
"""Activations that belong to the operation before them."""

SETTINGS: dict[str, frozenset[int]] = {
    "CenterCropPad": frozenset({1}),
    "ConstantOfShape": frozenset({0}),
    "Dropout": frozenset({1, 2}),
    "Expand": frozenset({1}),
    "Gather": frozenset({1}),
    "GatherElements": frozenset({1}),
    "GatherND": frozenset({1}),
    "NonMaxSuppression": frozenset({2, 3, 4}),
    "OneHot": frozenset({1}),
    "Pad": frozenset({1, 3}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "ScatterElements": frozenset({1}),
    "ScatterND": frozenset({1}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    "Upsample": frozenset({1}),
}
"""Inputs that steer an operation and are no operand of it."""


def _picks(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in PICKS:
        return False
    if node.op_type in ("Resize", "Upsample"):
        return node.attributes.get_string("mode", "nearest") == "nearest"
    return node.attributes.get_string("reduction", "none") == "none"


def _bounds(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in BOUNDS


def _only_sizes(value: ir.Value, sizes: set[ir.Value], is_data: bool) -> bool:
    if value.is_graph_output() or not value.uses():
        return False
    return all(steers(node, index, set() if is_data else sizes) for node, index in value.uses())


def _used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT
