"""Decide how one graph is rounded, and take back the integers that its outputs do not bear."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration import Observation
from quantbench.graphs import SessionExecutor
from quantbench.graphs.qdq import QuantizedTensor
from quantbench.quantization.bias_correction import bias_correction, channel_means
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.plan import GraphPlan
from quantbench.quantization.planning import plan_graph
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.rounding import get_method, round_in_order, round_to_nearest
from quantbench.quantization.writing import write_graph
from quantbench.support import progress

__all__ = ["Decision", "decide"]

Array = NDArray[Any]
Feeds = Sequence[Mapping[str, Array]]

_GROUPS = 12
"""Into how many runs of neighbouring operations a graph is divided when the harmful ones are looked for."""
_WORTHWHILE = 0.05
"""Share of the error that a run has to cause for its integers to be taken back."""


@dataclass(frozen=True)
class Decision:
    """Attributes:
    plan: of the graph.
    weights: the integer weights by initializer.
    shifts: what bias correction adds, by initializer.
    """

    plan: GraphPlan
    weights: dict[str, QuantizedTensor] = field(default_factory=dict)
    shifts: dict[str, Array] = field(default_factory=dict)


def decide(
    model: ir.Model, recipe: Recipe, observations: Mapping[str, Observation], feeds: Feeds, limit: float
) -> Decision:
    """Plan a graph, round its weights, correct its biases; where the outputs on `feeds` are too far from the exact
    ones, give the most harmful operations their float activations back.

    Args:
        model: a prepared graph; left as it is.
        recipe: what is asked.
        observations: of the tensors of `integer_placement`.
        feeds: inputs of the graph, one mapping a batch; empty where nothing becomes an integer.
        limit: the squared error of the outputs, as a share of their variance, above which operations are taken back;
            0 takes none back.
    """
    plan = plan_graph(model, recipe, observations)
    harmful: list[str] = []
    if plan.integer_nodes and limit:
        harmful = _harmful(_Trial(model, recipe, observations, feeds), limit, _groups(model, plan))
    if recipe.rounding != "nearest" and feeds:
        plan = plan_graph(model, recipe, observations, harmful)
        method = get_method(recipe.rounding)
        return Decision(
            plan, *round_in_order(model, plan, feeds, method, shift=recipe.bias_correction, seed=recipe.seed)
        )
    means = channel_means(model, feeds) if feeds and recipe.bias_correction else {}
    return _decision(model, recipe, observations, harmful, feeds, means)


def _decision(
    model: ir.Model,
    recipe: Recipe,
    observations: Mapping[str, Observation],
    kept: Collection[str],
    feeds: Feeds,
    means: Mapping[str, Array],
) -> Decision:
    """Plan, round and correct with the nodes `kept` in float; `means` are the exact ones of `feeds`."""
    plan = plan_graph(model, recipe, observations, kept)
    weights = round_to_nearest(model, plan)
    if not weights or not means:
        return Decision(plan, weights)
    return Decision(plan, weights, bias_correction(model, plan, weights, feeds, means))


def _harmful(trial: _Trial, limit: float, groups: Sequence[list[str]]) -> list[str]:
    """The operations that are better kept in float.

    The errors that runs of neighbouring operations cause add up, roughly, so each run is put into integers by itself
    and measured. The runs are then kept in float in the order of what they cause, the worst first, until the error of
    the rest is low enough or what is left is spread so evenly that no run is worth its speed.
    """
    error = trial.error(trial.decide(()))
    if error <= limit:
        return []
    everything = [name for group in groups for name in group]
    caused = [
        trial.error(trial.decide([name for name in everything if name not in group]))
        for group in progress(groups, len(groups), "finding harmful layers")
    ]
    floor = trial.error(trial.decide(everything))  # what rounding the weights alone costs
    caused = [max(each - floor, 0.0) for each in caused]
    kept: list[str] = []
    for index in np.argsort(caused, kind="stable")[::-1]:
        if error <= limit or caused[index] < _WORTHWHILE * sum(caused):
            break
        kept += groups[index]
        error = trial.error(trial.decide(kept))
    return kept


class _Trial:
    """Decides a graph again and again; holds the exact results that decisions are compared with.

    While harmful operations are looked for, biases are corrected on one half of the samples and the error is measured
    on the other, so that a correction that does not carry over is not taken for a good one.
    """

    def __init__(self, model: ir.Model, recipe: Recipe, observations: Mapping[str, Observation], feeds: Feeds) -> None:
        self._model = model
        self._recipe = recipe
        self._observations = observations
        self._correcting = feeds[::2]
        self._judging = feeds[1::2] or feeds
        self._outputs = _outputs(model, self._judging)
        self._means = channel_means(model, self._correcting) if feeds and recipe.bias_correction else {}

    def decide(self, kept: Collection[str]) -> Decision:
        """Plan, round and correct with the nodes `kept` in float."""
        return _decision(self._model, self._recipe, self._observations, kept, self._correcting, self._means)

    def error(self, decision: Decision) -> float:
        """Squared error of the outputs over their variance; the worst output counts."""
        written = write_graph(self._model, decision.plan, decision.weights, decision.shifts)
        errors = [
            sum(float(np.square(new - old).sum()) for new, old in zip(rounded, exact, strict=True))
            / max(sum(float(np.square(old - old.mean()).sum()) for old in exact), 1e-30)
            for rounded, exact in zip(_outputs(written, self._judging), self._outputs, strict=True)
            if exact[0].dtype == np.float32
        ]
        return max(errors, default=0.0)


def _outputs(model: ir.Model, feeds: Feeds) -> list[list[Array]]:
    """For each output of the graph its values, one array a batch."""
    if not feeds:
        return []
    executor = SessionExecutor({"model": ir.to_proto(model).SerializeToString()})
    return [list(column) for column in zip(*(executor.run(feed) for feed in feeds), strict=True)]


def _groups(model: ir.Model, plan: GraphPlan) -> list[list[str]]:
    """The integer operations with weights, in the order of the graph, in runs of neighbours."""
    weighted = {use.node for use in weight_uses(model).values()}
    names = [name for name in plan.integer_nodes if name in weighted]
    return [[str(name) for name in part] for part in np.array_split(names, min(_GROUPS, len(names)))]
