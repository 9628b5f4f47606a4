"""Rounding in the order of the graph: later operations make up for earlier ones, biases for the means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, run
from small_reference import SAMPLES, images, network, small_reference

from quantbench.calibration import Histogram
from quantbench.errors import InputError
from quantbench.graphs.load import prepare
from quantbench.quantization import Recipe, convert
from quantbench.quantization.affine import dequantize
from quantbench.quantization.planning import integer_placement, plan_graph
from quantbench.quantization.rounding import METHODS, get_method, replay, round_in_order, round_to_nearest
from quantbench.quantization.writing import replace_array, write_graph

DRAWS = 4
FEEDS = [{"x": images()[start : start + 8]} for start in range(0, SAMPLES, 8)]


def planned(model: ir.Model, feeds: list[dict[str, np.ndarray]], **options: object):
    """The plan of a recipe, with ranges from the tensors' extremes."""
    recipe = Recipe(**{"dtype": "int4", "calibrator": "minmax", **options})  # type: ignore[arg-type]
    observations = {}
    names = integer_placement(model, recipe).tensors
    copy = model.clone()
    values = {output.name: output for node in copy.graph for output in node.outputs}
    inner = [name for name in names if name in values]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in inner)
    for feed in feeds:
        results = dict(zip(inner, run(ir.to_proto(copy), feed), strict=True)) if inner else {}
        for name in names:
            observations.setdefault(name, Histogram(name)).add((feed | results)[name])
    return plan_graph(model, recipe, {name: each.observation() for name, each in observations.items()})


