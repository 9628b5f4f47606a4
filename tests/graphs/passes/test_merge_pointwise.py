"""Two convolutions in a row become one where that is less work, at the same results."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import graph, normal, operators, weights_of
from rewriting import rewrite

from quantbench.graphs.passes import merge_pointwise

X = {"x": normal(2, 3, 7, 7)}


def after(first: str, second: str, lines: str = "", outputs: str = "float[n,a,b,c] y", **weights: np.ndarray):
    text = f"g (float[n,3,7,7] x) => ({outputs}) {{ m = Conv {first}  y = Conv {second} {lines} }}"
    return rewrite(graph(text, **weights), [merge_pointwise], X)


@pytest.mark.parametrize("first", ["(x, w1, b1)", "(x, w1)", "<pads=[1,1,1,1], strides=[2,2]> (x, k1, b1)"])
@pytest.mark.parametrize("second", ["(m, w2, b2)", "(m, w2)"])
def test_wide_then_narrow(first: str, second: str):
    """3 → 16 → 2 channels: 16·3·k + 2·16 weights become 2·3·k."""
    weights = {"k1": normal(16, 3, 3, 3)} if "k1" in first else {"w1": normal(16, 3, 1, 1)}
    found = after(first, second, b1=normal(16), w2=normal(2, 16, 1, 1), b2=normal(2), **weights)
    assert operators(found) == ["Conv"]
    (name,) = weights
    assert weights_of(found)[name].shape[:2] == (2, 3)


@pytest.mark.parametrize(
    ("first", "second", "lines", "outputs"),
    [
        ("(x, narrow)", "(m, wide)", "", "float[n,16,7,7] y"),  # 3 → 1 → 16: 3 + 16 weights, merged 48
        ("(x, w1)", "<pads=[1,1,1,1]> (m, w2)", "", "float[n,2,9,9] y"),
        ("(x, w1)", "<strides=[2,2]> (m, w2)", "", "float[n,2,4,4] y"),
        ("(x, w1)", "<group=2> (m, half)", "", "float[n,2,7,7] y"),
        ("<group=3> (x, apart)", "(m, w2)", "", "float[n,2,7,7] y"),
        ("(x, w1)", "(m, w2)", "z = Neg(m)", "float[n,2,7,7] y, float[n,16,7,7] z"),
    ],
)
def test_others_stay(first: str, second: str, lines: str, outputs: str):
    weights = {
        "narrow": normal(1, 3, 1, 1), "wide": normal(16, 1, 1, 1), "w1": normal(16, 3, 1, 1),
        "w2": normal(2, 6 if "apart" in first else 16, 1, 1), "half": normal(2, 8, 1, 1), "apart": normal(6, 1, 1, 1),
    }  # fmt: skip
    assert operators(after(first, second, lines, outputs, **weights)).count("Conv") == 2
