"""Have a graph say something of each channel of its tensors, so that the tensors themselves need not be held."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer

__all__ = ["put_out_channels"]


def put_out_channels(
    graph: ir.Graph, value: ir.Value, axis: int, reduction: str, name: str, *, each: bool = False
) -> None:
    """Let the graph put out `reduction` (ReduceMax, ReduceMean, …) of a tensor over all axes but one, as `name`.

    With `each`, that of each entry of the first axis, a sample: of shape (samples, channels).

    ONNX Runtime computes first what the last node needs. So of several tensors those that the graph makes first should
    be put out last: the other way round all of them are held at once.

    Requires: the tensor's rank is known.
    """
    assert value.shape is not None
    kept = {0, axis % value.shape.rank()} if each else {axis % value.shape.rank()}
    others = [other for other in range(value.shape.rank()) if other not in kept]
    axes = add_initializer(graph, f"{name}_axes", np.asarray(others, np.int64))
    node = ir.Node("", reduction, [value, axes], [ir.AttrInt64("keepdims", 0)], name=name)
    graph.append(node)
    output = node.outputs[0]
    output.name, output.type = name, ir.TensorType(ir.DataType.FLOAT)
    output.shape = ir.Shape([value.shape[index] for index in sorted(kept)])
    graph.outputs.append(output)
