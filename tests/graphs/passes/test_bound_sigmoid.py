"""Hard-sigmoid behind a linear operation becomes a bound, at the same results."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import graph, normal, operators, run, weights_of
from rewriting import rewrite

from quantbench.graphs.passes import bound_sigmoid, fold_affine

X = {"x": 4 * normal(2, 3, 5, 5)}


@pytest.mark.parametrize("attributes", ["", "<alpha=0.16666667>", "<alpha=0.3, beta=0.4>"])
def test_behind_a_convolution(attributes: str):
    text = f"g (float[n,3,5,5] x) => (float[n,4,5,5] y) {{ c = Conv(x, w, b)  y = HardSigmoid {attributes} (c) }}"
    after = rewrite(graph(text, w=normal(4, 3, 1, 1), b=normal(4)), [bound_sigmoid, fold_affine], X)
    assert operators(after) == ["Conv", "Clip"]
    (y,) = run(after, X)
    assert y.min() == 0 and y.max() == 1  # both bounds are reached, so both were compared


def test_hand_computed():
    """2·3 + 1 = 7; 0.1·7 + 0.2 = 0.9, so the weight becomes 0.2 and the bias 0.3."""
    text = "g (float[n,1] x) => (float[n,1] y) { c = Gemm(x, w, b)  y = HardSigmoid <alpha=0.1, beta=0.2> (c) }"
    proto = graph(text, w=np.array([[2.0]]), b=np.array([1.0]))
    after = rewrite(proto, [bound_sigmoid, fold_affine], {"x": np.array([[3.0]], np.float32)})
    found = weights_of(after)
    np.testing.assert_allclose([found["w"].item(), found["b"].item()], [0.2, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("lines", "outputs"),
    [
        ("c = Exp(x)  y = HardSigmoid(c)", "float[n,3,5,5] y"),
        ("c = Conv(x, w)  y = HardSigmoid(c)  z = Neg(c)", "float[n,4,5,5] y, float[n,4,5,5] z"),
        ("c = Conv(x, v)  v = Neg(w)  y = HardSigmoid(c)", "float[n,4,5,5] y"),
    ],
)
def test_others_stay(lines: str, outputs: str):
    lines = "v = Neg(w)  c = Conv(x, v)  y = HardSigmoid(c)" if "v = " in lines else lines
    text = f"g (float[n,3,5,5] x) => ({outputs}) {{ {lines} }}"
    assert "HardSigmoid" in operators(rewrite(graph(text, w=normal(4, 3, 1, 1)), [bound_sigmoid], X))
