"""Which layers get their floats back, on a chain whose layers' harm is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import pytest
from onnx_models import graph, normal

from quantbench.graphs.passes import clean
from quantbench.quantization.decision import Decision
from quantbench.quantization.harmful import Answers, harmful_nodes
from quantbench.quantization.plan import GraphPlan

LAYERS = [f"c{index}" for index in range(12)]


def chain() -> ir.Model:
    lines = "".join(f"c{index} = Conv({'x' if index == 0 else f'c{index - 1}'}, w{index})  " for index in range(12))
    text = f"g (float[n,2,3,3] x) => (float[n,2,3,3] c11) {{ {lines} }}"
    return clean(ir.from_proto(graph(text, **{f"w{index}": normal(2, 2, 1, 1) for index in range(12)})))


class Bench:
    """Decisions whose error is the sum of what each layer in integers is given."""

    def __init__(self, harm: Mapping[str, float], weights: float = 0.001) -> None:
        self.harm = harm
        self.weights = weights  # the error of rounding these, wherever activations are
        self.decided = 0

    def decide(self, kept: Collection[str]) -> Decision:
        self.decided += 1
        return Decision(GraphPlan({}, tuple(name for name in LAYERS if name not in kept), tuple(kept)))

    def error_of(self, decision: Decision) -> float:
        return self.weights + sum(self.harm.get(name, 0.0) for name in decision.plan.integer_nodes)

    def run_errors(self, decision: Decision, firsts: Sequence[str]) -> tuple[float, list[float]]:
        ends = [*map(LAYERS.index, firsts), len(LAYERS)]
        runs = [LAYERS[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        return self.weights, [self.weights + sum(self.harm.get(name, 0.0) for name in run) for run in runs]

    def search(
        self, limit: float, stay: Callable[[Decision], bool] | None = None, **answers: Any
    ) -> tuple[list[str], Decision]:
        said = None if stay is None else Answers(stay, **answers)
        return harmful_nodes(chain(), limit, self.decide, self.error_of, said, self.run_errors)


@pytest.mark.parametrize(
    ("harm", "limit", "kept"),
    [
        ({"c3": 0.5}, 0.1, ["c3"]),
        ({"c3": 0.5, "c7": 0.3, "c1": 0.05}, 0.1, ["c3", "c7"]),
        ({"c3": 0.5, "c7": 0.3, "c1": 0.05}, 0.7, ["c3"]),
        ({f"c{index}": 0.1 + index / 1000 for index in range(12)}, 0.65, ["c11", "c10", "c9", "c8", "c7", "c6"]),
        ({f"c{index}": 0.1 + index / 1000 for index in range(12)}, 0.0, list(reversed(LAYERS))),
        ({"c3": 0.5}, 1.0, []),
        ({"c3": 0.5, "c4": 0.001}, 0.0, ["c3"]),  # no limit is worth a layer that does hardly any harm
    ],
)
def test_the_worst_layers_until_the_error_is_low_enough(harm: dict[str, float], limit: float, kept: list[str]):
    bench = Bench(harm)
    found, decision = bench.search(limit)
    assert found == kept
    assert set(decision.plan.integer_nodes) == set(LAYERS) - set(kept)
    assert bench.decided <= 1 + 7, "each takes a run of the graph"


def test_activations_may_add_twice_as_much_where_the_weights_alone_cost_too_much():
    """Twice as much beside them: 0.5 + 0.3 + 0.2 until 0.4 at most are left; no answers are asked."""
    bench = Bench({"c3": 0.5, "c7": 0.3, "c9": 0.2}, weights=0.2)
    found, _ = bench.search(0.1, lambda decision: pytest.fail("asked"))
    assert found == ["c3", "c7"]
    assert bench.decided == 2


def test_a_small_layer_beside_a_large_one_is_seen_once_that_is_kept():
    """Where they do not add up, more are kept until the measured error is low enough."""
    bench = Bench({"c3": 0.5, "c7": 0.02, "c9": 0.01})
    error_of = bench.error_of
    bench.error_of = lambda decision: 3 * error_of(decision)  # type: ignore[method-assign]
    found, _ = bench.search(0.05)
    assert found == ["c3", "c7"]


def test_answers_have_to_stay_too():
    """An error of 0.301 would do."""
    bench = Bench({"c3": 0.5, "c7": 0.3})
    found, _ = bench.search(0.2, lambda decision: "c7" not in decision.plan.integer_nodes)
    assert found == ["c3", "c7"]


def test_where_answers_stay_the_error_may_be_three_times_the_limit():
    bench = Bench({"c3": 0.5, "c7": 0.3})
    assert bench.search(0.3, lambda decision: True)[0] == []
    assert bench.search(0.3)[0] == ["c3", "c7"]
    assert bench.search(0.2, lambda decision: True)[0] == ["c3"], "0.8 is more than that, whatever the answers"


def test_answers_that_decide_are_asked_alone():
    bench = Bench({"c3": 0.5, "c7": 0.3, "c9": 0.2}, weights=0.2)
    assert bench.search(0.1, lambda decision: True, decide=True)[0] == []
    assert bench.search(10, lambda decision: "c7" not in decision.plan.integer_nodes, decide=True)[0] == ["c3", "c7"]


def test_where_nothing_keeps_the_answers_the_error_decides():
    bench = Bench({"c3": 0.5, "c7": 0.3})
    hopeless = {"decide": True, "hopeless": lambda: True}
    assert bench.search(1, lambda decision: False, **hopeless)[0] == []
    assert bench.search(0.4, lambda decision: False, **hopeless)[0] == ["c3"]


def test_no_layer_is_kept_for_what_the_rounding_of_weights_does():
    bench = Bench({f"c{index}": 0.001 for index in range(12)}, weights=0.14)
    found, decision = bench.search(0.01, lambda decision: False)
    assert found == [] and decision.plan.integer_nodes == tuple(LAYERS)


def test_what_passes_codes_on_to_a_layer_goes_with_it():
    """c1 reads what an Add makes of codes, which rounds whoever reads it; c0, which has weights, is a layer itself."""
    text = """g (float[n,2,3,3] x) => (float[n,2,3,3] c1) {
        c0 = Conv(x, w0)  a0 = Add(c0, x)  c1 = Conv(a0, w1)
    }"""
    model = clean(ir.from_proto(graph(text, w0=normal(2, 2, 1, 1), w1=normal(2, 2, 1, 1))))
    names = {node.outputs[0].name: str(node.name) for node in model.graph}
    c0, a0, c1 = (names[name] for name in ("c0", "a0", "c1"))

    def decide(kept: Collection[str]) -> Decision:
        return Decision(GraphPlan({}, tuple(name for name in (c0, a0, c1) if name not in kept), tuple(kept)))

    def error_of(decision: Decision) -> float:
        return 0.5 if a0 in decision.plan.integer_nodes else 0.0

    found, _ = harmful_nodes(model, 0.1, decide, error_of, None, lambda *_: (0.0, [0.0, 0.5]))
    assert found == [c1, a0]
