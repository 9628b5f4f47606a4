"""The rounding points of small graphs, against a list written by hand from the definition."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from quantbench.graphs.rounding_points import float_weights, rounding_points


def graph(text: str) -> ir.Model:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def test_point_is_behind_the_own_activation() -> None:
    model = graph(
        """
        g (float[1,4,8,8] x) => (float[1,4,8,8] y)
        <float[4,4,1,1] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float lo = {0.0}, float hi = {6.0}>
        {
          a = Conv(x, w)
          b = Clip(a, lo, hi)
          c = Conv(b, w)
          d = Add(c, b)
          y = Relu(d)
        }
        """
    )
    assert rounding_points(model) == ["x", "b", "c", "y"]
    assert float_weights(model) == ["w", "lo", "hi"]


def test_activation_with_another_reader_before_it_is_not_the_point() -> None:
    model = graph(
        """
        g (float[2,2] x, float[2,2] z) => (float[2,2] y, float[2,2] d)
        {
          a = MatMul(x, z)
          b = Relu(a)
          c = Add(a, b)
          d = Mul(c, z)
          e = Relu(d)
          y = Sigmoid(e)
        }
        """
    )
    # a has two readers and d is a graph output: both are rounded before Relu, which then keeps them in the format
    assert rounding_points(model) == ["x", "z", "a", "c", "d", "y"]


def test_activation_chain_ends_in_one_point() -> None:
    model = graph(
        """
        g (float[2,2] x) => (float[2,2] y)
        <float hi = {6.0}>
        { a = Mul(x, x)  b = Relu(a)  y = Clip(b, , hi) }
        """
    )
    assert rounding_points(model) == ["x", "y"]


def test_value_used_as_a_bound_is_rounded_itself() -> None:
    model = graph("g (float x) => (float y) { a = Mul(x, x)  y = Clip(x, a) }")
    assert rounding_points(model) == ["x", "a"]


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Reshape(x, shape)",
        "y = Transpose <perm=[1,0,3,2]> (x)",
        "y = MaxPool <kernel_shape=[2,2]> (x)",
        "y = Concat <axis=0> (x, x)",
        "y, z = Split <axis=1, num_outputs=2> (x)",
        'y = Resize <mode="nearest"> (x, , scales)',
        "y, i = TopK(x, k)",
        "i = ArgMax(x)  y = Identity(x)",
        "y = Pad(x, pads)",
        "y = DepthToSpace <blocksize=2> (x)",
    ],
)
def test_moving_and_picking_adds_no_point(nodes: str) -> None:
    model = graph(
        f"""
        g (float[1,4,8,8] x) => (y)
        <int64[1] shape = {{-1}}, float[4] scales = {{1.0,1.0,2.0,2.0}}, int64[1] k = {{2}},
         int64[8] pads = {{0,0,1,1,0,0,1,1}}>
        {{ {nodes} }}
        """
    )
    assert rounding_points(model) == ["x"]
    assert float_weights(model) == []  # Resize's scales are a setting


@pytest.mark.parametrize(
    "node",
    [
        'y = Resize <mode="linear"> (x, , scales)',
        "y = AveragePool <kernel_shape=[2,2]> (x)",
        "y = Softmax(x)",
        "y = HardSwish(x)",
        'y = ScatterND <reduction="add"> (x, at, x)',
        "y = Neg(x)",
    ],
)
def test_arithmetic_is_rounded(node: str) -> None:
    model = graph(
        f"""
        g (float[1,4,8,8] x) => (float[N,M,O,P] y)
        <float[4] scales = {{1.0,1.0,2.0,2.0}}, int64[1,1] at = {{0}}>
        {{ {node} }}
        """
    )
    assert rounding_points(model) == ["x", "y"]


def test_unknown_operation_with_a_float_output_is_arithmetic() -> None:
    model = graph("g (float[2] x) => (float[2] y) { y = Identity(x) }")
    node = model.graph.node(0)
    node.op_type, node.domain = "Wiggle", "com.microsoft"
    assert rounding_points(model) == ["x", "y"]


def test_sizes_and_integers_stay() -> None:
    model = graph(
        """
        g (uint8[1,3,h,w] x, int64[2] t) => (float[a,b,c,d] y)
        <float half = {0.5}, float[3,2] table = {1,2,3,4,5,6}>
        {
          f = Cast <to=1> (x)
          shape = Shape <start=2> (x)
          sizes = Cast <to=1> (shape)
          halved = Mul(sizes, half)
          floored = Floor(halved)
          whole = Cast <to=7> (floored)
          shape2 = Shape <end=2> (x)
          all = Concat <axis=0> (shape2, whole)
          y = Resize <mode="linear"> (f, , , all)
        }
        """
    )
    # 173 · 0.5 rounded to six significant bits would be another size
    assert rounding_points(model) == ["f", "y"]
    assert float_weights(model) == []


def test_weight_shared_with_a_size_computation_is_a_weight_still() -> None:
    model = graph(
        """
        g (float[1,1,h,w] x) => (float[a,b,c,d] y)
        <float[4] two = {1.0, 1.0, 2.0, 2.0}>
        { a = Resize <mode="nearest"> (x, , two)  b = Shape(x)  c = Mul(two, two)  y = Resize(a, , c) }
        """
    )
    assert float_weights(model) == []
    model = graph(
        """
        g (float[1,1,h,4] x) => (float[a,b,c,d] y)
        <float[4] two = {1.0, 1.0, 2.0, 2.0}>
        { a = Resize <mode="nearest"> (x, , two)  y = Mul(x, two) }
        """
    )
    assert float_weights(model) == ["two"]


def test_embedding_table_is_a_weight_and_its_lookup_no_point() -> None:
    model = graph("g (int64[n] i) => (float[n,2] y) <float[3,2] table = {1,2,3,4,5,6}> { y = Gather(table, i) }")
    assert float_weights(model) == ["table"]
    assert rounding_points(model) == []


def test_excluded_tensors_stay() -> None:
    model = graph("g (float[2] x) => (float[2] y) { a = Mul(x, x)  y = Exp(a) }")
    assert rounding_points(model, exclude={"a"}) == ["x", "y"]
