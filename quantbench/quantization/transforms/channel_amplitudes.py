"""The largest magnitude that each channel of a tensor takes on calibration samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.batches import run_batches
from quantbench.graphs.channel_reductions import put_out_channels

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
    for name, axis in reversed(list(axes.items())):  # `put_out_channels` says why
        magnitude = ir.Node("", "Abs", [values[name]], name=f"{name}_magnitude")
        graph.append(magnitude)
        output = magnitude.outputs[0]
        output.name, output.shape, output.type = magnitude.name, values[name].shape, values[name].type
        put_out_channels(graph, output, axis, "ReduceMax", f"{name}_amplitude")
    largest: dict[str, Array] = {}
    for row in run_batches(watching, feeds):
        for name, seen in zip(axes, row[given:][::-1], strict=True):
            largest[name] = np.maximum(largest.get(name, 0.0), seen.astype(np.float64))
    return largest
