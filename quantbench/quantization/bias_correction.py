"""Shift biases so that rounding the weights does not move the mean of any output channel.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2:
an operation is linear, so its mean output moves by what it makes of its mean input with the errors of its weights. The
mean inputs are measured on calibration samples in the exact graph, so that they depend on no decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.batches import run_batches
from quantbench.graphs.channel_reductions import put_out_channels, put_out_shape
from quantbench.graphs.qdq import QuantizedTensor
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.rounding.patches import Patches, patches_of
from quantbench.quantization.rounding.shift import bias_shift, has_its_own_bias
from quantbench.quantization.writing import array_of

__all__ = ["bias_correction", "mean_inputs"]

Array = NDArray[Any]


def mean_inputs(model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """What each weight whose bias can be shifted is multiplied by, in the mean over all output positions.

    Within a channel the input is taken to have the same mean everywhere, but for the padding around it, which is 0.

    Args:
        model: a prepared graph; left as it is.
        feeds: inputs of the graph, one mapping a batch.

    Returns:
        (groups, columns) float64, as `Patches` has them, by initializer; none for weights that make no matrices
        (`patches_of`), or whose input has no known rank.
    """
    nodes = {node.name: node for node in model.graph}
    patches: dict[str, Patches] = {}
    reading: dict[tuple[str, int], list[str]] = {}
    for name, use in weight_uses(model).items():
        node = nodes[use.node]
        each, source = patches_of(node, array_of(model, name).shape), node.inputs[0]
        ranked = source is not None and source.shape is not None
        if each is not None and ranked and has_its_own_bias(model, use):
            patches[name] = each
            reading.setdefault((use.source, -1 if each.last else 1), []).append(name)
    if not patches:
        return {}
    sums: dict[str, Array] = {}
    positions: dict[str, int] = {}
    for batch in _channels(model, list(reading), feeds):
        for names, (mean, shape) in zip(reading.values(), batch, strict=True):
            for name in names:
                total, count = _columns(patches[name], mean.astype(np.float64), tuple(shape.tolist()))
                sums[name] = sums.get(name, 0.0) + total
                positions[name] = positions.get(name, 0) + count
    return {name: total / positions[name] for name, total in sums.items() if positions[name]}


def bias_correction(
    model: ir.Model, weights: Mapping[str, QuantizedTensor], means: Mapping[str, Array]
) -> dict[str, Array]:
    """What to add to each bias.

    Args:
        model: a prepared graph.
        weights: its integer weights by initializer.
        means: of `mean_inputs`.

    Returns:
        Shifts of shape (channels,), float64, by name of the bias initializer.
    """
    nodes = {node.name: node for node in model.graph}
    return {
        use.added or "": bias_shift(model, nodes[use.node], name, weights[name], use, means[name], means[name])
        for name, use in weight_uses(model).items()
        if name in weights and name in means
    }


def _channels(
    model: ir.Model, tensors: Sequence[tuple[str, int]], feeds: Sequence[Mapping[str, Array]]
) -> list[list[tuple[Array, Array]]]:
    """For each batch (means of the channels, shape) of every tensor; tensors are (name, channel axis)."""
    watching = model.clone()
    graph = watching.graph
    values = {value.name: value for value in graph.inputs}
    values |= {output.name: output for node in graph for output in node.outputs}
    graph.outputs.clear()
    # `put_out_channels` says why the first comes last
    for name, axis in reversed(tensors):
        put_out_shape(graph, values[name], f"{name}_shape")
        put_out_channels(graph, values[name], axis, "ReduceMean", f"{name}_mean")
    rows = [list(row) for row in run_batches(watching, feeds)]
    return [list(zip(row[1::2], row[::2], strict=True))[::-1] for row in rows]


def _columns(patches: Patches, mean: Array, shape: tuple[int, ...]) -> tuple[Array, int]:
    """(the sum of each column over the output positions, (groups, columns); how many positions), for an input of
    `shape` whose channels have these means."""
    samples = int(np.prod(shape)) // len(mean) if patches.last else shape[0]
    inside, positions = _inside(patches, (1, 1) if patches.last else (1, *shape[2:])[-2:])
    return samples * (mean[:, np.newaxis] * inside).reshape(patches.groups, -1), samples * positions


@lru_cache(maxsize=256)
def _inside(patches: Patches, size: tuple[int, ...]) -> tuple[Array, int]:
    """(at how many output positions each position of the kernel lies inside an image of this height and width, (1,
    positions of the kernel); how many there are)."""
    unit = np.ones((1, 1, *size), np.float32)
    height, width = patches.positions(unit)
    return replace(patches, groups=1).sums(unit), height * width
