"""Give a Clip an upper bound of its own in each channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import add_initializer, constant

__all__ = ["scale_upper_bound"]

Array = NDArray[Any]


def scale_upper_bound(graph: ir.Graph, clip: ir.Node, factor: Array, axis: int) -> None:
    """Let min(max(x, 0), high) become min(max(x, 0), high/factor), with one factor for each channel on `axis`.

    Requires: the lower bound is 0 or absent, the upper one constant or absent; the rank of the output is known.
    Ensures: Relu, where there is a lower bound, and Min stand in place of the Clip; its output keeps its name and the
    first new node the Clip's. A Clip without an upper bound stays as it is.
    """
    output, source = clip.outputs[0], clip.inputs[0]
    high = constant(clip.inputs[2]) if len(clip.inputs) > 2 else None
    if high is None:
        return
    assert output.shape is not None and source is not None
    name = clip.name
    clip.name = f"{name}_clip"
    last = source
    if len(clip.inputs) > 1 and clip.inputs[1] is not None:
        relu = ir.Node("", "Relu", [source], name=name)
        last = _place(graph, clip, relu, f"{output.name}_unbounded")
        name = f"{name}_bound"
    shape = (-1, *(1,) * (output.shape.rank() - axis - 1))
    bound = add_initializer(graph, f"{name}_high", (float(high) / factor).astype(np.float32).reshape(shape))
    result = _place(graph, clip, ir.Node("", "Min", [last, bound], name=name), None)
    kept = output.name
    output.replace_all_uses_with(result)
    output.name = f"{kept}_clip"
    result.name = kept
    bounds = [value for value in clip.inputs[1:] if value is not None]
    graph.remove(clip, safe=True)
    for value in bounds:
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(value.name or "", None)


def _place(graph: ir.Graph, before: ir.Node, node: ir.Node, name: str | None) -> ir.Value:
    """Insert a node; its output looks like that of `before`."""
    value = node.outputs[0]
    value.name = name
    value.shape, value.type = before.outputs[0].shape, before.outputs[0].type
    graph.insert_before(before, node)
    return value
