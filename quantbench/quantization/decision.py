"""Decide how one graph is rounded: what stays in float, which weights get few bits, and every code and bias."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration import Observation
from quantbench.graphs.qdq import QuantizedTensor
from quantbench.quantization.bias_correction import bias_correction, channel_means
from quantbench.quantization.harmful import harmful_nodes
from quantbench.quantization.mixing import candidates, mix, narrow_weights
from quantbench.quantization.output_error import OutputError
from quantbench.quantization.plan import GraphPlan
from quantbench.quantization.planning import plan_graph
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.rounding import get_method, round_in_order, round_to_nearest
from quantbench.quantization.writing import write_graph

__all__ = ["Decision", "decide"]

Array = NDArray[Any]
Feeds = Sequence[Mapping[str, Array]]

_JUDGING = 3
"""Every so manieth batch is for judging."""


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
    """Plan a graph, round its weights and correct its biases.

    Where the outputs on `feeds` are too far from the exact ones with all weights in 8 bits, the most harmful operations
    get their float activations back. Of the weights that the recipe puts into fewer bits, the most harmful get 8.

    Args:
        model: a prepared graph; left as it is.
        recipe: what is asked.
        observations: of the tensors of `integer_placement`.
        feeds: inputs of the graph, one mapping a batch; empty where nothing becomes an integer.
        limit: the squared error of the outputs, as a share of their variance, that the search keeps to; 0 searches for
            nothing.
    """
    if not limit or not feeds:
        return _Graph(model, recipe, observations, feeds, ()).round((), ())
    choosing = [feed for index, feed in enumerate(feeds) if index % _JUDGING != _JUDGING - 1]
    graph = _Graph(model, recipe, observations, choosing, feeds[_JUDGING - 1 :: _JUDGING] or feeds)
    narrow = frozenset(narrow_weights(graph.plan((), ())))
    kept, wide = harmful_nodes(model, limit, lambda nodes: graph.nearest(nodes, narrow), graph.error_of)
    if narrow:
        return _mixed(graph, kept, narrow, limit, graph.error_of(wide))
    return wide if recipe.weight_rounding == "nearest" else graph.round(kept, ())


def _mixed(graph: _Graph, kept: Collection[str], narrow: frozenset[str], limit: float, floor: float) -> Decision:
    """Round with as many of the `narrow` weights in few bits as keep to the limit, and no fewer than is asked."""
    if graph.recipe.narrow_share == 1:
        return graph.round(kept, ())
    rounded, shifts = graph.codes(graph.plan(kept, ()), alone=True)
    weights = candidates(graph.model, {name: rounded[name] for name in narrow}, shifts, graph.judge)
    tried: dict[frozenset[str], Decision] = {}

    def error_of(chosen: frozenset[str]) -> float:
        if chosen not in tried:
            tried[chosen] = graph.round(kept, narrow - chosen)
        return graph.error_of(tried[chosen])

    chosen = mix(weights, graph.recipe.narrow_share, limit, floor, error_of)
    return tried[chosen] if chosen in tried else graph.round(kept, narrow - chosen)


class _Graph:
    """A graph that is decided again and again, with what is known of its exact self.

    Codes are chosen, and biases corrected, on the `choosing` samples, and the outputs' error is measured on the others,
    so that what does not carry over is not taken for good.
    """

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        observations: Mapping[str, Observation],
        choosing: Feeds,
        judging: Feeds,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.feeds = choosing
        self._observations = observations
        self._judging = judging

    @cached_property
    def judge(self) -> OutputError:
        """Knows the exact outputs."""
        return OutputError(self.model, self._judging)

    @cached_property
    def _means(self) -> dict[str, Array]:
        return channel_means(self.model, self.feeds) if self.feeds and self.recipe.bias_correction else {}

    def plan(self, kept: Collection[str], wide: Collection[str]) -> GraphPlan:
        return plan_graph(self.model, self.recipe, self._observations, kept, wide)

    def nearest(self, kept: Collection[str], wide: Collection[str]) -> Decision:
        """Round every weight to nearest, with the nodes `kept` in float and the weights `wide` in 8 bits."""
        plan = self.plan(kept, wide)
        weights = round_to_nearest(self.model, plan)
        if not weights or not self._means:
            return Decision(plan, weights)
        return Decision(plan, weights, bias_correction(self.model, plan, weights, self.feeds, self._means))

    def round(self, kept: Collection[str], wide: Collection[str]) -> Decision:
        """The same by the method of the recipe."""
        if self.recipe.weight_rounding == "nearest" or not self.feeds:
            return self.nearest(kept, wide)
        plan = self.plan(kept, wide)
        return Decision(plan, *self.codes(plan))

    def codes(self, plan: GraphPlan, *, alone: bool = False) -> tuple[dict[str, QuantizedTensor], dict[str, Array]]:
        """(weights, shifts of biases) by the method of the recipe; `alone` as of `round_in_order`."""
        recipe = self.recipe
        return round_in_order(
            self.model,
            plan,
            self.feeds,
            get_method(recipe.weight_rounding),
            shift=recipe.bias_correction,
            alone=alone,
            seed=recipe.seed,
        )

    def error_of(self, decision: Decision) -> float:
        """Squared error of the outputs over their variance; the worst output counts."""
        return self.judge.of(write_graph(self.model, decision.plan, decision.weights, decision.shifts))
