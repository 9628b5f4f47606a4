"""Errors of integers up to a node are those of the graph that keeps the rest in float."""

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
from quantbench.quantization.prefixes import prefix_errors
from quantbench.quantization.rounding import round_to_nearest
from quantbench.tasks import make_task


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_same_as_keeping_all_later_nodes_in_float(granularity: str, tmp_path: Path):
    reference = small_reference(tmp_path)
    dataset = open_dataset(reference)
    recipe = Recipe("int8", placement="everywhere", granularity=granularity)
    model = load_graphs(reference)["model"]
    observer = Observer({"model": model}, {"model": integer_placement(model, recipe).tensors})
    seen, feeds, _ = observer.observe(make_task(reference, dataset), dataset.calibration, SAMPLES, SAMPLES)
    judge = OutputError(model, feeds["model"])

    def decided(kept: list[str]) -> Decision:
        plan = plan_graph(model, recipe, seen["model"], kept)
        return Decision(plan, round_to_nearest(model, plan))

    whole = decided([])
    nodes = list(whole.plan.integer_nodes)
    weighted = {use.node for use in weight_uses(model).values()}
    firsts = [name for name in nodes[1:] if name in weighted]
    assert len(firsts) == 3
    got = prefix_errors(model, whole, firsts, judge)
    rests = [nodes, *(nodes[nodes.index(first) :] for first in firsts)]
    wanted = [judge.of(decided(rest).written(model)) for rest in rests]
    assert got == pytest.approx(wanted, rel=0.02)
    assert 0 < got[0] < got[-1] < judge.of(whole.written(model)) * 1.2
