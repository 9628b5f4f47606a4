"""Compute once what does not depend on the graph's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from quantbench.graphs.edit import add_initializer, drop_unused, replace_value
from quantbench.graphs.executor import session_options

__all__ = ["fold_constants"]

_LARGEST = 1 << 24  # elements; a larger constant is left to be computed, so that the file does not grow
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}


def fold_constants(model: ir.Model) -> ir.Model:
    """Replace nodes fed by initializers alone with their results, as ONNX Runtime computes them.

    Requires: constants are initializers (see `clean`).
    Ensures: no node is left whose inputs are all constant, but random ones, control flow, what makes a graph output,
    and results that are sequences, strings, or of more than 2^24 elements.
    """
    graph = model.graph
    known = {value.name for value in graph.initializers.values()}
    nodes: list[ir.Node] = []
    for node in graph:
        values = [value for value in node.inputs if value is not None]
        if node.op_type in _RANDOM or not values or any(value.name not in known for value in values):
            continue
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            continue
        nodes.append(node)
        known |= {output.name for output in node.outputs}
    if not nodes:
        return model
    for output, array in _compute(model, nodes).items():
        if not isinstance(array, np.ndarray) or array.dtype == object or array.size > _LARGEST:
            continue
        value = add_initializer(graph, f"{output.name}_folded", array)
        replace_value(graph, output, value)
    for node in reversed(nodes):
        drop_unused(graph, node)
    for name in [
        name for name, value in graph.initializers.items() if not value.uses() and not value.is_graph_output()
    ]:
        del graph.initializers[name]
    return model


def _compute(model: ir.Model, nodes: list[ir.Node]) -> dict[ir.Value, Any]:
    """Run the constant nodes as a graph of their own; the results that others read, by value."""
    inside = {id(node) for node in nodes}
    wanted = [
        output
        for node in nodes
        for output in node.outputs
        if not output.is_graph_output() and any(id(user) not in inside for user, _ in output.uses())
    ]
    if not wanted:
        return {}
    part = ir.Model(ir.convenience.extract(model.graph, [], wanted), ir_version=model.ir_version)
    session = ort.InferenceSession(
        ir.to_proto(part).SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    return dict(zip(wanted, session.run(None, {}), strict=True))