def outputs(model: ir.Model, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([run(ir.to_proto(model), feed)[0] for feed in feeds])


def output_error(model: ir.Model, plan: object, weights: dict, shifts: dict, feeds: list) -> float:
    """Root mean square error over the deviation."""
    exact = outputs(model, feeds)
    got = outputs(write_graph(model, plan, weights, shifts), feeds)  # type: ignore[arg-type]
    return float(np.sqrt(np.square(got - exact).mean()) / exact.std())


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block:4"])
@pytest.mark.parametrize("activations", ["uint8", "fp32"])
def test_outputs_are_nearer_than_with_nearest_codes(granularity: str, activations: str):
    errors = dict.fromkeys(METHODS, 1.0)  # the product over networks: of one with so few weights half is chance
    for draw in range(DRAWS):
        model = prepare(network(draw))
        plan = planned(model, FEEDS, granularity=granularity, activations=activations)
        for name in METHODS:
            weights, shifts = round_in_order(model, plan, FEEDS, get_method(name))
            assert set(weights) == {"w1", "w2", "w3", "w4"} and set(shifts) == {"b1", "b2", "b3", "b4"}
            errors[name] *= output_error(model, plan, weights, shifts, FEEDS) ** (1 / DRAWS)
    assert errors["gptq"] < 0.75 * errors["nearest"] and errors["adaround"] < 0.75 * errors["nearest"]


def test_nearest_in_order_is_nearest_with_the_means_restored():
    model = prepare(network())
    plan = planned(model, FEEDS)
    weights, shifts = round_in_order(model, plan, FEEDS, get_method("nearest"))
    for name, tensor in round_to_nearest(model, plan).items():
        assert np.array_equal(tensor.codes, weights[name].codes)
        assert np.array_equal(tensor.affine.scale, weights[name].affine.scale)
    exact, got = outputs(model, FEEDS), outputs(write_graph(model, plan, weights, shifts), FEEDS)
    plain = outputs(write_graph(model, plan, weights, {}), FEEDS)
    assert np.abs(got.mean(0) - exact.mean(0)).max() < 0.1 * np.abs(plain.mean(0) - exact.mean(0)).max()


def test_a_later_weight_makes_up_for_an_earlier_one():
    """Two products in a row, the second in 8 bits: with the first one rounded to 4 bits it moves towards undoing that.

    By hand: y = W2·W1·x. Given the rounded R = Q1·x the best second weight is W2·E[W1·x·Rᵀ]·E[R·Rᵀ]⁻¹.
    """
    text = "g (float[n,6] x) => (float[n,4] y) { h = MatMul(x, w1)  y = MatMul(h, w2) }"
    model = prepare(graph(text, w1=normal(6, 8, seed=1), w2=normal(8, 4, seed=2)))
    x = normal(4000, 6, seed=3)
    feeds = [{"x": x[start : start + 500]} for start in range(0, 4000, 500)]
    rules = {"layers": ({"match": "w2", "weights": "int16"},), "activations": "fp32"}
    plan = planned(model, feeds, **rules)
    weights, shifts = round_in_order(model, plan, feeds, get_method("gptq"))
    assert shifts == {}, "there is no bias to shift"
    first, second = (dequantize(weights[name]).astype(np.float64) for name in ("w1", "w2"))
    hidden = x @ normal(6, 8, seed=1).astype(np.float64)
    rounded = x @ first
    moment = rounded.T @ rounded / 4000
    moment += 0.01 * np.trace(moment) / 8 * np.eye(8)
    exact = normal(8, 4, seed=2).astype(np.float64)
    best = exact + np.linalg.solve(moment, rounded.T @ (hidden - rounded) / 4000 @ exact)
    assert np.abs(best - exact).max() > 0.02
    np.testing.assert_allclose(second, best, atol=0.1 * np.abs(best - exact).max())


def test_inputs_that_never_vary_do_no_harm():
    """Two of three channels are constant, one of them 0: their weights' errors go into the bias, exactly."""
    text = "g (float[n,3,5,5] x) => (float[n,4,5,5] y) { y = Conv(x, w, b) }"
    model = prepare(graph(text, w=normal(4, 3, 1, 1, seed=1), b=normal(4, seed=2)))
    x = normal(16, 3, 5, 5, seed=3)
    x[:, 0], x[:, 1] = 0, 5
    feeds = [{"x": x[:8]}, {"x": x[8:]}]
    plan = planned(model, feeds, activations="fp32")
    weights, shifts = round_in_order(model, plan, feeds, get_method("gptq"))
    assert output_error(model, plan, weights, shifts, feeds) < 0.1
    exact = normal(4, 3, 1, 1, seed=1)
    assert np.abs(dequantize(weights["w"]) - exact)[:, :2].max() <= weights["w"].affine.scale.max()


def test_one_sample_alone_is_enough_to_run():
    model = prepare(network())
    feeds = [{"x": images()[:1]}]
    plan = planned(model, feeds)
    weights, shifts = round_in_order(model, plan, feeds, get_method("gptq"), seed=-1)
    assert np.isfinite(output_error(model, plan, weights, shifts, FEEDS))


def test_memory_bounds_change_next_to_nothing(monkeypatch: pytest.MonkeyPatch):
    """Tensors that are computed again are the same, but for how ONNX Runtime fuses a longer piece."""
    model = prepare(network())
    plan = planned(model, FEEDS)
    runs = []
    for budget in (3 << 27, 1 << 13, 0):
        monkeypatch.setattr("quantbench.quantization.rounding.in_order._BUDGET", budget)
        runs.append(round_in_order(model, plan, FEEDS, get_method("nearest"))[1])
    for shifts in runs[1:]:
        for name, shift in runs[0].items():
            np.testing.assert_allclose(shifts[name], shift, atol=1e-4)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch):
    model = prepare(network())
    plan = planned(model, FEEDS)
    runs = []
    for count in (1, 2, 5):
        for module in ("in_order", "threads"):
            monkeypatch.setattr(f"quantbench.quantization.rounding.{module}.cores", lambda count=count: count)
        runs.append(round_in_order(model, plan, FEEDS, get_method("gptq")))
    same(runs)


def same(runs: list) -> None:
    for weights, shifts in runs[1:]:
        for name, tensor in runs[0][0].items():
            assert np.array_equal(tensor.codes, weights[name].codes), name
            assert np.array_equal(tensor.affine.scale, weights[name].affine.scale), name
        for name, shift in runs[0][1].items():
            assert np.array_equal(shift, shifts[name]), name


