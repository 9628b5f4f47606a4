"""After the pass each linear operation has a bias of its own, and computes what it did."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import graph, normal, operators, weights_of
from rewriting import rewrite

from quantbench.graphs.passes import clean, give_bias

PASSES = [clean, give_bias]


@pytest.mark.parametrize(
    ("operation", "weight", "channels"),
    [
        ("Conv(x, w)", (5, 4, 3, 3), 5),
        ("Conv <group=2> (x, w)", (6, 2, 3, 3), 6),
        ("ConvTranspose(x, w)", (4, 3, 2, 2), 3),
        ("ConvTranspose <group=2> (x, w)", (4, 3, 2, 2), 6),
    ],
)
def test_zeros_for_each_output_channel(operation: str, weight: tuple[int, ...], channels: int):
    before = graph(f"g (float[n,4,h,w] x) => (float[n,c,i,j] y) {{ y = {operation} }}", w=normal(*weight))
    after = rewrite(before, PASSES, {"x": normal(2, 4, 6, 6)})
    bias = weights_of(after)[after.graph.node[0].input[2]]
    assert bias.shape == (channels,) and not bias.any() and bias.dtype == np.float32


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed: int):
    before = graph(
        f"g (float[n,3] x) => (float[n,7] y) {{ y = Gemm <transB={transposed}> (x, w) }}",
        w=normal(7, 3) if transposed else normal(3, 7),
    )
    after = rewrite(before, PASSES, {"x": normal(2, 3)})
    assert weights_of(after)[after.graph.node[0].input[2]].shape == (7,)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 3), (3,)])
def test_a_gemm_bias_becomes_a_vector(shape: tuple[int, ...]):
    before = graph("g (float[3,3] x) => (float[3,3] y) { y = Gemm(x, w, b) }", w=normal(3, 3), b=normal(*shape))
    after = rewrite(before, PASSES, {"x": normal(3, 3)})
    bias = weights_of(after)[after.graph.node[0].input[2]]
    np.testing.assert_array_equal(bias, np.broadcast_to(normal(*shape).reshape(-1), (3,)))


@pytest.mark.parametrize("shape", [(3, 1), (3, 3)])
def test_a_gemm_bias_that_varies_along_the_rows_stays(shape: tuple[int, ...]):
    before = graph("g (float[3,3] x) => (float[3,3] y) { y = Gemm(x, w, b) }", w=normal(3, 3), b=normal(*shape))
    assert weights_of(rewrite(before, PASSES, {"x": normal(3, 3)}))["b"].shape == shape


def test_a_shared_bias_is_copied():
    """Each of the two will be rounded and corrected in its own way."""
    before = graph(
        "g (float[n,4,h,w] x) => (float[n,4,h,w] y) { c = Conv(x, w, b)  y = Conv(c, w, b) }",
        w=normal(4, 4, 1, 1),
        b=normal(4),
    )
    after = rewrite(before, PASSES, {"x": normal(2, 4, 3, 3)})
    first, second = (node.input[2] for node in after.graph.node)
    assert first != second and (weights_of(after)[first] == weights_of(after)[second]).all()


def test_computed_weights_and_biases_stay():
    before = graph(
        "g (float[n,4,h,w] x, float[4] b) => (float[n,4,h,w] y) { a = Abs(w)  c = Conv(x, a)  y = Conv(c, w, b) }",
        w=normal(4, 4, 1, 1),
    )
    after = rewrite(before, PASSES, {"x": normal(2, 4, 3, 3), "b": normal(4)})
    assert [len(node.input) for node in after.graph.node] == [1, 2, 3] and operators(after) == ["Abs", "Conv", "Conv"]
