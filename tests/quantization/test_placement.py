"""Where integers go in small graphs, and what is known of each weight."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal

from quantbench.graphs.load import prepare
from quantbench.quantization.placement import WeightUse, place_activations, weight_uses

NUMBERS = "<float lo = {0.0}, float hi = {6.0}, int64[2] flat = {0, -1}>"


def prepared(text: str, **weights: np.ndarray) -> ir.Model:
    return prepare(graph(text.replace("NUMBERS", NUMBERS), **weights))


def conv(lines: str, skip: tuple[str, ...] = (), **more: np.ndarray) -> tuple[list[str], list[str], dict[str, str]]:
    """Place x (4 channels) → `lines` → y; the weights w (4, 4, 1, 1) and m (4, 4) are there."""
    text = f"g (float[n,4,8,8] x) => (float[n,a,b,c] y) NUMBERS {{ {lines} }}"
    placement = place_activations(prepared(text, w=normal(4, 4, 1, 1), m=normal(4, 4), **more), skip)
    return list(placement.nodes), list(placement.tensors), placement.tied


@pytest.mark.parametrize("activation", ["Relu(c)", "Clip(c, lo, hi)"])
def test_an_activation_vanishes_into_the_range_behind_it(activation: str):
    nodes, tensors, _ = conv(f"c = Conv(x, w)  r = {activation}  y = Sigmoid(r)")
    assert nodes == ["c", "r"] and tensors == ["x", "r"]


def test_an_activation_beside_another_reader_stays():
    nodes, tensors, _ = conv("c = Conv(x, w)  r = Relu(c)  y = Sub(r, c)")
    assert nodes == ["c"] and tensors == ["x", "c"]


def test_a_float_operation_between_two_convolutions():
    nodes, tensors, _ = conv("c = Conv(x, w)  s = Sigmoid(c)  y = Conv(s, w)")
    assert nodes == ["c", "y"] and tensors == ["x", "c", "s", "y"]


def test_additions_and_pools_follow_where_all_around_them_carries_codes():
    nodes, tensors, _ = conv("c = Conv(x, w)  a = Add(c, x)  p = GlobalAveragePool(a)  y = Sigmoid(p)")
    assert nodes == ["c", "a", "p"] and tensors == ["x", "c", "a", "p"]
    nodes, tensors, _ = conv("c = Conv(x, w)  e = Exp(x)  y = Add(c, e)")
    assert nodes == ["c"] and tensors == ["x", "c"]


@pytest.mark.parametrize(
    ("moving", "reader"),
    [("MaxPool <kernel_shape=[2,2]> (c)", "Conv(k, w)"), ("Transpose <perm=[0,2,3,1]> (c)", "MatMul(k, m)")],
)
def test_a_moving_operation_shares_the_parameters_of_what_it_moves(moving: str, reader: str):
    nodes, tensors, tied = conv(f"c = Conv(x, w)  k = {moving}  y = {reader}")
    assert nodes == ["c", "k", "y"] and tied == {"k": "c"} and {"x", "c", "k"} <= set(tensors)


def test_nothing_is_placed_without_constant_weights():
    assert conv("y = MatMul(x, x)") == ([], [], {}) and conv("y = Relu(x)") == ([], [], {})


def test_skipped_nodes_stay_in_float():
    lines = "c = Conv(x, w)  r = Relu(c)  d = Conv(r, w)  y = Sigmoid(d)"
    assert conv(lines)[0] == ["c", "r", "d"]
    nodes, tensors, _ = conv(lines, skip=("c",))
    assert nodes == ["d"] and tensors == ["r", "d"]
    assert conv(lines, skip=("c", "d")) == ([], [], {})


def test_integer_inputs_are_no_activations():
    model = prepared(
        "g (int64[n] i) => (float[n,3] y) { e = Gather(t, i)  y = MatMul(e, w) }", t=normal(9, 4), w=normal(4, 3)
    )
    placement = place_activations(model)
    assert placement.nodes == ("y",) and placement.tensors == ("e",)


def test_weight_uses():
    model = prepared(
        """
        g (float[n,4,8,8] x, int64[n,k] i) => (float[n,7] y, float[n,k,5] z, float[n,6,8,8] d) NUMBERS
        {
          c = Conv <group=2> (x, w1, b1)  d = ConvTranspose(c, w2)
          p = GlobalAveragePool(c)  f = Flatten(p)  y = Gemm(f, w3, b3)
          e = Gather(w4, i)  mm = MatMul(e, w5)  z = Add(b5, mm)
        }
        """,
        w1=normal(8, 2, 1, 1), b1=normal(8), w2=normal(8, 6, 1, 1), w3=normal(8, 7), b3=normal(7),
        w4=normal(9, 4), w5=normal(4, 5), b5=normal(5),
    )  # fmt: skip
    assert weight_uses(model) == {
        "w1": WeightUse("c", "Conv", 0, 1, "b1", "b1", "x"),
        "w2": WeightUse("d", "ConvTranspose", 1, 0, "d_bias", "d_bias", "c"),
        "w3": WeightUse("y", "Gemm", 1, 0, "b3", "b3", "f"),
        "w4": WeightUse("e", "Gather", 0, None, None, None, "i"),
        "w5": WeightUse("mm", "MatMul", 1, 0, None, "b5", "e"),
    }


def test_what_is_no_weight():
    """Vectors, computed matrices, and a Gemm's bias that varies along the rows."""
    model = prepared(
        "g (float[3,3] x) => (float[3,3] y, float[3] v) { v = MatMul(x, k)  q = MatMul(x, x)  y = Gemm(q, w, b) }",
        k=normal(3), w=normal(3, 3), b=normal(3, 1),
    )  # fmt: skip
    uses = weight_uses(model)
    assert list(uses) == ["w"] and uses["w"].bias is None and uses["w"].added is None


def test_names_come_in_the_order_of_the_graph():
    model = prepared(
        "g (float[n,4,8,8] x) => (float[n,4,8,8] y) { a = Conv(x, w)  b = Conv(a, w)  y = Add(b, a) }",
        w=normal(4, 4, 1, 1),
    )
    placement = place_activations(model)
    order = [node.name for node in model.graph]
    assert list(placement.nodes) == order and list(placement.tensors) == ["x", *order]
    onnx.checker.check_model(ir.to_proto(model))
