"""Errors of a run of nodes in integers are those of the whole graph in which nothing else reads codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_reference import SAMPLES, small_reference

from quantbench.calibration import Observer
from quantbench.datasets import open_dataset
from quantbench.graphs.load import load_graphs
from quantbench.quantization import Recipe
from quantbench.quantization.decision import Decision
from quantbench.quantization.output_error import OutputError
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.planning import integer_placement, plan_graph
from quantbench.quantization.rounding import round_to_nearest
from quantbench.quantization.sensitivity import run_errors
from quantbench.tasks import make_task


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_same_as_codes_for_one_run_in_the_whole_graph(granularity: str, tmp_path: Path):
    reference = small_reference(tmp_path)
    dataset = open_dataset(reference)
    recipe = Recipe("int8", placement="everywhere", granularity=granularity)
    model = load_graphs(reference)["model"]
    observer = Observer({"model": model}, {"model": integer_placement(model, recipe).tensors})
    seen, feeds, _ = observer.observe(make_task(reference, dataset), dataset.calibration, SAMPLES, SAMPLES)
    judge = OutputError(model, feeds["model"])

    def decided(kept: list[str]) -> Decision:
        plan = plan_graph(model, recipe, seen["model"], kept=kept)
        return Decision(plan, round_to_nearest(model, plan))

    whole = decided([])
    nodes = list(whole.plan.integer_nodes)
    weighted = {use.node for use in weight_uses(model).values()}
    firsts = [name for name in nodes[1:] if name in weighted]
    assert len(firsts) == 3
    in_float, alone = run_errors(model, whole, firsts, judge)
    assert in_float == pytest.approx(judge.of(decided(nodes).written(model)), rel=0.02)
    order = [str(node.name) for node in model.graph]
    ends = [0, *(order.index(first) for first in firsts), len(order)]
    read = {str(node.name): {value.name for value in node.inputs if value is not None} for node in model.graph}
    for begin, end, error in zip(ends, ends[1:], alone, strict=False):
        run = order[begin:end]
        tensors = set(whole.weights).union(*(read[name] for name in run))
        tensors |= {output.name for output in model.graph.outputs if end == len(order)}
        codes = Decision(whole.plan.within(tensors, run), whole.weights)
        assert error == pytest.approx(judge.of(codes.written(model)), rel=0.02)
    assert in_float < min(alone) and max(alone) < judge.of(whole.written(model)) * 1.2
