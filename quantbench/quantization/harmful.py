"""Which operations are better kept in float, from what their integers do to the outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import onnx_ir as ir

from quantbench.quantization.decision import Decision
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.plan import GraphPlan

__all__ = ["Answers", "harmful_nodes"]

_GROUPS = 12
"""Into how many runs of neighbouring operations a graph is divided."""
_WORTHWHILE = 0.05
"""Share of the error that is left which a run has to cause for its integers to be taken back."""
_LENIENCE = 3.0
"""What the error may be where answers say that it does no harm, in units of the limit, and where rounding the weights
alone makes a good part of it, or more, in units of that."""


T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Answers(Generic[T]):
    """What a task's answers say of a graph, given as a model or as what was decided for it.

    Attributes:
        stay: whether few enough of them change when it takes the place of the exact one.
        decide: whether they alone count, because the score is made of nothing else.
        hopeless: whether they change even with all activations in float.
    """

    stay: Callable[[T], bool]
    decide: bool = False
    hopeless: Callable[[], bool] = lambda: False

    def through(self, made: Callable[[U], T]) -> Answers[U]:
        """What they say of what these graphs are made from."""
        return Answers(lambda each: self.stay(made(each)), self.decide, self.hopeless)


def harmful_nodes(
    model: ir.Model,
    limit: float,
    decide: Callable[[Collection[str]], Decision],
    error_of: Callable[[Decision], float],
    answers: Answers[Decision] | None,
    run_errors: Callable[[Decision, Sequence[str]], tuple[float, Sequence[float]]],
) -> tuple[list[str], Decision]:
    """Find the integer operations whose activations harm the outputs most.

    Each run of neighbouring operations answers for what it does to the outputs in integers by itself: beside others
    that do more harm, one would not be seen. The runs are then kept in float, the worst first, until what the rest
    does by itself adds up to little enough, the error of the rest is low enough, and the answers stay, or what is left
    is spread so evenly, or so small beside what the rounding of weights does, that no run is worth its speed. More runs
    in float are taken to be no worse than fewer, so that not every number of them has to be tried. Where rounding the
    weights alone exceeds the limit no number of runs keeps to it, nor the answers; then activations may add twice that.
    Answers that stay say more than an error does, so where there are any, it may be larger; and where they decide, the
    error is asked only when nothing could keep them.

    Args:
        model: a prepared graph.
        limit: the error to keep to.
        decide: decides the graph with these nodes in float.
        error_of: the error of the outputs, once decided.
        answers: None where they do not tell.
        run_errors: the error when no tensor of a decided graph carries codes, and for each run of nodes, of which these
            are the first ones of all but the first run, the error when it alone reads codes.

    Returns:
        (names of the nodes to keep in float, the graph as decided with them).
    """
    decided = decide(())
    weighted = {use.node for use in weight_uses(model).values()}
    groups = _groups(decided.plan, weighted)
    if not groups:
        return [], decided
    if answers and answers.decide:
        if answers.stay(decided):
            return [], decided
        if answers.hopeless():
            answers = None
    if not (answers and answers.decide):
        error = error_of(decided)
        if error <= limit or (answers and error <= _LENIENCE * limit and answers.stay(decided)):
            return [], decided
    of_weights, alone = run_errors(decided, [group[0] for group in groups[1:]])
    caused = np.maximum(np.subtract(alone, of_weights), 0.0)
    goal = max(_LENIENCE * limit if answers else limit, _LENIENCE * of_weights)
    nodes = {node.name or "": node for node in model.graph}
    passing = set(decided.plan.integer_nodes) - weighted
    runs, enough = [], 0
    left = of_weights + caused.sum()
    for index in np.argsort(caused, kind="stable")[::-1]:
        if caused[index] < _WORTHWHILE * left:
            break
        runs.append(_with_sources(groups[index], nodes, passing))
        enough += left > goal
        left -= caused[index]
    if not runs:
        return [], decided

    def is_enough(decision: Decision) -> bool:
        if answers and answers.decide:
            return answers.stay(decision)
        return error_of(decision) <= goal and (answers is None or of_weights > limit or answers.stay(decision))

    return _fewest(runs, max(enough, 1), decide, is_enough)


def _fewest(
    groups: Sequence[list[str]],
    first: int,
    decide: Callable[[Collection[str]], Decision],
    is_enough: Callable[[Decision], bool],
) -> tuple[list[str], Decision]:
    """The first few groups that are enough to keep in float, or all: `first` of them, 1, 2, 4, … more are tried, then
    those between."""

    def tried(count: int) -> tuple[list[str], Decision]:
        kept = [name for group in groups[:count] for name in group]
        return kept, decide(kept)

    too_few, count, more = first - 1, first, 1
    best = tried(count)
    while not is_enough(best[1]):
        if count == len(groups):
            return best
        too_few, count, more = count, min(count + more, len(groups)), 2 * more
        best = tried(count)
    while count - too_few > 1:
        middle = (too_few + count) // 2
        found = tried(middle)
        if is_enough(found[1]):
            count, best = middle, found
        else:
            too_few = middle
    return best


def _groups(plan: GraphPlan, weighted: Collection[str]) -> Sequence[list[str]]:
    """The integer operations with weights, in the order of the graph, in runs of neighbours."""
    names = [name for name in plan.integer_nodes if name in weighted]
    return [[str(name) for name in part] for part in np.array_split(names, min(_GROUPS, len(names)) or 1) if len(part)]


def _with_sources(group: Collection[str], nodes: Mapping[str, ir.Node], passing: Collection[str]) -> list[str]:
    """These nodes, and those that only pass codes on to them: they would go on rounding what is read."""
    read = (value for name in group for value in nodes[name].inputs if value is not None)
    made = (producer.name or "" for value in read if (producer := value.producer()) is not None)
    return list(dict.fromkeys([*group, *(name for name in made if name in passing)]))
