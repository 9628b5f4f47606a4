"""Two convolutions in a row with nothing between them are one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import constant, only_user, replace_initializer_input, replace_value

__all__ = ["merge_pointwise"]


def merge_pointwise(model: ir.Model) -> ir.Model:
    """Merge a 1×1 Conv into the Conv before it, where that takes fewer multiplications and nothing else reads between.

    W₂·(W₁ x + b₁) + b₂ = (W₂ W₁) x + (W₂ b₁ + b₂), in float64.

    Requires: constants are initializers.
    Ensures: no such pair is left whose merged weights have fewer elements than both together.
    """
    graph = model.graph
    for second in list(graph):
        while second.graph is not None and _merge(graph, second):
            pass
    return model


def _merge(graph: ir.Graph, second: ir.Node) -> bool:
    source = second.inputs[0] if second.op_type == "Conv" and second.domain == "" else None
    first = None if source is None else source.producer()
    if source is None or first is None or first.op_type != "Conv" or first.domain != "":
        return False
    if only_user(source) is not second or not _is_pointwise(second) or _groups(first) != 1:
        return False
    weights = [constant(node.inputs[1]) for node in (first, second)]
    biases = [constant(node.inputs[2]) if len(node.inputs) > 2 else None for node in (first, second)]
    if weights[0] is None or weights[1] is None:
        return False
    if any(len(node.inputs) > 2 and bias is None for node, bias in zip((first, second), biases, strict=True)):
        return False
    inner, outer = weights[0].astype("float64"), weights[1].astype("float64")
    matrix = outer.reshape(outer.shape[0], -1)
    merged = (matrix @ inner.reshape(inner.shape[0], -1)).reshape(outer.shape[0], *inner.shape[1:])
    if merged.size >= inner.size + outer.size:
        return False
    replace_initializer_input(graph, first, 1, merged.astype("float32"), f"{first.name}_weight")
    if biases[0] is not None or biases[1] is not None:
        total = np.zeros(len(matrix)) if biases[0] is None else matrix @ biases[0].astype("float64")
        total += 0.0 if biases[1] is None else biases[1].astype("float64")
        replace_initializer_input(graph, first, 2, total.astype("float32"), f"{first.name}_bias")
    source.shape = second.outputs[0].shape
    replace_value(graph, second.outputs[0], source)
    graph.remove(second, safe=True)
    return True


def _is_pointwise(node: ir.Node) -> bool:
    """Whether each position is multiplied by a matrix, and nothing else."""
    weight = constant(node.inputs[1])
    attributes = node.attributes
    return (
        weight is not None
        and all(size == 1 for size in weight.shape[2:])
        and _groups(node) == 1
        and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and not any(attributes.get_ints("pads", []) or [])
        and all(step == 1 for step in attributes.get_ints("strides", []) or [])
    )


def _groups(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1) or 1
