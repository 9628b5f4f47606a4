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
) -> tuple[list[str], Decision]:
    """Find the integer operations whose activations harm the outputs most.

    The errors that runs of neighbouring operations cause add up, roughly, so each run is put into integers by itself
    and measured. The runs are then kept in float in the order of what they cause, the worst first, until the error of
    the rest is low enough or what is left is spread so evenly that no run is worth its speed.

    Args:
        model: a prepared graph.
        limit: the error to keep to.
        decide: decides the graph with these nodes in float.
        error_of: the error of the outputs, once decided.

    Returns:
        (names of the nodes to keep in float, the graph as decided with them).
    """
    decided = decide(())
    error = error_of(decided)
    groups = _groups(model, decided.plan)
    if error <= limit or not groups:
        return [], decided
    everything = [name for group in groups for name in group]
    caused = [
        error_of(decide([name for name in everything if name not in group]))
        for group in progress(groups, len(groups), "finding harmful layers")
    ]
    floor = error_of(decide(everything))  # what rounding the weights alone costs
    caused = [max(each - floor, 0.0) for each in caused]
    kept: list[str] = []
    for index in np.argsort(caused, kind="stable")[::-1]:
        if error <= limit or caused[index] < _WORTHWHILE * sum(caused):
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
