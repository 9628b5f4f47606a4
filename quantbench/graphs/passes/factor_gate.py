"""A gate with a residual in one product: x + x·g = x·(g + 1), where g is small and x is not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer, constant, only_user

__all__ = ["factor_gate"]


def factor_gate(model: ir.Model) -> ir.Model:
    """Replace x + x·g with x·(g + 1) where g is computed, is one number a channel, and only this product reads it.

    The addition then runs over g instead of x; where g is a Clip's, it moves before the Clip, whose bounds rise by 1,
    and folds into the linear operation there (`fold_affine`).

    Requires: constants are initializers; shapes are inferred.
    Ensures: no such sum is left.
    """
    graph = model.graph
    for node in list(graph):
        if node.graph is None or node.op_type != "Add" or node.domain != "" or None in node.inputs:
            continue
        for index in (0, 1):
            product, source = node.inputs[index], node.inputs[1 - index]
            multiply = None if product is None else product.producer()
            if product is None or source is None or multiply is None or multiply.op_type != "Mul":
                continue
            if only_user(product) is not node or source not in multiply.inputs or product is source:
                continue
            gate = multiply.inputs[1] if multiply.inputs[0] is source else multiply.inputs[0]
            if gate is None or not _is_gate(gate, source) or only_user(gate) is not multiply:
                continue
            _raise_gate(graph, multiply, gate)
            name = node.outputs[0].name
            product.shape, product.type = node.outputs[0].shape, node.outputs[0].type
            node.outputs[0].replace_all_uses_with(product, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            product.name = name
            break
    return model


def _is_gate(gate: ir.Value, source: ir.Value) -> bool:
    """Whether the computed values vary over the first two axes alone, so that the product has the source's shape."""
    if gate is source or gate.is_initializer() or gate.shape is None or source.shape is None:
        return False
    sizes = tuple(gate.shape)
    return len(sizes) == source.shape.rank() and len(sizes) > 2 and all(size == 1 for size in sizes[2:])


def _raise_gate(graph: ir.Graph, multiply: ir.Node, gate: ir.Value) -> None:
    """Let the product read gate + 1."""
    name = f"{gate.name}_raised"
    one = add_initializer(graph, f"{name}_by", np.asarray(1.0, np.float32))
    clip = gate.producer()
    bounds = [] if clip is None or clip.op_type != "Clip" else [constant(value) for value in clip.inputs[1:]]
    before = clip.inputs[0] if clip is not None and len(bounds) == 2 and None not in bounds else None
    source = gate if before is None else before
    raised = ir.Node("", "Add", [source, one], name=name)
    value = raised.outputs[0]
    value.name, value.shape, value.type = name, gate.shape, gate.type
    if before is None or clip is None:
        graph.insert_before(multiply, raised)
        multiply.replace_input_with(multiply.inputs.index(gate), value)
        return
    graph.insert_before(clip, raised)
    clip.replace_input_with(0, value)
    for index, bound in enumerate(bounds, 1):
        assert bound is not None
        clip.replace_input_with(index, add_initializer(graph, f"{name}_bound", np.asarray(bound + 1, np.float32)))
