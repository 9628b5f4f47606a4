"""One run of the exact graph over kept samples, for all that rounded graphs are held against."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.batches import run_batches
from quantbench.graphs.channel_reductions import put_out_channels

__all__ = ["ExactPass", "exact_pass"]

Array = NDArray[Any]


@dataclass(frozen=True)
class ExactPass:
    """Attributes:
    outputs: for each tensor that is compared its values, one array a judged batch.
    means: tensor → the mean of each channel in each sample of the other batches, float64 of shape (samples, channels);
        of a matrix, whose rows may be anything, in each batch.
    """

    outputs: list[list[Array]]
    means: dict[str, Array]


def exact_pass(
    model: ir.Model,
    feeds: Sequence[Mapping[str, Array]],
    judged: Collection[int],
    averaged: Collection[int],
    names: Sequence[str],
    stops: Mapping[str, int],
) -> ExactPass:
    """Run a graph once.

    Args:
        model: a prepared graph; left as it is.
        feeds: its inputs, one mapping a batch.
        judged: the batches, by number, whose `names` are kept.
        averaged: those for which the means of the channels of `stops` are kept.
        names: tensors.
        stops: tensor → channel axis.
    """
    watching = model.clone()
    graph = watching.graph
    values = {value.name: value for value in graph.inputs}
    values |= {output.name: output for node in graph for output in node.outputs}
    graph.outputs[:] = [values[name] for name in names]
    # `put_out_channels` says why the first comes last
    for stop, axis in reversed(list(stops.items())):
        shape = values[stop].shape
        each = shape is not None and shape.rank() > 2
        put_out_channels(graph, values[stop], axis, "ReduceMean", f"{stop}_mean", each=each)
    chosen = sorted({*judged, *averaged})
    rows = dict(zip(chosen, run_batches(watching, [feeds[index] for index in chosen]), strict=True))
    outputs = [[rows[index][k] for index in judged] for k in range(len(names))]
    reduced = [rows[index][len(names) :][::-1] for index in averaged]
    means = {
        stop: np.concatenate([np.atleast_2d(row[index]).astype(np.float64) for row in reduced])
        for index, stop in enumerate(stops)
        if reduced
    }
    return ExactPass(outputs, means)