def test_what_a_replay_keeps_and_computes_again():
    """Every stop has the values that the whole graph gives it, whatever fits into memory."""
    text = """g (float[n,3] x) => (float[n,3] y)
    { a = Relu(x)  b = MatMul(a, w)  c = Add(a, b)  d = Relu(c)  e = MatMul(d, w)  f = Add(c, e)  y = Mul(f, a) }"""
    model = prepare(graph(text, w=normal(3, 3)))
    feeds = [{"x": normal(4, 3, seed=seed)} for seed in range(3)]
    stops = ["x", "a", "c", "d", "d", "f"]
    a = [np.maximum(feed["x"], 0) for feed in feeds]
    c = [each + each @ normal(3, 3) for each in a]
    f = [each + np.maximum(each, 0) @ normal(3, 3) for each in c]
    expected = {"x": [feed["x"] for feed in feeds], "a": a, "c": c, "d": [np.maximum(each, 0) for each in c], "f": f}
    for budget in (0, 200, 10**6):
        run_again = replay.Replay(model, feeds, stops, budget)
        for stop in stops:
            piece = run_again.open()
            for batch in (2, 0, 1):
                np.testing.assert_allclose(piece.run(batch)[0], expected[stop][batch], rtol=1e-5, atol=1e-6)
            run_again.close(piece)


def test_what_a_replay_lets_go_of_makes_room_for_what_it_keeps():
    """Room for one tensor of a chain: each stop starts from the one before it."""
    model = prepare(graph("g (float[n,3] x) => (float[n,3] y) { a = Exp(x)  b = Sin(a)  c = Cos(b)  y = Exp(c) }"))
    feeds = [{"x": normal(4, 3, seed=seed)} for seed in range(2)]
    run_again = replay.Replay(model, feeds, ["a", "b", "c", "y"], sum(feed["x"].nbytes for feed in feeds))
    starts = []
    for _ in range(4):
        piece = run_again.open()
        starts.append(piece.starts)
        values = [piece.run(batch)[0] for batch in range(2)]
        run_again.close(piece)
    assert starts == [["x"], ["a"], ["b"], ["c"]]
    expected = [np.exp(np.cos(np.sin(np.exp(feed["x"])))) for feed in feeds]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_a_fork_computes_with_the_graph_as_it_is_and_leaves_no_trace():
    """With another second matrix: what comes before it stays, what comes behind changes, the next stop does not."""
    text = """g (float[n,3] x) => (float[n,3] y, float[n,3] c)
    { a = Relu(x)  b = MatMul(a, v)  c = Add(a, b)  d = MatMul(c, w)  y = Add(c, d) }"""
    v, w, other = (normal(3, 3, seed=seed) for seed in (1, 2, 3))
    x = [normal(4, 3, seed=seed) for seed in (4, 5)]
    a = [np.maximum(each, 0) for each in x]
    c = [each + each @ v for each in a]
    for budget in (0, 10**6):
        model = prepare(graph(text, v=v, w=w))
        run_again = replay.Replay(model, [{"x": each} for each in x], ["b", "d", "y", "c"], budget)
        run_through(run_again)
        replace_array(model, "w", other)
        fork = run_again.fork(["y", "c"])
        replace_array(model, "w", w)
        for batch, each in enumerate(c):
            np.testing.assert_allclose(fork.run(batch), [each + each @ other, each], rtol=1e-5, atol=1e-5)
        assert fork.computed.keys() <= {"y", "c"}
        for batch, values in enumerate(run_through(run_again)):
            np.testing.assert_allclose(values, c[batch] @ w, rtol=1e-5, atol=1e-5)


def run_through(replayed: replay.Replay) -> list[np.ndarray]:
    """The next stop, for each of two batches."""
    piece = replayed.open()
    values = [piece.run(batch)[0] for batch in range(2)]
    replayed.close(piece)
    return values


def test_no_samples_are_too_few():
    model = prepare(network())
    with pytest.raises(InputError, match="at least one calibration sample"):
        round_in_order(model, planned(model, FEEDS), [], get_method("gptq"))


@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_a_variant_says_how_it_was_rounded(method: str, tmp_path: Path):
    reference = small_reference(tmp_path)
    paths = [convert(reference, Recipe("int4", rounding=method), out=tmp_path / each).path for each in "ab"]
    assert (paths[0] / "model.onnx").read_bytes() == (paths[1] / "model.onnx").read_bytes()
    plan = json.loads((paths[0] / "plan.json").read_text(encoding="utf-8"))
    assert plan["recipe"]["rounding"] == method
    assert plan["graphs"]["model"]["tensors"]["w1"]["scale"] == f"by {method}"
