"""What the integers of each run of operations do to the outputs by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.arena import shrink_shared_arena
from quantbench.graphs.segments import Segments
from quantbench.graphs.widen import widen_weights
from quantbench.numerics.threads import cores
from quantbench.quantization.affine import dequantize
from quantbench.quantization.decision import Decision
from quantbench.quantization.output_error import OutputError
from quantbench.quantization.writing import add_shifts, replace_array
from quantbench.support import progress, return_memory

__all__ = ["run_errors"]

Array = NDArray[Any]


def run_errors(
    model: ir.Model, decided: Decision, firsts: Sequence[str], judge: OutputError
) -> tuple[float, list[float]]:
    """The outputs' error when no tensor carries codes, and for each run of nodes the error when it alone reads codes.

    Weights and biases are the rounded ones throughout, so the first error is what rounding them costs. The graph runs
    once in float; from each run on, it is run once more from what the run makes of codes.

    Args:
        model: a prepared graph.
        decided: how it is rounded.
        firsts: names of the nodes with which the second and each later run begins, in the order of the graph.
        judge: what knows the exact outputs.
    """
    change = partial(_in_integers, decided, judge.names)
    try:
        return _errors(Segments(_in_floats(model, decided), firsts, judge.names, change), judge)
    finally:
        shrink_shared_arena()
        return_memory()


def _errors(pieces: Segments, judge: OutputError) -> tuple[float, list[float]]:
    """The error of the pieces as they are, and for each the one when it alone is changed."""

    def run(tensors: Mapping[str, Array], batch: int, piece: int) -> tuple[dict[str, Array], list[float]]:
        """What is taken behind the piece, and the squared errors of the outputs where it is changed."""
        changed = pieces.step(tensors, piece, changed=True)
        return pieces.step(tensors, piece), judge.squares(pieces.rest(changed, piece + 1), batch)

    errors = []
    tensors: Sequence[Mapping[str, Array]] = judge.feeds
    batches = range(len(tensors))
    count = len(pieces.taken) - 1
    with ThreadPoolExecutor(cores()) as pool:
        for piece in progress(range(count), count, "finding harmful layers"):
            tensors, squares = zip(*pool.map(partial(run, piece=piece), tensors, batches), strict=True)
            errors.append(judge.of_squares(squares))
    ends = [judge.squares([each[name] for name in judge.names], batch) for batch, each in enumerate(tensors)]
    return judge.of_squares(ends), errors


def _in_floats(model: ir.Model, decided: Decision) -> ir.Model:
    """The graph in floats, with the values of the rounded weights and the shifted biases."""
    floats = model.clone()
    for name, weight in decided.weights.items():
        replace_array(floats, name, dequantize(weight))
    add_shifts(floats, decided.shifts)
    return floats


def _in_integers(decided: Decision, outputs: Sequence[str], piece: ir.Model) -> ir.Model:
    """A piece of that, with what its nodes read, and the outputs of the graph, in codes."""
    graph = piece.graph
    values = (*graph.inputs, *(output for node in graph for output in node.outputs))
    names = {value.name or "" for value in values if value.uses() or value.name in outputs}.union(graph.initializers)
    weights = {name: weight for name, weight in decided.weights.items() if name in names}
    plan = decided.plan.within(names, {node.name or "" for node in graph})
    written = Decision(plan, weights).written(piece)
    widen_weights(written)
    return written
