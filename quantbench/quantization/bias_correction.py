"""Shift biases so that rounding does not move the mean of any output channel.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2,
with the expectations measured on calibration samples. What the samples do not agree on is chance, and a shift by chance
does harm: each shift is shrunk by how uncertain it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.arena import shrink_shared_arena
from quantbench.graphs.code_bounds import drop_bounds
from quantbench.graphs.qdq import QuantizedTensor, write_activations
from quantbench.graphs.walk import walk
from quantbench.quantization.affine import dequantize
from quantbench.quantization.placement import WeightUse, weight_uses
from quantbench.quantization.plan import GraphPlan
from quantbench.quantization.writing import activation_affines
from quantbench.support import return_memory

__all__ = ["bias_correction", "shiftable"]

Array = NDArray[Any]


def shiftable(model: ir.Model) -> dict[str, int]:
    """Output tensor → channel axis of the operations with weights whose bias can be shifted."""
    return _stops(model, weight_uses(model))


def bias_correction(
    model: ir.Model,
    plan: GraphPlan,
    weights: Mapping[str, QuantizedTensor],
    feeds: Sequence[Mapping[str, Array]],
    exact: Mapping[str, Array],
) -> dict[str, Array]:
    """What to add to each bias: the mean of the exact output minus that of the rounded one, per channel.

    The rounded graph is walked from its inputs on, each operation corrected before the next is looked at, so that a
    correction also undoes the shifts that the rounding of activations and functions before it cause.

    Args:
        model: a prepared graph; left as it is.
        plan: the plan of this graph.
        weights: its integer weights by initializer.
        feeds: inputs of the graph, one mapping a batch.
        exact: the means of the output channels of the `shiftable` operations in the exact graph on the same feeds, as
            an `ExactPass` has them.

    Returns:
        Shifts of shape (channels,), float64, by name of the bias initializer.
    """
    uses = {name: use for name, use in weight_uses(model).items() if name in weights}
    stops = _stops(model, uses)
    biases = dict(zip(stops, (use.added or "" for use in uses.values() if use.added is not None), strict=True))
    shifts: dict[str, Array] = {}

    def average(stop: str, values: Array) -> tuple[Array, Array]:
        return _channel_means(values, stops[stop])

    def correct(stop: str, batches: list[tuple[Array, Array]]) -> Array:
        means, sizes = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        shift = _shrunk_mean(exact[stop] - means, sizes)
        shifts[biases[stop]] = shift
        return shift

    walk(_rounded(model, plan, weights), feeds, stops, average, correct)
    shrink_shared_arena()
    return_memory()
    return shifts


def _stops(model: ir.Model, uses: Mapping[str, WeightUse]) -> dict[str, int]:
    """`shiftable` of some weights."""
    outputs = {node.name: node.outputs[0].name or "" for node in model.graph}
    return {
        outputs[use.node]: -1 if use.op_type in ("Gemm", "MatMul") else 1
        for use in uses.values()
        if use.added is not None
    }


def _rounded(model: ir.Model, plan: GraphPlan, weights: Mapping[str, QuantizedTensor]) -> ir.Model:
    """The graph with its rounding, computed in float."""
    rounded = model.clone()
    for name, tensor in weights.items():
        # made when a piece of the walk needs it: all of them at once are as large as the graph
        rounded.graph.initializers[name].const_value = ir.LazyTensor(
            partial(_dequantized, tensor), ir.DataType.FLOAT, ir.Shape(tensor.codes.shape), name=name
        )
    write_activations(rounded, activation_affines(plan), plan.integer_nodes)
    return drop_bounds(rounded)


def _dequantized(tensor: QuantizedTensor) -> ir.Tensor[Array]:
    return ir.Tensor(dequantize(tensor))


def _channel_means(values: Array, axis: int) -> tuple[Array, Array]:
    """(means of each sample's channels, float64 of shape (samples, channels); of how many values each is, (samples,)).

    A matrix counts as one sample.
    """
    channels = values.shape[axis]
    if values.ndim == 2:
        return values.mean(axis=0, dtype=np.float64)[None], np.array([len(values)])
    if axis == -1:
        means = values.reshape(len(values), -1, channels).mean(axis=1, dtype=np.float64)
    else:
        # sums in float32, but pairwise
        means = values.reshape(*values.shape[: axis + 1], -1).mean(axis=-1).astype(np.float64)
    return means, np.full(len(values), values[0].size // channels)


def _shrunk_mean(differences: Array, sizes: Array) -> Array:
    """The mean over samples, (samples, channels) to (channels,), shrunk towards 0 by its squared standard error over
    its square (James and Stein 1961, the positive part, for each channel alone)."""
    weights = sizes / sizes.sum()
    mean: Array = weights @ differences
    if len(differences) == 1:
        return mean
    error = weights @ np.square(differences - mean) / (len(differences) - 1)
    shrunk: Array = mean * np.maximum(1 - error / np.maximum(np.square(mean), np.finfo(np.float64).tiny), 0)
    return shrunk
