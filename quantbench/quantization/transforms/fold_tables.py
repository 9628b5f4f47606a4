"""Multiply tables of lookups by the matrix behind them, once, where that leaves fewer weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import add_initializer, constant, drop_unused, drop_unused_initializers, only_user

__all__ = ["fold_tables"]

Array = NDArray[Any]


def fold_tables(model: ir.Model) -> tuple[str, ...]:
    """Let x = table[i], y = x·W + b become y = (table·W + b)[i]: the same in real numbers.

    Requires: constants are initializers.
    Ensures: no Gather along axis 0 of a constant table is followed, alone, by a Gemm or MatMul with a constant matrix,
    where the product has fewer elements than the table and the matrix together.

    Args:
        model: a prepared graph; changed in place.

    Returns:
        Names of the operations that have become part of a table.
    """
    graph = model.graph
    folded = []
    for gather in list(graph):
        product = only_user(gather.outputs[0]) if gather.op_type == "Gather" and gather.domain == "" else None
        table = constant(gather.inputs[0]) if gather.inputs else None
        if product is None or table is None or table.ndim != 2 or gather.attributes.get_int("axis", 0) != 0:
            continue
        made = _product(product, gather.outputs[0], table)
        if made is None:
            continue
        name = gather.outputs[0].name
        source = add_initializer(graph, f"{product.name}_table", made)
        node = ir.Node("", "Gather", [source, gather.inputs[1]], name=product.name)
        old, new = product.outputs[0], node.outputs[0]
        new.shape, new.type = old.shape, old.type
        kept = old.name
        graph.insert_before(product, node)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name, new.name = f"{kept}_unfolded", kept
        folded.append(product.name or name or "")
        drop_unused(graph, product)
        drop_unused(graph, gather)
    drop_unused_initializers(graph)
    return tuple(folded)


def _product(node: ir.Node, source: ir.Value, table: Array) -> Array | None:
    """The table times the matrix of a Gemm or MatMul, with its bias, as float32; None where it does not pay."""
    if node.domain != "" or node.op_type not in ("Gemm", "MatMul") or node.inputs[0] is not source:
        return None
    matrix = constant(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shift = None if bias is None else constant(bias)
    if matrix is None or matrix.ndim != 2 or (bias is not None and (shift is None or shift.ndim > 1)):
        return None
    gemm = node.op_type == "Gemm"
    if gemm and node.attributes.get_int("transA", 0) == 1:
        return None
    if gemm and node.attributes.get_int("transB", 0) == 1:
        matrix = matrix.T
    if len(table) * matrix.shape[1] >= table.size + matrix.size:
        return None
    made = table.astype(np.float64) @ matrix.astype(np.float64)
    if gemm:
        made *= node.attributes.get_float("alpha", 1.0) or 0.0
    if shift is not None:
        made = made + shift.astype(np.float64) * (node.attributes.get_float("beta", 1.0) or 0.0)
    return np.asarray(made, np.float32)
