"""Which float tensors no number format applies to: boxes on their way through suppression, and indices as floats.

A detector ends in arithmetic on boxes: default boxes are shifted and scaled by what the last convolutions give, the
overlapping ones are suppressed, the rest is picked and put in order. That arithmetic compares positions and picks
rows; it is no layer of the network, and it stays in FP32, as does a number that only says a position (the class that
ArgMax found, a row's index, a size). What such a tensor is follows from the graph alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from quantbench.graphs.edit import constant

__all__ = ["stays_exact"]

_LEARNED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
"""Layers, where they read a constant weight: what they give is the network's."""

_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu"})
"""Part of the layer that they follow."""

_INDEX_OUTPUTS = {
    "ArgMax": (0,),
    "ArgMin": (0,),
    "NonMaxSuppression": (0,),
    "NonZero": (0,),
    "Shape": (0,),
    "Size": (0,),
    "TopK": (1,),
    "Unique": (1, 2, 3),
}

_PLACES = {
    "Gather": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "RoiAlign": (1, 2),
    "Slice": (1, 2, 3, 4),
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
"""Inputs that say which values are taken: what comes out is of the kind of the other input."""


def stays_exact(graph: ir.Graph) -> set[ir.Value]:
    """The values that keep their exact float32 numbers in every variant.

    These are, up to the layers before and behind them (`_LEARNED` with constant weights, and their activation): what
    leads into NonMaxSuppression (or into an If, Loop or Scan that holds one) and what is computed from that or from its
    result; numbers computed from indices and constants alone; and constants looked up for nothing but these.
    """
    exact = _into_suppression(graph)
    indices = _indices(graph)
    exact |= indices
    for node in graph:
        if not _is_learned(node) and any(value in exact and value not in indices for value in _data(node)):
            exact.update(node.outputs)
    for node in reversed(graph):
        if _data(node) and all(constant(value) is not None for value in _data(node)) and _only_for(node, exact):
            exact.update(node.outputs)
    return exact


def _into_suppression(graph: ir.Graph) -> set[ir.Value]:
    """What suppression reads, back to the layers that it comes from."""
    found: set[ir.Value] = set()
    pending = [value for node in graph if _suppresses(node) for value in _read(node)]
    while pending:
        value = pending.pop()
        producer = value.producer()
        if value in found or value.is_initializer() or (producer is not None and _ends_a_layer(producer)):
            continue
        found.add(value)
        if producer is not None:
            pending += _data(producer)
    return found


def _indices(graph: ir.Graph) -> set[ir.Value]:
    """What is computed from indices and constants alone."""
    found: set[ir.Value] = set()
    for node in graph:
        found.update(node.outputs[k] for k in _INDEX_OUTPUTS.get(node.op_type, ()) if k < len(node.outputs))
        data = _data(node)
        if any(value in found for value in data) and all(value in found or value.is_initializer() for value in data):
            found.update(node.outputs)
    return found


def _only_for(node: ir.Node, exact: set[ir.Value]) -> bool:
    """Whether all that reads the node's outputs makes exact values."""
    readers = [reader for output in node.outputs for reader, _ in output.uses()]
    return bool(readers) and all(set(reader.outputs) <= exact for reader in readers)


def _suppresses(node: ir.Node) -> bool:
    return node.op_type == "NonMaxSuppression" or any(_suppresses(inner) for body in _bodies(node) for inner in body)


def _read(node: ir.Node) -> list[ir.Value]:
    """The boxes and scores that suppression reads; of a body all that it takes from the graph around it."""
    if node.op_type == "NonMaxSuppression":
        return [value for value in node.inputs[:2] if value is not None]
    captured = [
        value
        for body in _bodies(node)
        for inner in body
        for value in inner.inputs
        if value is not None and value.graph is node.graph
    ]
    return [value for value in node.inputs if value is not None] + captured


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _ends_a_layer(node: ir.Node) -> bool:
    if node.op_type in _ACTIVATIONS and node.inputs[0] is not None:
        before = node.inputs[0].producer()
        return before is not None and _is_learned(before)
    return _is_learned(node)


def _is_learned(node: ir.Node) -> bool:
    return node.op_type in _LEARNED and any(value is not None and value.is_initializer() for value in node.inputs[1:])


def _data(node: ir.Node) -> list[ir.Value]:
    """The inputs that are values, not places."""
    places = _PLACES.get(node.op_type, ())
    return [value for index, value in enumerate(node.inputs) if value is not None and index not in places]
