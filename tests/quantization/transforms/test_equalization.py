"""Equalization changes no output in real numbers, and makes channels use their tensors' ranges alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, operators, run, weights_of
from onnxruntime import InferenceSession

from quantbench.graphs.load import prepare
from quantbench.quantization.transforms import equalize

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
UNEVEN = np.exp(3 * normal(8, seed=9)).astype(np.float32)
CONVOLUTIONS = """
    g (float[n,3,8,8] x) => (float[n,5,a,b] y) <float zero = {0.0}, float six = {6.0}>
"""


def weights() -> dict[str, np.ndarray]:
    """A first convolution whose channels differ by orders of magnitude, and what may come behind it."""
    return {
        "w1": normal(8, 3, 3, 3, seed=1) * UNEVEN.reshape(-1, 1, 1, 1), "b1": normal(8, seed=2) * UNEVEN,
        "dw": normal(8, 1, 3, 3, seed=3), "db": normal(8, seed=4), "w2": normal(5, 8, 1, 1, seed=5),
        "b2": normal(5, seed=6), "gw": normal(4, 4, 1, 1, seed=7), "w3": normal(8, 8, 1, 1, seed=8),
        "slope": np.abs(normal(8, 1, 1, seed=9)), "tw": normal(8, 5, 2, 2, seed=10), "more": normal(8, 1, 1, seed=11),
    }  # fmt: skip


def equalized(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> tuple[onnx.ModelProto, int]:
    """The model behind its preparation and equalization, checked, and how many groups were scaled unevenly."""
    model = prepare(proto)
    done = equalize(model, [feeds])
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    return result, sum(each.largest / each.smallest > 1.5 for each in done)


def assert_same(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], groups: int) -> onnx.ModelProto:
    result, scaled = equalized(proto, feeds)
    assert scaled == groups
    for exact, got in zip(run(proto, feeds), run(result, feeds), strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    return result


@pytest.mark.parametrize(
    ("middle", "groups"),
    [
        ("y = Conv(c, w4, b2)", 1),
        ("r = Relu(c)  y = Conv(r, w2, b2)", 1),
        ("r = LeakyRelu <alpha=0.2> (c)  y = Conv(r, w2)", 1),
        ("r = PRelu(c, slope)  y = Conv(r, w2)", 1),
        ("r = Clip(c, zero, six)  y = Conv(r, w2)", 1),
        ("r = Clip(c, , six)  y = Conv(r, w2)", 1),
        ("r = Clip(c, zero)  y = Conv(r, w2)", 1),
        ("r = Relu(c)  d = Conv <group=8, pads=[1,1,1,1]> (r, dw, db)  q = Relu(d)  y = Conv(q, w2, b2)", 2),
        ("s, t = Split <axis=1, num_outputs=2> (c)  d = Conv <group=1> (s, gw)  y = Conv(d, v4)", 1),
        ("p = MaxPool <kernel_shape=[2,2]> (c)  y = Conv(p, w2)", 1),
        ("p = AveragePool <kernel_shape=[2,2]> (c)  y = Conv(p, w2)", 1),
        ("a = Conv(c, w3)  s = Add(a, c)  y = Conv(s, w2)", 1),
        ("s = Add(c, more)  r = Relu(s)  y = Conv(r, w2)", 1),
        ("p = GlobalAveragePool(c)  k = Conv(p, w3)  h = Sigmoid(k)  m = Mul(h, c)  y = Conv(m, w2)", 1),
        ("p = GlobalAveragePool(c)  h = Sigmoid(p)  m = Mul(c, h)  y = Conv(m, w2)", 0),
        ("y = ConvTranspose <strides=[2,2]> (c, tw)", 1),
        ("h = HardSwish(c)  y = Conv(h, w2)", 0),
        ("h = Sigmoid(c)  y = Conv(h, w2)", 0),
        ("m = Mul(c, c)  y = Conv(m, w2)", 0),
        ("e = Tanh(c)  a = Add(c, e)  y = Conv(a, w2)", 0),
        ("r = Clip(c, minus, six)  y = Conv(r, w2)", 0),
    ],
)  # fmt: skip
def test_outputs_stay_and_what_is_linear_is_scaled(middle: str, groups: int):
    more = {"v4": normal(5, 4, 3, 3, seed=12), "w4": normal(5, 8, 3, 3, seed=13), "minus": np.float32(-1)}
    text = f"{CONVOLUTIONS} {{ c = Conv <pads=[1,1,1,1]> (x, w1, b1)  {middle} }}"
    proto = graph(text, **weights(), **{name: more[name] for name in more if name in middle})
    assert_same(proto, {"x": 3 * normal(2, 3, 8, 8)}, groups)


def test_matrix_products_and_lookups():
    proto = graph(
        """
        g (int64[n] i) => (float[n,3] y)
        { e = Gather(t, i)  m = MatMul(e, a)  s = Add(m, b)  r = Relu(s)  y = Gemm <transB=1> (r, c, d) }
        """,
        t=normal(9, 6) * np.exp(2 * normal(6, seed=1)), a=normal(6, 7, seed=2) * np.exp(2 * normal(7, seed=3)),
        b=normal(7, seed=4), c=normal(3, 7, seed=5), d=normal(3, seed=6),
    )  # fmt: skip
    assert_same(proto, {"i": np.arange(9)}, 2)


def test_a_bound_moves_per_channel():
    text = f"{CONVOLUTIONS} {{ c = Conv (x, w1, b1)  r = Clip(c, zero, six)  y = Conv(r, w2) }}"
    feeds = {"x": 3 * normal(2, 3, 8, 8)}
    result = assert_same(graph(text, **weights()), feeds, 1)
    assert operators(result) == ["Conv", "Relu", "Min", "Conv"]
    bound = next(array for name, array in weights_of(result).items() if name.endswith("high"))
    assert bound.shape == (8, 1, 1)
    factor = weights()["w1"][:, 0, 0, 0] / weights_of(result)["w1"][:, 0, 0, 0]
    np.testing.assert_allclose(bound.reshape(-1), 6 / factor, rtol=1e-5)


def test_what_several_read_or_the_user_sees_is_left_alone():
    """A weight used twice, and a tensor that is an output."""
    feeds = {"x": 3 * normal(2, 3, 8, 8)}
    text = f"{CONVOLUTIONS} {{ c = Conv (x, w1, b1)  d = Conv(c, w3)  e = Conv(d, w3)  y = Conv(e, w2) }}"
    assert_same(graph(text, **weights()), feeds, 0)
    text = "g (float[n,3,8,8] x) => (float[n,8,6,6] c, float[n,5,6,6] y) { c = Conv(x, w1, b1)  y = Conv(c, w2) }"
    assert_same(graph(text, **weights()), feeds, 0)


def test_two_layers_meet_in_the_middle():
    """Nagel et al. (2019), equation 11: s = √(r1/r2) makes both ranges √(r1·r2), up to a factor they all share.

    Here the activation's range follows the weights of the first layer: x is 1, so channel i holds w1[i].
    """
    first, second = np.float32([1.0, 16.0]), np.float32([4.0, 1.0])
    proto = graph(
        "g (float[n,1] x) => (float[n,1] y) { h = Gemm(x, a)  y = Gemm(h, b) }",
        a=first.reshape(1, 2), b=second.reshape(2, 1),
    )  # fmt: skip
    result, _ = equalized(proto, {"x": np.ones((1, 1), np.float32)})
    a, b = (weights_of(result)[name].reshape(-1) for name in "ab")
    np.testing.assert_allclose(a * b, first * second, rtol=1e-6)
    np.testing.assert_allclose(a[1] / a[0], b[1] / b[0], rtol=1e-3)


def test_activations_count():
    """Channel 1 has weights 100 times as small and inputs 100 times as large: what counts is already even."""
    proto = graph(
        "g (float[n,2] x) => (float[n,1] y) { h = Gemm(x, a)  y = Gemm(h, b) }",
        a=np.diag(np.float32([1, 0.01])), b=np.ones((2, 1), np.float32),
    )  # fmt: skip
    even, _ = equalized(proto, {"x": np.float32([[1, 100]])})
    np.testing.assert_allclose(weights_of(even)["a"], np.diag(np.float32([1, 0.01])))
    uneven, _ = equalized(proto, {"x": np.float32([[1, 1]])})
    np.testing.assert_allclose(weights_of(uneven)["a"][1, 1] / weights_of(uneven)["a"][0, 0], 0.1, rtol=1e-2)


def test_a_dead_channel_is_left_alone():
    first = np.float32([[1, 0, 5]])
    proto = graph(
        "g (float[n,1] x) => (float[n,1] y) { h = Gemm(x, a)  y = Gemm(h, b) }",
        a=first, b=np.float32([[2], [1], [0]]),
    )  # fmt: skip
    result, _ = equalized(proto, {"x": np.ones((1, 1), np.float32)})
    assert all(np.isfinite(array).all() for array in weights_of(result).values())
    np.testing.assert_allclose(run(result, {"x": np.ones((1, 1), np.float32)})[0], [[2.0]], rtol=1e-6)


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")
def test_a_real_network_stays_the_same():
    proto = onnx.load(SHARED / "efficientnet_lite0.onnx")
    name = proto.graph.input[0].name
    feeds = {name: normal(2, 3, 224, 224)}
    result, scaled = equalized(proto, feeds)
    assert scaled > 30 and operators(result).count("Min") == operators(proto).count("Clip") == 33
    exact, got = (InferenceSession(each.SerializeToString()).run(None, feeds)[0] for each in (proto, result))
    np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
