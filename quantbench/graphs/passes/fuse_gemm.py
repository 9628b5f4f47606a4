"""A matrix product with a vector added is one operation, Gemm."""

from __future__ import annotations

import onnx_ir as ir

from quantbench.graphs.edit import constant, drop_unused, only_user, replace_value

__all__ = ["fuse_gemm"]


def fuse_gemm(model: ir.Model) -> ir.Model:
    """Write MatMul of matrices and the Add of a constant vector, alone behind it, as Gemm.

    ONNX Runtime does so in any case when it loads a graph, and before it looks for integers: a Gemm whose bias is no
    code of the accumulator then finds no integer kernel, and its weights are dequantized in every run. As a Gemm its
    bias is planned for.

    Requires: constants are initializers; shapes are inferred.
    Ensures: no MatMul of two axes with constant weights is left that such an Add follows.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type == "MatMul" and node.domain == "":
            _fuse(graph, node)
    return model


def _fuse(graph: ir.Graph, matmul: ir.Node) -> None:
    source, weight = matmul.inputs
    matrix = constant(weight)
    add = only_user(matmul.outputs[0])
    if source is None or source.shape is None or source.shape.rank() != 2 or matrix is None or matrix.ndim != 2:
        return
    if add is None or add.op_type != "Add" or add.domain != "":
        return
    bias = next((value for value in add.inputs if value is not matmul.outputs[0]), None)
    vector = constant(bias)
    if vector is None or vector.shape not in ((matrix.shape[1],), (1, matrix.shape[1])):
        return
    gemm = ir.Node("", "Gemm", [source, weight, bias], name=add.name)
    old, new = add.outputs[0], gemm.outputs[0]
    name = old.name
    new.shape, new.type = old.shape, old.type
    graph.insert_before(add, gemm)
    new.name = name
    replace_value(graph, old, new)
    drop_unused(graph, add)
    new.name = name
