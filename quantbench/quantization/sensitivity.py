"""What integers do to the outputs where they end before some node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.arena import shrink_shared_arena
from quantbench.graphs.batches import run_batches
from quantbench.graphs.segments import Segments
from quantbench.graphs.widen import widen_weights
from quantbench.numerics.threads import cores
from quantbench.quantization.affine import dequantize
from quantbench.quantization.decision import Decision
from quantbench.quantization.output_error import OutputError, put_out
from quantbench.quantization.writing import add_shifts, replace_array
from quantbench.support import progress, return_memory

__all__ = ["prefix_errors"]

Array = NDArray[Any]


def prefix_errors(model: ir.Model, decided: Decision, firsts: Sequence[str], judge: OutputError) -> list[float]:
    """The outputs' errors when no tensor carries codes, and when those up to each of the nodes `firsts` do.

    Weights and biases are the rounded ones throughout, so the first error is what rounding them alone costs. The
    integer graph runs once, and leaves behind what the float graph is run on from each of the nodes.

    Args:
        model: a prepared graph.
        decided: how it is rounded.
        firsts: names of nodes, in the order of the graph.
        judge: what knows the exact outputs.
    """
    rest = Segments(_in_floats(model, decided), firsts, judge.names)
    names = sorted({name for taken in rest.taken[1:] for name in taken})
    tensors = _in_integers(model, decided, names, judge.feeds)
    errors = []
    with ThreadPoolExecutor(cores()) as pool:
        for first in progress(range(len(rest.taken)), len(rest.taken), "finding harmful layers"):
            outputs = list(pool.map(partial(rest.run, first=first), tensors))
            errors.append(judge.of_outputs(list(zip(*outputs, strict=True))))
            needed = {name for taken in rest.taken[first + 1 :] for name in taken}
            tensors = [{name: array for name, array in batch.items() if name in needed} for batch in tensors]
    del rest, outputs
    shrink_shared_arena()
    return_memory()
    return errors


def _in_floats(model: ir.Model, decided: Decision) -> ir.Model:
    """The graph in floats, with the values of the rounded weights and the shifted biases."""
    floats = model.clone()
    for name, weight in decided.weights.items():
        replace_array(floats, name, dequantize(weight))
    add_shifts(floats, decided.shifts)
    return floats


def _in_integers(
    model: ir.Model, decided: Decision, names: Sequence[str], feeds: Sequence[Mapping[str, Array]]
) -> list[dict[str, Array]]:
    """For each batch its inputs, and these tensors of the graph as it is written."""
    written = decided.written(model)
    widen_weights(written)
    inputs = {value.name for value in model.graph.inputs}
    computed = [name for name in names if name not in inputs]
    put_out(written, computed)
    found = run_batches(written, feeds)
    return [{**given, **dict(zip(computed, batch, strict=True))} for given, batch in zip(feeds, found, strict=True)]
