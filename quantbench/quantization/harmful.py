"""Which operations are better kept in float, from what their integers do to the outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from quantbench.quantization.placement import weight_uses
from quantbench.quantization.plan import GraphPlan
from quantbench.support import progress

if TYPE_CHECKING:
    from quantbench.quantization.decision import Decision

__all__ = ["harmful_nodes"]

_GROUPS = 12
"""Into how many runs of neighbouring operations a graph is divided."""
_WORTHWHILE = 0.05
"""Share of the error that a run has to cause for its integers to be taken back."""


def harmful_nodes(
    model: ir.Model,
    limit: float,
    decide: Callable[[Collection[str]], Decision],
    error_of: Callable[[Decision], float],
    answers_stay: Callable[[Decision], bool],
) -> tuple[list[str], Decision]:
    """Find the integer operations whose activations harm the outputs most.

    Runs of neighbouring operations join the integers one after the other, in the order of the graph, and each answers
    for what the error grows by: that counts what is between it and the run before, too. The runs are then kept in
    float, the worst first, until the error of the rest is low enough and the answers stay, or what is left is spread so
    evenly that no run is worth its speed.

    Args:
        model: a prepared graph.
        limit: the error to keep to.
        decide: decides the graph with these nodes in float.
        error_of: the error of the outputs, once decided.
        answers_stay: whether few enough of the task's answers change, once decided.

    Returns:
        (names of the nodes to keep in float, the graph as decided with them).
    """
    decided = decide(())
    error = error_of(decided)
    groups = _groups(model, decided.plan)
    if error <= limit or not groups:
        return [], decided
    errors = [
        error_of(decide([name for group in groups[count:] for name in group]))
        for count in progress(range(len(groups)), len(groups), "finding harmful layers")
    ]  # with the first so many runs in integers; with none, what rounding the weights alone costs
    caused = np.maximum(np.diff([*errors, error]), 0.0)
    kept: list[str] = []
    for index in np.argsort(caused, kind="stable")[::-1]:
        if (error <= limit and answers_stay(decided)) or caused[index] < _WORTHWHILE * caused.sum():
            break
        kept += groups[index]
        decided = decide(kept)
        error = error_of(decided)
    return kept, decided


def _groups(model: ir.Model, plan: GraphPlan) -> Sequence[list[str]]:
    """The integer operations with weights, in the order of the graph, in runs of neighbours."""
    weighted = {use.node for use in weight_uses(model).values()}
    names = [name for name in plan.integer_nodes if name in weighted]
    return [[str(name) for name in part] for part in np.array_split(names, min(_GROUPS, len(names)) or 1) if len(part)]
