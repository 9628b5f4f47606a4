"""Narrow accumulators in graphs: against a loop over numpy that follows the definition, and in stages bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from graphs.emulated_graphs import written_accumulators, written_rounded
from onnx_models import graph

from quantbench.errors import InputError
from quantbench.graphs.accumulators import Accumulator, accumulating, strip_accumulators
from quantbench.graphs.block_operands import held_format
from quantbench.graphs.emulation import strip_emulation
from quantbench.graphs.load import prepare
from quantbench.graphs.rounding_points import float_weights, rounding_points
from quantbench.graphs.staging import StagedSession
from quantbench.numerics import get_format

Array = np.ndarray
DTYPES = {"fp16": np.float16, "bfloat16": ml_dtypes.bfloat16, "fp8_e5m2": ml_dtypes.float8_e5m2}


def whole(*shape: int, seed: int, largest: int = 9) -> Array:
    """Whole numbers: float32 adds up their products exactly, in whatever order, until the accumulator rounds."""
    return np.random.default_rng(seed).integers(-largest, largest + 1, shape).astype(np.float32)


def accumulate(terms: Array, name: str, chunk: int) -> Array:
    """The definition, over the last axis of the products."""
    accumulator = np.zeros(terms.shape[:-1], np.float32)
    for start in range(0, terms.shape[-1], chunk):
        partial = terms[..., start : start + chunk].sum(-1, dtype=np.float32)
        with np.errstate(over="ignore"):
            accumulator = (accumulator + partial).astype(DTYPES[name]).astype(np.float32)
    return accumulator


def convolve(x: Array, w: Array, name: str, chunk: int, *, group: int, pads: int, stride: int, dilation: int) -> Array:
    """Every output value by its own products: input channels of the group, and within each the kernel's positions."""
    rank = w.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *[(pads, pads)] * rank])
    reach = [(size - 1) * dilation + 1 for size in w.shape[2:]]
    sizes = [(size - need) // stride + 1 for size, need in zip(x.shape[2:], reach, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *sizes), np.float32)
    inputs, per_group = w.shape[1], w.shape[0] // group
    for out, place in itertools.product(range(w.shape[0]), itertools.product(*map(range, sizes))):
        first = out // per_group * inputs
        window = tuple(slice(at * stride, at * stride + need, dilation) for at, need in zip(place, reach, strict=True))
        patch = x[(slice(None), slice(first, first + inputs), *window)]
        y[(slice(None), out, *place)] = accumulate((patch * w[out]).reshape(len(x), -1), name, chunk)
    return y


def products(left: Array, right: Array) -> Array:
    """(…, rows, columns, K): what a product of matrices adds up."""
    return left[..., :, None, :] * np.swapaxes(right, -1, -2)[..., None, :, :]


def written(source: onnx.ModelProto, name: str, chunk: int) -> ir.Model:
    model = prepare(source)
    accumulator = Accumulator(get_format(name), chunk)
    return written_accumulators(model, {node.name or "": accumulator for node in accumulating(model)})


def both_ways(model: ir.Model, feeds: dict[str, Array]) -> Iterator[list[Array]]:
    """The outputs by plain ONNX Runtime, unoptimised and optimised, and in stages."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        yield ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)
    stripped = ir.from_proto(proto)
    taps = strip_emulation(stripped)
    yield StagedSession(stripped, taps).run(feeds)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("chunk", [1, 4, 7, 16, 1000])
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "group"),
    [(16, 5, (1, 1), 1), (5, 4, (3, 3), 1), (12, 6, (3, 1), 2), (8, 8, (3, 3), 8), (6, 4, (3,), 1)],
)
def test_convolutions_are_the_loop(
    name: str, chunk: int, channels: int, outputs: int, kernel: tuple[int, ...], group: int
) -> None:
    pads, stride = (1, 2) if min(kernel) > 1 else (0, 1)
    ints = {
        "pads": [pads] * 2 * len(kernel),
        "strides": [stride] * len(kernel),
        "dilations": [1] * len(kernel),
    }
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], group=group, **ints)
    spatial = ["h", "l"][: len(kernel)]
    floats = onnx.TensorProto.FLOAT
    weight = whole(outputs, channels // group, *kernel, seed=1)
    bias = whole(outputs, seed=2)
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "g",
            [onnx.helper.make_tensor_value_info("x", floats, ["n", channels, *spatial])],
            [onnx.helper.make_tensor_value_info("y", floats, ["n", outputs, *(f"o{size}" for size in spatial)])],
            [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 21)],
        ir_version=10,
    )
    x = whole(2, channels, *[5, 6][: len(kernel)], seed=3)
    want = convolve(x, weight, name, chunk, group=group, pads=pads, stride=stride, dilation=1)
    want += bias.reshape(-1, *[1] * len(kernel))
    for (got,) in both_ways(written(proto, name, chunk), {"x": x}):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("settings", "pads", "dilation"), [('auto_pad="SAME_UPPER"', 1, 1), ("dilations=[2,2], pads=[2,2,2,2]", 2, 2)]
)
def test_padding_by_rule_and_dilation(settings: str, pads: int, dilation: int) -> None:
    x, w = whole(1, 4, 9, 9, seed=5), whole(3, 4, 3, 3, seed=4)
    source = graph(f"g (float[n,4,9,9] x) => (float[n,3,9,9] y) {{ y = Conv <{settings}> (x, w) }}", w=w)
    want = convolve(x, w, "bfloat16", 5, group=1, pads=pads, stride=1, dilation=dilation)
    for (got,) in both_ways(written(source, "bfloat16", 5), {"x": x}):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("chunk", [1, 5, 8, 64])
@pytest.mark.parametrize(
    ("left", "right"), [((3, 16), (16, 4)), ((2, 3, 16), (16, 4)), ((2, 1, 3, 16), (5, 16, 4)), ((3, 16), (2, 16, 4))]
)
def test_products_of_matrices_are_the_loop(chunk: int, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    sizes = [",".join([f"n{side}", *map(str, shape[1:])]) for side, shape in enumerate((left, right))]
    made = ",".join("pqrs"[: max(len(left), len(right))])
    source = graph(f"g (float[{sizes[0]}] a, float[{sizes[1]}] b) => (float[{made}] y) {{ y = MatMul(a, b) }}")
    a, b = whole(*left, seed=6), whole(*right, seed=7)
    want = accumulate(products(a, b), "fp8_e5m2", chunk)
    for (got,) in both_ways(written(source, "fp8_e5m2", chunk), {"a": a, "b": b}):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm_is_the_loop(trans_a: int, trans_b: int) -> None:
    a, b, c = whole(3, 20, seed=8), whole(20, 4, seed=9), whole(4, seed=10)
    rows = "20,n" if trans_a else "n,20"
    source = graph(
        f"g (float[{rows}] a) => (float[n,4] y)"
        f" {{ y = Gemm <transA={trans_a}, transB={trans_b}, alpha=0.5, beta=4.0> (a, b, c) }}",
        b=b.T.copy() if trans_b else b, c=c,
    )  # fmt: skip
    want = accumulate(products(a, b), "fp16", 6) * np.float32(0.5) + np.float32(4) * c
    for (got,) in both_ways(written(source, "fp16", 6), {"a": a.T.copy() if trans_a else a}):
        np.testing.assert_array_equal(got, want)


def test_a_length_that_only_a_run_knows() -> None:
    source = graph("g (float[n,k] a, float[k,4] b) => (float[n,4] y) { y = MatMul(a, b) }")
    model = written(source, "bfloat16", 8)
    for length in (1, 8, 19):
        a, b = whole(3, length, seed=11), whole(length, 4, seed=12)
        for (got,) in both_ways(model, {"a": a, "b": b}):
            np.testing.assert_array_equal(got, accumulate(products(a, b), "bfloat16", 8))


def test_small_terms_are_lost() -> None:
    """4096 ones: FP16 stands still at 2048, and in chunks of 4 it does not."""
    source = graph("g (float[1,4096] a) => (float[1,1] y) { y = MatMul(a, b) }", b=np.ones((4096, 1), np.float32))
    ones = {"a": np.ones((1, 4096), np.float32)}
    assert [outputs[0].item() for outputs in both_ways(written(source, "fp16", 1), ones)] == [2048] * 3
    assert [outputs[0].item() for outputs in both_ways(written(source, "fp16", 4), ones)] == [4096] * 3


NETWORK = """
g (float[n,3,h,w] x) => (float[n,7] y) <float lo = {0.0}, float hi = {6.0}>
{
  c1 = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w1, b1)  r1 = Clip(c1, lo, hi)
  c2 = Conv <pads=[1,1,1,1], group=20> (r1, w2)  r2 = HardSwish(c2)
  c3 = Conv(r2, w3)  a = Add(c3, r1)  g = GlobalAveragePool(a)  f = Flatten(g)  h = MatMul(f, w4)  t = Tanh(h)
  y = Gemm(t, w5, b5)
}
"""


def network() -> ir.Model:
    rng = np.random.default_rng(13)
    shapes = {"w1": (20, 3, 3, 3), "b1": (20,), "w2": (20, 1, 3, 3), "w3": (20, 20, 1, 1), "w4": (20, 40)}
    shapes |= {"w5": (40, 7), "b5": (7,)}
    return prepare(graph(NETWORK, **{name: rng.normal(0, 0.4, shape) for name, shape in shapes.items()}))


@pytest.mark.parametrize("held", ["fp11", "fp16", "mxfp8_e4m3"])
@pytest.mark.parametrize("sums", ["fp11", "fp16", "e6m9"])
def test_stages_equal_the_portable_graph_with_everything_else_rounded(held: str, sums: str) -> None:
    """Real numbers, whose sums depend on the order; the first convolution adds up in float32."""
    source = network()
    others = [node.name or "" for node in accumulating(source)][1:]
    fmt = get_format(held)
    plain = dict.fromkeys([*rounding_points(source), *float_weights(source)], held_format(fmt))
    blocks = {(name, index): fmt for name in others[1:] for index in (0, 1)} if fmt.kind == "block" else {}
    rounded = written_rounded(source, plain, blocks)
    accumulators = {name: Accumulator(get_format(sums), 5 + position) for position, name in enumerate(others)}
    model = written_accumulators(rounded, accumulators)
    x = {"x": np.random.default_rng(14).normal(0, 1, (3, 3, 16, 12)).astype(np.float32)}
    proto = ir.to_proto(model).SerializeToString()
    (want,) = ort.InferenceSession(proto).run(None, x)
    taps = strip_emulation(model)
    assert not {node.domain for node in model.graph} - {""}
    (got,) = StagedSession(model, taps).run(x)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    (without,) = ort.InferenceSession(ir.to_proto(written_rounded(source, plain, blocks)).SerializeToString()).run(
        None, x
    )
    assert (want != without).any() and np.abs(want - without).max() < 0.5


def test_strip_gives_back_plain_operators_and_the_formats() -> None:
    model = network()
    names = [node.name or "" for node in accumulating(model)]
    formats = {name: get_format("fp11" if position % 2 else "fp16") for position, name in enumerate(names)}
    both = written_accumulators(model, {name: Accumulator(fmt, 8) for name, fmt in formats.items()})
    assert len(both.functions) == 3  # the sums of two formats, and FP11's rounding
    proto = onnx.ModelProto.FromString(ir.to_proto(both).SerializeToString())
    stripped = ir.from_proto(proto)
    sums = strip_accumulators(stripped)
    assert list(sums.values()) == list(formats.values())
    assert not stripped.functions and {node.domain for node in stripped.graph} == {""}
    onnx.checker.check_model(ir.to_proto(stripped), full_check=True)
    assert [value.name for value in stripped.graph.outputs] == ["y"]


def test_the_same_bytes_twice() -> None:
    first, second = (
        ir.to_proto(written(graph(NETWORK, **_weights()), "fp11", 9)).SerializeToString() for _ in range(2)
    )
    assert first == second


def test_what_cannot_be_is_named() -> None:
    model = network()
    fp16 = Accumulator(get_format("fp16"), 4)
    with pytest.raises(InputError, match="node 'nosuch' is no Conv, Gemm, MatMul"):
        written_accumulators(model, {"nosuch": fp16})
    with pytest.raises(InputError, match="nothing accumulates in int8"):
        Accumulator(get_format("int8"), 4)
    with pytest.raises(InputError, match="at least 1 product"):
        Accumulator(get_format("fp16"), 0)
    vector = graph("g (float[4] a) => (float[3] y) { y = MatMul(a, b) }", b=np.ones((4, 3)))
    with pytest.raises(InputError, match="multiplies a vector"):
        written(vector, "fp16", 4)
    unknown = graph("g (float[n,3,8,8] x, float[o,3,k,k] w) => (float[n,o,p,q] y) { y = Conv(x, w) }")
    with pytest.raises(InputError, match="shape of its weight"):
        written(unknown, "fp16", 4)


def _weights() -> dict[str, Array]:
    return {
        name: whole(*shape, seed=15)
        for name, shape in {
            "w1": (20, 3, 3, 3), "b1": (20,), "w2": (20, 1, 3, 3), "w3": (20, 20, 1, 1), "w4": (20, 40),
            "w5": (40, 7), "b5": (7,),
        }.items()
    }  # fmt: skip
