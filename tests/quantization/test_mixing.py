"""What narrow weights do to the outputs, and which stay narrow when a budget turns out too large, or fits at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_models import graph, normal, run

from quantbench.graphs.load import prepare
from quantbench.graphs.qdq import QuantizedTensor
from quantbench.quantization.affine import dequantize, quantize, symmetric_affine
from quantbench.quantization.mixing import candidates, choose_narrow
from quantbench.quantization.output_error import OutputError
from quantbench.quantization.precision import Candidate
from quantbench.quantization.writing import array_of

WEIGHTS = {
    "model": [Candidate(f"w{i}", 100 * (i + 1), 0.001 * 2.0**i) for i in range(8)],
    "other": [Candidate("v", 50, 0.002)],
}


def cost(chosen: dict[str, frozenset[str]]) -> float:
    return sum(each.error for name, own in WEIGHTS.items() for each in own if each.name in chosen[name])


@pytest.mark.parametrize("limit", [0.3, 0.1, 0.03, 0.01, 0.004])
def test_what_is_chosen_fits_and_no_weight_more_would(limit: float):
    """Errors that add up, against the most elements of all subsets that fit."""
    asked: list[float] = []

    def excess(chosen: dict[str, frozenset[str]]) -> float:
        asked.append(cost(chosen) / limit)
        return asked[-1]

    chosen = choose_narrow(WEIGHTS, 1.0, excess)
    assert cost(chosen) <= limit and len(asked) <= 8
    everything = [each for own in WEIGHTS.values() for each in own]
    best = 0
    for subset in range(1 << len(everything)):
        taken = [each for k, each in enumerate(everything) if subset >> k & 1]
        if sum(each.error for each in taken) <= limit:
            best = max(best, sum(each.elements for each in taken))
    got = sum(each.elements for name, own in WEIGHTS.items() for each in own if each.name in chosen[name])
    assert got >= 0.6 * best


def test_all_are_narrow_where_all_fit():
    chosen = choose_narrow(WEIGHTS, 1.0, lambda chosen: 0.5)
    assert chosen == {name: frozenset(each.name for each in own) for name, own in WEIGHTS.items()}


def test_none_is_narrow_where_none_fits():
    chosen = choose_narrow(WEIGHTS, 1.0, lambda chosen: np.inf)
    assert chosen == {"model": frozenset(), "other": frozenset()}


@pytest.mark.parametrize("kept_bytes", [1 << 28, 0])
def test_each_weight_alone_is_measured_in_the_whole_graph(kept_bytes: int, monkeypatch: pytest.MonkeyPatch):
    """Against ONNX Runtime on the graph with one weight, and its bias, replaced; the weights are named out of order."""
    monkeypatch.setattr("quantbench.quantization.mixing._KEPT_BYTES", kept_bytes)
    text = """g (float[n,6] x) => (float[n,4] y, float[n,8] h)
    { a = Gemm(x, w3, b)  h = Relu(a)  c = MatMul(h, w1)  d = MatMul(h, w4)  e = Add(c, d)  y = MatMul(e, w2) }"""
    shapes = {"w1": (8, 8), "w2": (8, 4), "w3": (6, 8), "w4": (8, 8)}
    arrays = {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    bias, shift = normal(8, seed=9), np.linspace(-0.1, 0.1, 8)
    model = prepare(graph(text, **arrays, b=bias))
    feeds = [{"x": normal(5, 6, seed=seed)} for seed in (10, 11, 12)]
    narrow = {name: nearest_of_a_tensor(array) for name, array in arrays.items()}
    found = candidates(model, narrow, {"b": shift}, OutputError(model, feeds))
    assert [(each.name, each.elements) for each in found] == [(name, array.size) for name, array in arrays.items()]
    exact = outputs_of(graph(text, **arrays, b=bias), feeds)
    for each in found:
        changed = {**arrays, each.name: dequantize(narrow[each.name])}
        shifted = (bias + shift).astype(np.float32) if each.name == "w3" else bias
        got = outputs_of(graph(text, **changed, b=shifted), feeds)
        errors = [
            np.square(one - other).sum() / (other.var() * other.size) for one, other in zip(got, exact, strict=True)
        ]
        assert each.error == pytest.approx(max(errors), rel=1e-3)
    assert all(np.array_equal(array_of(model, name), array) for name, array in arrays.items()), "left as it was"


def nearest_of_a_tensor(array: np.ndarray) -> QuantizedTensor:
    affine = symmetric_affine(np.abs(array).max(), "int4", None, 0, None)
    return QuantizedTensor(quantize(array, affine), affine)


def outputs_of(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(column) for column in zip(*(run(model, feed) for feed in feeds), strict=True)]
