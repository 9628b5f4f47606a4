"""Scales and shifts behind a linear operation fold into it, wherever that is exact, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import graph, normal, operators, weights_of
from rewriting import rewrite

from quantbench.graphs.passes import clean, fold_affine

PASSES = [clean, fold_affine]
X = {"x": normal(2, 3, 6, 6, seed=9)}
NORM = {
    "gamma": normal(4, seed=1),
    "beta": normal(4, seed=2),
    "mean": normal(4, seed=3),
    "var": np.abs(normal(4, seed=4)),
}


def test_batch_normalization_folds_with_the_formula_of_onnx():
    before = graph(
        """
        g (float[n,3,h,w] x) => (float[n,4,i,j] y)
        { c = Conv <pads=[1,1,1,1]> (x, w, b)  y = BatchNormalization <epsilon=0.01> (c, gamma, beta, mean, var) }
        """,
        w=normal(4, 3, 3, 3), b=normal(4, seed=5), **NORM,
    )  # fmt: skip
    after = rewrite(before, PASSES, X)
    assert operators(after) == ["Conv"]
    scale = NORM["gamma"].astype(float) / np.sqrt(NORM["var"].astype(float) + 0.01)
    np.testing.assert_allclose(weights_of(after)["w"], normal(4, 3, 3, 3) * scale[:, None, None, None], rtol=1e-6)
    shifted = scale * normal(4, seed=5) + NORM["beta"] - scale * NORM["mean"]
    np.testing.assert_allclose(weights_of(after)["b"], shifted, rtol=1e-5)


@given(
    chain=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "Add({}, {})",
                    "Add({1}, {0})",
                    "Mul({}, {})",
                    "Mul({1}, {0})",
                    "Sub({}, {})",
                    "Sub({1}, {0})",
                    "Div({}, {})",
                ]
            ),
            st.sampled_from([(), (1,), (4, 1, 1), (1, 4, 1, 1)]),
        ),
        min_size=1,
        max_size=4,
    ),
    bias=st.booleans(),
    linear=st.sampled_from(["Conv(x, w{})", "Conv <group=2> (x, wg{})", "ConvTranspose <strides=[2,2]> (x, wt{})"]),
)
@settings(max_examples=25, deadline=None)
def test_any_chain_of_arithmetic_folds(chain: list[tuple[str, tuple[int, ...]]], bias: bool, linear: str):
    weights = {"w": normal(4, 4, 3, 3), "wg": normal(4, 2, 3, 3), "wt": normal(4, 4, 2, 2), "b": normal(4, seed=5)}
    lines, last = ["t = " + linear.format(", b" if bias else "")], "t"
    for index, (operation, shape) in enumerate(chain):
        weights[f"k{index}"] = np.asarray(1 + np.abs(normal(*shape, seed=index)), np.float32)
        lines.append(f"t{index} = {operation.format(last, f'k{index}')}")
        last = f"t{index}"
    before = graph(f"g (float[n,4,h,w] x) => (float[n,4,i,j] y) {{ {' '.join(lines)} y = Tanh({last}) }}", **weights)
    after = rewrite(before, PASSES, {"x": 0.1 * normal(2, 4, 6, 6, seed=9)})
    assert operators(after) == [linear.split("(")[0].split()[0], "Tanh"]


def test_a_constant_divided_by_the_result_stays():
    before = graph(
        "g (float[n,3] x) => (float[n,4] y) { c = Gemm(x, w, b)  y = Div(k, c) }", w=normal(3, 4), b=[9.0] * 4, k=[2.0]
    )
    assert operators(rewrite(before, PASSES, {"x": normal(2, 3)})) == ["Gemm", "Div"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed: int):
    w = normal(4, 3) if transposed else normal(3, 4)
    text = (
        f"g (float[n,3] x) => (float[n,4] y) {{ c = Gemm <transB={transposed}> (x, w)  m = Mul(c, k)  y = Add(s, m) }}"
    )
    after = rewrite(graph(text, w=w, k=normal(4, seed=6), s=normal(1, 4, seed=7)), PASSES, {"x": normal(5, 3)})
    assert operators(after) == ["Gemm"] and len(after.graph.node[0].input) == 3


@pytest.mark.parametrize("attributes", ["alpha = 0.5", "beta = 0.5"])
def test_gemm_with_factors_of_its_own_stays(attributes: str):
    text = f"g (float[n,3] x) => (float[n,4] y) {{ c = Gemm <{attributes}> (x, w, b)  y = Mul(c, k) }}"
    after = rewrite(graph(text, w=normal(3, 4), b=normal(4), k=normal(4, seed=6)), PASSES, {"x": normal(5, 3)})
    assert operators(after) == ["Gemm", "Mul"]


def test_gemm_whose_bias_runs_along_the_rows_stays():
    """Four rows and four columns: only the shape of the bias says along which it runs."""
    before = graph(
        "g (float[4,3] x) => (float[4,4] y) { c = Gemm(x, w, b)  y = Mul(c, k) }",
        w=normal(3, 4),
        b=normal(4, 1),
        k=normal(4),
    )
    assert operators(rewrite(before, PASSES, {"x": normal(4, 3)})) == ["Gemm", "Mul"]


@pytest.mark.parametrize("shape", [(6,), (2, 1, 1, 1), (1, 1, 6, 6), (1, 1, 4, 1, 1)])
def test_constants_that_vary_elsewhere_stay(shape: tuple[int, ...]):
    axes = ",".join("abcde"[: max(4, len(shape))])
    before = graph(
        f"g (float[2,3,6,6] x) => (float[{axes}] y) {{ c1 = Conv(x, w)  t = Mul(c1, k)  y = Neg(t) }}",
        w=normal(4, 3, 1, 1), k=normal(*shape),
    )  # fmt: skip
    assert operators(rewrite(before, PASSES, X)) == ["Conv", "Mul", "Neg"]


def test_a_result_that_something_else_reads_stays():
    before = graph(
        "g (float[n,3,h,w] x) => (float[n,4,h,w] y) { c = Conv(x, w)  t = Mul(c, k)  y = Add(t, c) }",
        w=normal(4, 3, 1, 1),
        k=[2.0],
    )
    assert operators(rewrite(before, PASSES, X)) == ["Conv", "Mul", "Add"]
    before = graph(
        "g (float[n,3,h,w] x) => (float[n,4,h,w] c, float[n,4,h,w] y) { c = Conv(x, w)  y = Mul(c, k) }",
        w=normal(4, 3, 1, 1),
        k=[2.0],
    )
    assert operators(rewrite(before, PASSES, X)) == ["Conv", "Mul"]


def test_weights_that_two_convolutions_share_are_copied():
    before = graph(
        "g (float[n,3,h,w] x) => (float[n,4,h,w] y) { c = Conv(x, w)  t = Mul(c, k)  d = Conv(x, w)  y = Sub(t, d) }",
        w=normal(4, 3, 1, 1), k=normal(1, 4, 1, 1),
    )  # fmt: skip
    assert operators(rewrite(before, PASSES, X)) == ["Conv", "Conv", "Sub"]


def test_what_only_a_branch_reads_stays():
    before = graph(
        """
        g (float[n,3,h,w] x, bool k) => (float[n,4,h,w] y)
        {
          c = Conv(x, w)
          y = If(k) <then_branch = t () => (float[n,4,h,w] o) { o = Mul(c, two) },
                     else_branch = e () => (float[n,4,h,w] p) { r = Abs(x)  p = Conv(r, w) }>
        }
        """,
        w=normal(4, 3, 1, 1), two=[2.0],
    )  # fmt: skip
    for choice in (True, False):
        assert operators(rewrite(before, PASSES, X | {"k": np.array(choice)})) == ["Conv", "If"]


def test_a_scale_that_overflows_float32_stays():
    before = graph(
        "g (float[n,3,h,w] x) => (float[n,4,h,w] y) { c = Conv(x, w)  y = Mul(c, k) }",
        w=normal(4, 3, 1, 1) * 1e30,
        k=[1e30],
    )
    after = ir.to_proto(fold_affine(ir.from_proto(before)))
    assert operators(after) == ["Conv", "Mul"]
