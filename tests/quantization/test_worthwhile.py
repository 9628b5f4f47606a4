"""Where integers pay: the cut is the best of all divisions, tried one by one, and large enough to be worth it."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import graph, normal

from quantbench.graphs.load import prepare
from quantbench.quantization.costs import cost_of, crossing
from quantbench.quantization.placement import place_activations
from quantbench.quantization.planning import fast_placement, integer_placement
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.worthwhile import slower_in_integers


def prepared(channels: list[int], lines: str, size: int, **weights: np.ndarray) -> ir.Model:
    for index, (before, after) in enumerate(pairwise(channels)):
        weights |= {f"w{index}": normal(after, before, 1, 1), f"d{index}": normal(before, 1, 3, 3)}
    text = f"g (float[n,{channels[0]},{size},{size}] x) => (float[n,a,b,c] y) {{ {lines} }}"
    return prepare(graph(text, **weights))


def elements(model: ir.Model) -> dict[str, int]:
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return {value.name or "": int(np.prod([size for size in value.shape if isinstance(size, int)])) for value in values}


def best(model: ir.Model, names: list[str]) -> tuple[float, float, set[str]]:
    """(cost of the best division, cost with all in integers, what it leaves in float), by trying them all."""
    sizes = elements(model)
    nodes = {node.name or "": node for node in model.graph}
    ends = {name: (nodes[name].inputs[0].name, nodes[name].outputs[0].name) for name in names}
    costs = {name: cost_of(nodes[name], sizes[taken], sizes[given]) for name, (taken, given) in ends.items()}
    found = []
    for choice in product((True, False), repeat=len(names)):
        integer = dict(zip(names, choice, strict=True))
        total = sum(costs[name].in_integers if integer[name] else costs[name].in_float for name in names)
        for value in [*model.graph.inputs, *(node.outputs[0] for node in model.graph)]:
            maker = value.producer()
            made = maker is not None and integer.get(maker.name or "", False)
            readers = [integer.get(reader.name or "", False) for reader, _ in value.uses()]
            readers += [False] if value.is_graph_output() else []
            converted = (made and not all(readers)) or (not made and any(readers))
            total += crossing(sizes[value.name or ""]) * converted
        found.append((total, {name for name in names if not integer[name]}))
    return min(found, key=lambda each: each[0])[0], found[0][0], min(found, key=lambda each: each[0])[1]


@pytest.mark.parametrize("size", [4, 14, 56])
@pytest.mark.parametrize(
    ("channels", "lines", "islands"),
    [
        ([16, 16], "a = Conv <group=16, pads=[1,1,1,1]> (x, d0)  y = Conv(a, w0)", ["ay"]),
        (
            [8, 96, 96],
            "a = Conv(x, w0)  b = Conv(a, w1)  c = Conv <group=96, pads=[1,1,1,1]> (b, d1)  y = Add(c, a)",
            ["abcy"],
        ),
        (
            [64, 64, 64],
            "a = Conv(x, w0)  h = HardSwish(a)  b = Conv(h, w1)  s = Softplus(b)  y = Conv(s, w1)",
            ["ahb", "y"],
        ),
        ([24, 24], "a = Conv <group=24> (x, d0)  b = Conv <group=24> (a, d0)  y = Conv <group=24> (b, d0)", ["aby"]),
    ],
)
def test_the_cut_is_the_best_division(channels: list[int], lines: str, islands: list[str], size: int):
    """Of each island between which only floats go."""
    model = prepared(channels, lines, size)
    placement = place_activations(model)
    expected: set[str] = set()
    for island in islands:
        cheapest, all_integers, left = best(model, [name for name in placement.nodes if name in island])
        expected |= left if cheapest <= 0.75 * all_integers else set()
    assert set(slower_in_integers(model, placement, elements(model))) == expected


def test_a_small_island_is_judged_by_itself():
    """The score of an attention: many inputs and one output, far from worth a conversion, beside a large matrix."""
    model = prepare(
        graph(
            """
            g (float[n,1024] x) => (float[n,4096] z, float[n,1024,1] y)
            { z = MatMul(x, w)  u = MatMul(x, v)  r = Reshape(u, s)  t = Tanh(r)  y = MatMul(t, d) }
            """,
            w=normal(1024, 4096), v=normal(1024, 8192), d=normal(8, 1), s=np.array([-1, 1024, 8]),
        )
    )  # fmt: skip
    placement = place_activations(model)
    assert placement.nodes == ("z", "u", "y")
    assert slower_in_integers(model, placement, {"x": 1024, "t": 8192}) == ("y",)


def test_depthwise_layers_of_few_channels_are_faster_in_float_and_wide_dense_ones_are_not():
    """As docs/kernels.md has it; the early layers of a mobile network against the late ones."""
    early = prepared([16, 16], "a = Conv <group=16, pads=[1,1,1,1]> (x, d0)  y = Conv <group=16> (a, d0)", 112)
    assert set(slower_in_integers(early, place_activations(early), elements(early))) == {"a", "y"}
    late = prepared([256, 256, 256], "a = Conv(x, w0)  y = Conv(a, w1)", 14)
    assert slower_in_integers(late, place_activations(late), elements(late)) == ()


def test_an_activation_goes_with_its_operation():
    lines = "a = Conv <group=16, pads=[1,1,1,1]> (x, d0)  r = Relu(a)  y = Conv <group=16> (r, d0)"
    early = prepared([16, 16], lines, 112)
    assert {"a", "r"} <= set(slower_in_integers(early, place_activations(early), elements(early)))


def test_what_an_activation_bounds_is_as_large_as_what_comes_out_of_it():
    """Calibration looks behind the activation alone; the wide layers before it still belong in integers."""
    late = prepared([256, 256, 256], "a = Conv(x, w0)  r = Relu(a)  b = Conv(r, w1)  y = Relu(b)", 14)
    placement = place_activations(late)
    seen = {name: each for name, each in elements(late).items() if name in placement.tensors}
    assert set(seen) == {"x", "r", "y"} and slower_in_integers(late, placement, seen) == ()
    early = prepared([16, 16], "a = Conv <group=16, pads=[1,1,1,1]> (x, d0)  r = Relu(a)  y = Conv(r, w0)", 112)
    placement = place_activations(early)
    some = {name: each for name, each in elements(early).items() if name in placement.tensors}
    assert slower_in_integers(early, placement, some) == slower_in_integers(early, placement, elements(early))


@pytest.mark.parametrize("size", [14, 56])
def test_what_is_faster_in_float_stays_there_whatever_is_kept(size: int):
    """So that what calibration has looked at is enough for every placement."""
    lines = "a = Conv <group=16, pads=[1,1,1,1]> (x, d0)  b = HardSwish(a)  s = Softplus(b)  c = Conv(s, w0)"
    model = prepared([16, 256, 256], f"{lines}  h = HardSwish(c)  y = Conv(h, w1)", size)
    recipe, sizes = Recipe("int8"), elements(model)
    first, faster = fast_placement(model, recipe, sizes)
    assert (set(first.nodes), set(faster)) == (set("chy"), set("ab"))
    for kept in (set(some) for count in range(5) for some in combinations("abchy", count)):
        placement, slow = fast_placement(model, recipe, sizes, kept)
        assert set(placement.tensors) <= set(first.tensors)
        assert not {*kept, *faster, *slow}.intersection(placement.nodes)
        assert set(slow) | set(placement.nodes) == set(integer_placement(model, recipe, kept).nodes)
