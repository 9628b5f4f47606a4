"""Have a graph say something of each channel of its tensors, so that the tensors themselves need not be held."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer

__all__ = ["put_out_channels", "put_out_shape"]


def put_out_channels(graph: ir.Graph, value: ir.Value, axis: int, reduction: str, name: str) -> None:
    """Let the graph put out `reduction` (ReduceMax, ReduceMean, …) of a tensor over all axes but one, as `name`.

    ONNX Runtime computes first what the last node needs. So of several tensors those that the graph makes first should
    be put out last: the other way round all of them are held at once.

    Requires: the tensor's rank is known.
    """
    assert value.shape is not None
    others = [other for other in range(value.shape.rank()) if other != axis % value.shape.rank()]
    axes = add_initializer(graph, f"{name}_axes", np.asarray(others, np.int64))
    node = ir.Node("", reduction, [value, axes], [ir.AttrInt64("keepdims", 0)], name=name)
    _put_out(graph, node, ir.DataType.FLOAT, ir.Shape([value.shape[axis]]))


def put_out_shape(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Let the graph put out the shape of a tensor of known rank, as `name`."""
    assert value.shape is not None
    _put_out(graph, ir.Node("", "Shape", [value], name=name), ir.DataType.INT64, ir.Shape([value.shape.rank()]))


def _put_out(graph: ir.Graph, node: ir.Node, dtype: ir.DataType, shape: ir.Shape) -> None:
    graph.append(node)
    output = node.outputs[0]
    output.name, output.type, output.shape = node.name, ir.TensorType(dtype), shape
    graph.outputs.append(output)
