"""Which operations are better kept in float, from what their integers do to the outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx_ir as ir

from quantbench.quantization.decision import Decision
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.plan import GraphPlan

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
    prefix_errors: Callable[[Decision, Sequence[str]], Sequence[float]],
) -> tuple[list[str], Decision]:
    """Find the integer operations whose activations harm the outputs most.

    Runs of neighbouring operations join the integers one after the other, in the order of the graph, and each answers
    for what the error grows by: that counts what is between it and the run before, too. The runs are then kept in
    float, the worst first, until the error of the rest is low enough and the answers stay, or what is left is spread so
    evenly, or so small beside what the rounding of weights does, that no run is worth its speed. More runs in float are
    taken to be no worse than fewer, so that not every number of them has to be tried.

    Args:
        model: a prepared graph.
        limit: the error to keep to.
        decide: decides the graph with these nodes in float.
        error_of: the error of the outputs, once decided.
        answers_stay: whether few enough of the task's answers change, once decided.
        prefix_errors: the errors when no tensor of a decided graph carries codes, and when those up to each of the
            nodes named do.

    Returns:
        (names of the nodes to keep in float, the graph as decided with them).
    """
    decided = decide(())
    error = error_of(decided)
    groups = _groups(model, decided.plan)
    if error <= limit or not groups:
        return [], decided
    errors = prefix_errors(decided, [group[0] for group in groups[1:]])
    caused = np.maximum(np.diff([*errors, error]), 0.0)
    least = _WORTHWHILE * max(error, caused.sum())
    worst = [index for index in np.argsort(caused, kind="stable")[::-1] if caused[index] >= least]
    if not worst:
        return [], decided
    if errors[0] > limit:  # no number of them is enough
        kept = [name for index in worst for name in groups[index]]
        return kept, decide(kept)
    return _fewest(
        [groups[index] for index in worst],
        decide,
        lambda decision: error_of(decision) <= limit and answers_stay(decision),
    )


def _fewest(
    groups: Sequence[list[str]],
    decide: Callable[[Collection[str]], Decision],
    is_enough: Callable[[Decision], bool],
) -> tuple[list[str], Decision]:
    """The first few groups that are enough to keep in float, or all: 1, 2, 4, … are tried, then those between."""

    def tried(count: int) -> tuple[list[str], Decision]:
        kept = [name for group in groups[:count] for name in group]
        return kept, decide(kept)

    too_few, count = 0, 1
    best = tried(count)
    while not is_enough(best[1]):
        if count == len(groups):
            return best
        too_few, count = count, min(2 * count, len(groups))
        best = tried(count)
    while count - too_few > 1:
        middle = (too_few + count) // 2
        found = tried(middle)
        if is_enough(found[1]):
            count, best = middle, found
        else:
            too_few = middle
    return best


def _groups(model: ir.Model, plan: GraphPlan) -> Sequence[list[str]]:
    """The integer operations with weights, in the order of the graph, in runs of neighbours."""
    weighted = {use.node for use in weight_uses(model).values()}
    names = [name for name in plan.integer_nodes if name in weighted]
    return [[str(name) for name in part] for part in np.array_split(names, min(_GROUPS, len(names)) or 1) if len(part)]
