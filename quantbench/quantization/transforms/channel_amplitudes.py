"""The largest magnitude that each channel of a tensor takes on calibration samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs import SessionExecutor
from quantbench.graphs.edit import add_initializer

__all__ = ["channel_amplitudes"]

Array = NDArray[Any]


def channel_amplitudes(
    model: ir.Model, axes: Mapping[str, int], feeds: Sequence[Mapping[str, Array]]
) -> dict[str, Array]:
    """max|x| for each channel of the tensors in `axes` (tensor name → channel axis), over all feeds.

    The maxima are taken inside the graph, so no more than one tensor at a time is held.

    Args:
        model: left as it is.
        axes: tensors that nodes of the graph make.
        feeds: inputs of the graph, one mapping a batch.

    Returns:
        float64 arrays of shape (channels,) by tensor name; zeros for a tensor that held no values.
    """
    if not axes or not feeds:
        return {}
    watching = model.clone()
    graph = watching.graph
    values = {output.name: output for node in graph for output in node.outputs}
    given = len(graph.outputs)
    for name, axis in axes.items():
        graph.outputs.append(_amplitude(graph, values[name], axis))
    executor = SessionExecutor({"model": ir.to_proto(watching).SerializeToString()})
    rows = (executor.run(feed)[given:] for feed in feeds)
    largest: dict[str, Array] = {}
    for row in rows:
        for name, seen in zip(axes, row, strict=True):
            largest[name] = np.maximum(largest.get(name, 0.0), seen.astype(np.float64))
    return largest


def _amplitude(graph: ir.Graph, value: ir.Value, axis: int) -> ir.Value:
    """A value that holds the largest magnitude in each channel of another."""
    assert value.shape is not None
    others = [other for other in range(value.shape.rank()) if other != axis]
    magnitude = ir.Node("", "Abs", [value], name=f"{value.name}_magnitude")
    reduced = add_initializer(graph, f"{value.name}_amplitude_axes", np.asarray(others, np.int64))
    amplitude = ir.Node(
        "",
        "ReduceMax",
        [magnitude.outputs[0], reduced],
        [ir.AttrInt64("keepdims", 0)],
        name=f"{value.name}_amplitude",
    )
    graph.extend([magnitude, amplitude])
    magnitude.outputs[0].name = f"{value.name}_magnitude"
    amplitude.outputs[0].name = f"{value.name}_amplitude"
    amplitude.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    amplitude.outputs[0].shape = ir.Shape([value.shape[axis]])
    return amplitude.outputs[0]
