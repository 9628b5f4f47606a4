"""Decide how one graph is rounded: what stays in float, which weights get few bits, and every code and bias."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration import Observation
from quantbench.graphs.qdq import QuantizedTensor
from quantbench.numerics.threads import begun
from quantbench.quantization.bias_correction import bias_correction, mean_inputs
from quantbench.quantization.decision import Decision
from quantbench.quantization.harmful import Answers, harmful_nodes
from quantbench.quantization.mixing import candidates, narrow_weights
from quantbench.quantization.output_error import OutputError
from quantbench.quantization.plan import GraphPlan
from quantbench.quantization.planning import plan_graph
from quantbench.quantization.precision import Candidate
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.rounding import get_method, round_in_order, round_to_nearest
from quantbench.quantization.sensitivity import run_errors

__all__ = ["Decider"]

Array = NDArray[Any]
Feeds = Sequence[Mapping[str, Array]]

_JUDGING = 3
"""Every so manieth batch is for judging."""
_AVERAGED = 4
"""Batches, about, that are enough for the means of channels."""


class Decider:
    """Decides a graph again and again, with what is known of its exact self.

    Where the search has a limit, codes are chosen, and biases corrected, on two thirds of the samples, and the outputs'
    error is measured on the others, so that what does not carry over is not taken for good. Where the outputs are too
    far from the exact ones with all weights in 8 bits, the most harmful operations get their float activations back.

    Args:
        model: a prepared graph; left as it is.
        recipe: what is asked.
        observations: of the tensors of `fast_placement`.
        sizes: as there.
        feeds: inputs of the graph, one mapping a batch; empty where nothing becomes an integer.
        limit: the squared error of the outputs, as a share of their variance, that the search keeps to; 0 searches for
            nothing.
        answers: None where they do not tell.
    """

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        observations: Mapping[str, Observation],
        sizes: Mapping[str, float],
        feeds: Feeds,
        limit: float,
        answers: Answers[ir.Model] | None = None,
    ) -> None:
        self.model = model
        self._recipe = recipe
        self._observations = observations
        self._sizes = sizes
        self._plans: dict[tuple[frozenset[str], frozenset[str]], GraphPlan] = {}
        self._answers = answers
        self._limit = limit if feeds else 0.0
        judged = bool(self._limit)
        self._all = feeds
        self._corrects = bool(feeds) and recipe.bias_correction
        # where 8-bit weights get their nearest codes, what the exact graph says is enough to correct biases
        self._in_order = bool(feeds) and (recipe.weight_rounding != "nearest" or recipe.has_narrow_weights)
        numbers = range(len(feeds))
        self._judging = (numbers[_JUDGING - 1 :: _JUDGING] or numbers) if judged else ()
        self._feeds = [feeds[index] for index in numbers if not judged or index % _JUDGING != _JUDGING - 1]
        self.narrow = frozenset(narrow_weights(self._plan((), ()))) if judged else frozenset()

    @cached_property
    def _kept(self) -> tuple[list[str], Decision]:
        """(nodes that stay in float, the decision with all weights in 8 bits)."""
        _ = self._judging_begun  # runs while a first plan is made
        return harmful_nodes(
            self.model,
            self._limit,
            lambda nodes: self._nearest(nodes, self.narrow),
            self.error_of,
            None if self._answers is None else self._answers.through(self._written),
            lambda decision, firsts: run_errors(self.model, decision, firsts, self._judge),
        )

    @property
    def weights_alone(self) -> Decision:
        """All weights that can be in 8 bits, and no activation."""
        return self._nearest(self._plan((), ()).integer_nodes, self.narrow)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """What each weight that could be narrow does to the outputs by itself."""
        rounded, shifts = self._codes(self._plan(self._kept[0], ()), self._feeds, alone=True)
        return candidates(self.model, {name: rounded[name] for name in sorted(self.narrow)}, shifts, self._judge)

    def decide(self, narrow: Collection[str]) -> Decision:
        """The decision in which, of the weights that could be, these are narrow."""
        if not self._limit:
            return self._round((), ())
        kept, nearest = self._kept
        if narrow or self._in_order:
            return self._round(kept, self.narrow.difference(narrow))
        return nearest

    def final(self, narrow: Collection[str]) -> Decision:
        """As `decide`, from all samples: for what is settled, so that nothing is judged any more."""
        if not self._limit or not self._in_order:
            return self.decide(narrow)
        plan = self._plan(self._kept[0], self.narrow.difference(narrow))
        return Decision(plan, *self._codes(plan, self._all))

    @cached_property
    def _judging_begun(self) -> Future[OutputError]:
        """What knows the exact outputs, on its way; after the means, which are wanted first."""

        def judge() -> OutputError:
            if self._corrects:
                self._means.result()
            return OutputError(self.model, [self._all[index] for index in self._judging])

        return begun(judge)

    @cached_property
    def _means(self) -> Future[dict[str, Array]]:
        """What weights are multiplied by, on its way."""
        step = max(round(len(self._feeds) / _AVERAGED), 1)
        return begun(lambda: mean_inputs(self.model, self._feeds[::step]))

    @property
    def _judge(self) -> OutputError:
        return self._judging_begun.result()

    def _plan(self, kept: Collection[str], wide: Collection[str]) -> GraphPlan:
        key = frozenset(kept), frozenset(wide)
        if key not in self._plans:
            self._plans[key] = plan_graph(
                self.model, self._recipe, self._observations, self._sizes, kept=key[0], wide=key[1]
            )
        return self._plans[key]

    def _nearest(self, kept: Collection[str], wide: Collection[str]) -> Decision:
        """Round every weight to nearest, with the nodes `kept` in float and the weights `wide` in 8 bits."""
        coming = self._means if self._corrects else None
        plan = self._plan(kept, wide)
        weights = round_to_nearest(self.model, plan)
        if coming is None:
            return Decision(plan, weights)
        return Decision(plan, weights, bias_correction(self.model, weights, coming.result()))

    def _round(self, kept: Collection[str], wide: Collection[str]) -> Decision:
        """The same by the method of the recipe."""
        if not self._in_order:
            return self._nearest(kept, wide)
        plan = self._plan(kept, wide)
        return Decision(plan, *self._codes(plan, self._feeds))

    def _codes(
        self, plan: GraphPlan, feeds: Feeds, *, alone: bool = False
    ) -> tuple[dict[str, QuantizedTensor], dict[str, Array]]:
        """(weights, shifts of biases) by the method of the recipe; `alone` as of `round_in_order`."""
        recipe = self._recipe
        return round_in_order(
            self.model,
            plan,
            feeds,
            get_method(recipe.weight_rounding),
            shift=recipe.bias_correction,
            alone=alone,
            seed=recipe.seed,
        )

    def error_of(self, decision: Decision) -> float:
        """Squared error of the outputs over their variance; the worst output counts."""
        return self._judge.of(self._written(decision))

    def _written(self, decision: Decision) -> ir.Model:
        return decision.written(self.model)
