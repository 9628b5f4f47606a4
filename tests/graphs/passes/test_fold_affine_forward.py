"""Scales and shifts ahead of a convolution fold into it, but not past padding or broadcasting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import graph, normal, operators, weights_of
from rewriting import rewrite

from quantbench.graphs.passes import clean, fold_affine_forward

PASSES = [clean, fold_affine_forward]
X = {"x": normal(2, 4, 6, 6, seed=9)}
SHAPES = [(), (1,), (4, 1, 1), (1, 4, 1, 1)]


@given(
    chain=st.lists(
        st.tuples(st.sampled_from(["Add", "Mul"]), st.booleans(), st.sampled_from(SHAPES)), min_size=1, max_size=4
    ),
    group=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_any_chain_folds_into_an_unpadded_convolution(chain: list, group: int, bias: bool):
    weights = {"w": normal(8, 4 // group, 3, 3), "b": normal(8, seed=5)}
    lines, last = ["r = Tanh(x)"], "r"
    for index, (operation, first, shape) in enumerate(chain):
        weights[f"k{index}"] = normal(*shape, seed=index)
        operands = (f"k{index}", last) if first else (last, f"k{index}")
        lines.append(f"t{index} = {operation}({', '.join(operands)})")
        last = f"t{index}"
    lines.append(f"y = Conv <group={group}> ({last}, w{', b' if bias else ''})")
    before = graph(f"g (float[n,4,h,w] x) => (float[n,8,i,j] y) {{ {' '.join(lines)} }}", **weights)
    assert operators(rewrite(before, PASSES, X)) == ["Tanh", "Conv"]


def padded(padding: str, lines: str, **weights: np.ndarray) -> list[str]:
    text = f"g (float[n,4,h,w] x) => (float[n,2,i,j] y) {{ {lines}  y = Conv <{padding}> (t, w) }}"
    return operators(rewrite(graph(text, w=normal(2, 4, 3, 3), **weights), PASSES, X))


PADDED = pytest.mark.parametrize("padding", ["pads=[0,1,0,0]", 'auto_pad="SAME_UPPER"', 'auto_pad="SAME_LOWER"'])


@PADDED
def test_a_scale_folds_past_padding_a_shift_does_not(padding: str):
    k = normal(1, 4, 1, 1, seed=3)
    assert padded(padding, "t = Mul(x, k)", k=k) == ["Conv"]
    assert padded(padding, "t = Add(x, k)", k=k) == ["Add", "Conv"]


@PADDED
def test_of_a_scale_and_a_shift_the_scale_folds(padding: str):
    assert padded(padding, "s = Mul(x, k)  t = Add(s, m)", k=normal(4, 1, 1), m=normal(4, 1, 1, seed=3)) == [
        "Add",
        "Conv",
    ]
    assert padded(padding, "s = Mul(k, x)  t = Add(m, s)", k=np.array(2.0), m=np.array(3.0)) == ["Add", "Conv"]


def test_a_shift_that_a_zero_scale_leaves_behind_stays():
    k = normal(4, 1, 1)
    k[2] = 0
    assert padded("pads=[1,1,1,1]", "s = Mul(x, k)  t = Add(s, m)", k=k, m=normal(4, 1, 1, seed=3)) == [
        "Mul",
        "Add",
        "Conv",
    ]


def test_the_formula():
    before = graph(
        "g (float[n,4,h,w] x) => (float[n,2,h,w] y) { s = Mul(x, k)  t = Add(s, m)  y = Conv(t, w) }",
        w=np.ones((2, 4, 1, 1)), k=np.reshape([1.0, 2, 3, 4], (4, 1, 1)), m=np.reshape([10.0, 0, 0, 1], (4, 1, 1)),
    )  # fmt: skip
    bias, weight = sorted(weights_of(rewrite(before, [*PASSES, clean], X)).values(), key=np.size)
    assert weight.reshape(2, 4).tolist() == [[1, 2, 3, 4]] * 2 and bias.tolist() == [11, 11]


def test_broadcasting_that_makes_the_channels_stays():
    """One channel times four numbers is four channels: the convolution could not read the one."""
    text = "g (float[n,1,h,w] x) => (float[n,2,i,j] y) { t = Mul(x, k)  y = Conv(t, w) }"
    before = graph(text, w=normal(2, 4, 3, 3), k=normal(1, 4, 1, 1))
    assert operators(rewrite(before, PASSES, {"x": normal(2, 1, 6, 6)})) == ["Mul", "Conv"]


def test_what_something_else_reads_or_a_computed_bias_needs_stays():
    w, k = normal(4, 4, 1, 1), normal(4, 1, 1)
    before = graph(
        "g (float[n,4,h,w] x) => (float[n,4,h,w] y) { t = Mul(x, k)  c = Conv(t, w)  y = Add(c, t) }", w=w, k=k
    )
    assert operators(rewrite(before, PASSES, X)) == ["Mul", "Conv", "Add"]
    text = "g (float[n,4,h,w] x, float[4] b) => (float[n,4,h,w] y) { t = Add(x, k)  y = Conv(t, w, b) }"
    assert operators(rewrite(graph(text, w=w, k=k), PASSES, X | {"b": normal(4)})) == ["Add", "Conv"]
