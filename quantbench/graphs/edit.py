"""Small questions and edits that every rewrite pass needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = [
    "add_initializer",
    "channel_vector",
    "constant",
    "drop_unused",
    "drop_unused_initializers",
    "only_user",
    "reads",
    "removable",
    "replace_initializer_input",
    "replace_value",
]

Array = NDArray[Any]


def constant(value: ir.Value | None) -> Array | None:
    """The value as an array when it is an initializer, else None."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, or None when there are several, none, or it is a graph output.

    A reader in the body of an If, Loop or Scan does not count: it belongs to another graph.
    """
    if value.is_graph_output():
        return None
    users = {id(node): node for node, _ in value.uses()}
    user = next(iter(users.values())) if len(users) == 1 else None
    return user if user is not None and user.graph is value.graph else None


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads: its inputs, and what its bodies (If, Loop, Scan) take from outside."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            inside = ir.traversal.RecursiveGraphIterator(body)
            values = [*body.outputs, *(value for inner in inside for value in inner.inputs)]
            yield from (value for value in values if value is not None and value.graph is node.graph)


def add_initializer(graph: ir.Graph, name: str, array: Array | ir.TensorProtocol) -> ir.Value:
    """Register a new initializer; a number is appended to `name` when it is taken."""
    taken = graph.initializers
    unique = name
    count = 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.Tensor(np.asarray(array, order="C"), name=unique) if isinstance(array, np.ndarray) else array
    tensor.name = unique
    shape = ir.Shape(tensor.shape)  # type: ignore[arg-type] # the protocol's sizes are wider than they ever are
    value = ir.Value(name=unique, const_value=tensor, shape=shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


def replace_initializer_input(graph: ir.Graph, node: ir.Node, index: int, array: Array, name: str) -> ir.Value:
    """Make input `index` of `node` a new initializer; the old one goes when nothing else reads it.

    The new initializer keeps the old one's name where it takes its place.
    """
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        name = old.name or name
        del graph.initializers[name]
    value = add_initializer(graph, name, array)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
    return value


def removable(node: ir.Node, source: ir.Value) -> bool:
    """Whether the readers of `node` could read `source`, the same values, without a graph output losing its name."""
    if not node.outputs[0].is_graph_output():
        return True
    return source.producer() is not None and not source.is_graph_output()


def replace_value(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old`, the graph's outputs included, read `new` instead.

    Where `old` is a graph output, `new` takes over its name, so that the interface stays.
    """
    was_output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if was_output and not new.is_initializer() and not new.is_graph_input():
        name, old.name = old.name, f"{old.name}_before"
        new.name = name
    if new.shape is None:
        new.shape = old.shape
    if new.type is None:
        new.type = old.type


def drop_unused(graph: ir.Graph, node: ir.Node | None) -> None:
    """Remove `node` when nothing reads its outputs, then its producers in turn."""
    pending = [node]
    while pending:
        current = pending.pop()
        if (
            current is None
            or current.graph is None
            or any(out.uses() or out.is_graph_output() for out in current.outputs)
        ):
            continue
        pending += [value.producer() for value in current.inputs if value is not None]
        graph.remove(current, safe=True)


def channel_vector(array: Array, rank: int, channels: int) -> Array | None:
    """`array` as float64 of shape (channels,) when, broadcast to `rank` axes, it varies over axis 1 only; else None."""
    if array.size == 1 and array.ndim <= rank:
        return np.full(channels, float(array.reshape(())))
    if array.ndim > rank:
        return None
    full = (1,) * (rank - array.ndim) + array.shape
    if full[1] != channels or any(size != 1 for axis, size in enumerate(full) if axis != 1):
        return None
    return array.reshape(channels).astype(np.float64)


def drop_unused_initializers(graph: ir.Graph) -> None:
    """Remove the constants that nothing reads and that are neither inputs nor outputs of the graph."""
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]
