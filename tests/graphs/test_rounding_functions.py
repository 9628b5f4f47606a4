"""Written roundings, run by plain ONNX Runtime, against ml_dtypes and exact arithmetic; and the way back."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort
import pytest
from graphs.emulated_graphs import written_rounded

from quantbench.errors import InputError
from quantbench.graphs.rounding_functions import CAST_TYPES, DOMAIN, strip_rounding
from quantbench.graphs.rounding_points import float_weights, rounding_points
from quantbench.numerics import Format, get_format, round_to

TEXT = """
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[n,3] x) => (float[n,2] y, float[n,2] z)
    <float[3,2] w = {0.1, -1.7, 3.3, 0.0, 2.05, -0.6}, float[2] b = {0.3, -0.01}, float lo = {0.0}, float hi = {6.1}>
    { a = MatMul(x, w)  s = Add(a, b)  z = Clip(s, lo, hi)  e = Exp(z)  y = Mul(e, a) }
"""


def model() -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(TEXT)))


def identity() -> ir.Model:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[n] x) => (float[n] y) { y = Identity(x) }'
    return ir.from_proto(onnx.parser.parse_model(text))


def all_formats_of(source: ir.Model, fmt: Format) -> dict[str, Format]:
    return dict.fromkeys([*rounding_points(source), *float_weights(source)], fmt)


def run(written: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Default session options: what a user's own script does."""
    proto = ir.to_proto(written)
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


def patterns() -> np.ndarray:
    """Both signs of random patterns, subnormals, and each binade around its midpoints at every width."""
    binades = np.arange(256, dtype=np.int64) << 23
    low = np.array([0, *(1 << np.arange(23)), *((1 << 23) - (1 << np.arange(23)))], dtype=np.int64)
    edges = (binades[:, None, None] + low[:, None] + np.array([-1, 0, 1])).reshape(-1) & 0x7FFFFFFF
    fine = np.arange(1 << 14, dtype=np.int64)[:, None] << 17
    fine = (fine + np.array([0, 1, 0xFFFF, 0x10000, 0x10001])).reshape(-1)
    random = np.random.default_rng(7).integers(0, 1 << 31, 300_000)
    bits = np.concatenate([edges, fine, np.arange(4096), random]).astype(np.uint32)
    return np.concatenate([bits, bits | np.uint32(1 << 31)]).view(np.float32)


def assert_same_bits(got: np.ndarray, want: np.ndarray, source: np.ndarray) -> None:
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), nan)
    wrong = np.flatnonzero((got.view(np.uint32) != want.view(np.uint32)) & ~nan)
    assert not wrong.size, [(source[i], got[i], want[i]) for i in wrong[:5]]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fp16", np.float16),
        ("bfloat16", ml_dtypes.bfloat16),
        ("fp8_e4m3fn", ml_dtypes.float8_e4m3fn),
        ("fp8_e5m2", ml_dtypes.float8_e5m2),
        ("fp8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz),
        ("e4m3", ml_dtypes.float8_e4m3),
        ("e3m4", ml_dtypes.float8_e3m4),
    ],
)
def test_rounds_as_ml_dtypes(name: str, dtype: type) -> None:
    values = patterns()
    (got,) = run(written_rounded(identity(), {"x": get_format(name)}), {"x": values})
    with np.errstate(over="ignore", invalid="ignore"):
        want = values.astype(dtype).astype(np.float32)
    assert_same_bits(got, want, values)


@pytest.mark.parametrize(("name", "exponent_bits", "mantissa_bits"), [("fp11", 5, 5), ("tf32", 8, 10), ("e6m9", 6, 9)])
def test_rounds_as_exact_arithmetic(name: str, exponent_bits: int, mantissa_bits: int) -> None:
    values = patterns()
    values = np.concatenate([values[:: max(1, values.size // 20_000)], np.float32([1023.99615, math.inf, 65504, 2e-8])])
    (got,) = run(written_rounded(identity(), {"x": get_format(name)}), {"x": values})
    want = np.array([nearest_even(float(v), exponent_bits, mantissa_bits) for v in values], np.float32)
    assert_same_bits(got, want, values)


def nearest_even(value: float, exponent_bits: int, mantissa_bits: int) -> float:
    """IEEE 754 rounding of one value, in rational numbers. Python's round() of a Fraction is half to even."""
    if not math.isfinite(value):
        return value
    bias = 2 ** (exponent_bits - 1) - 1
    exponent = max(math.frexp(value)[1] - 1, 1 - bias)
    step = Fraction(2) ** (exponent - mantissa_bits)
    rounded = round(Fraction(value) / step) * step
    overflow = abs(rounded) >= Fraction(2) ** (bias + 1)
    return math.copysign(math.inf if overflow else float(abs(rounded)), value)


@pytest.mark.parametrize("name", ["fp11", "fp6_e2m3", "fp4_e2m1", "e2m1", "e8m1", "e8m22", "e7m3b125", "e4m3b-100"])
def test_rounds_as_the_kernel(name: str) -> None:
    values = patterns()
    (got,) = run(written_rounded(identity(), {"x": get_format(name)}), {"x": values})
    assert_same_bits(got, round_to(values, get_format(name)), values)


def test_function_does_the_same_in_the_onnx_reference_evaluator() -> None:
    values = patterns()[::50]
    written = written_rounded(identity(), {"x": get_format("fp11")})
    (got,) = onnx.reference.ReferenceEvaluator(ir.to_proto(written)).run(None, {"x": values})
    assert_same_bits(got, round_to(values, "fp11"), values)


@pytest.mark.parametrize("name", ["fp11", "fp16", "bfloat16", "fp8_e5m2"])
def test_written_graph_computes_the_definition(name: str) -> None:
    source = model()
    x = np.random.default_rng(1).normal(0, 2, (5, 3)).astype(np.float32)
    weights = {key: value.const_value.numpy() for key, value in source.graph.initializers.items()}
    y, z = run(written_rounded(source, all_formats_of(source, get_format(name))), {"x": x})

    def r(values: np.ndarray) -> np.ndarray:
        return round_to(np.asarray(values, np.float32), name)

    a = r(r(x) @ r(weights["w"]))
    want_z = r(np.clip(a + r(weights["b"]), r(weights["lo"]), r(weights["hi"])))
    np.testing.assert_array_equal(z, want_z)
    np.testing.assert_array_equal(y, r(r(np.exp(want_z)) * a))


def test_weights_are_stored_narrow_and_the_names_stay() -> None:
    source = model()
    written = written_rounded(source, all_formats_of(source, get_format("fp11")))
    stored = {tensor.name: tensor.data_type for tensor in ir.to_proto(written).graph.initializer}
    assert stored["w/fp11"] == onnx.TensorProto.FLOAT16
    assert [value.name for value in written.graph.outputs] == ["y", "z"]
    assert [value.name for value in written.graph.inputs] == ["x"]
    assert [function.name for function in written.functions.values()] == ["fp11"]
    assert source.graph.initializers["w"].const_value.numpy().dtype == np.float32  # the argument is left alone


def test_tensors_that_are_not_named_stay_exact() -> None:
    source = model()
    x = np.random.default_rng(2).normal(0, 2, (4, 3)).astype(np.float32)
    plain = run(source, {"x": x})
    np.testing.assert_array_equal(run(written_rounded(source, {}), {"x": x})[1], plain[1])
    only = run(written_rounded(source, {"z": get_format("fp11")}), {"x": x})
    np.testing.assert_array_equal(only[1], round_to(plain[1], "fp11"))


def test_a_bound_that_the_format_cannot_hold_bounds_nothing() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)
        <float lo = {0.0}, float hi = {1e30}> { y = Clip(x, lo, hi) }
    """
    source = ir.from_proto(onnx.parser.parse_model(text))
    (y,) = run(written_rounded(source, all_formats_of(source, get_format("fp8_e4m3fn"))), {"x": np.float32([-3, 17.3])})
    np.testing.assert_array_equal(y, np.float32([0, 18]))  # 17.3 lies between 16 and 18; NaN had hi become NaN


def test_setting_that_shares_an_initializer_with_an_operand_stays_exact() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 21]> g (float[1,1,8,4] x) => (float[1,1,a,b] y)
        <float[4] s = {1.0, 1.0, 1.0, 1.01}>
        { m = Mul(x, s)  y = Resize <mode="nearest"> (m, , s) }
    """
    source = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    written = written_rounded(source, all_formats_of(source, get_format("e5m2")))
    resize = next(node for node in written.graph if node.op_type == "Resize")
    assert resize.inputs[2].const_value.numpy()[3] == np.float32(1.01)
    multiply = next(node for node in written.graph if node.op_type == "Mul")
    assert multiply.inputs[1].producer().op_type == "Cast"
    run(written, {"x": np.ones((1, 1, 8, 4), np.float32)})


@pytest.mark.parametrize("name", ["fp11", "fp16", "tf32", "fp8_e4m3fn"])
def test_strip_gives_back_the_graph_and_the_formats(name: str) -> None:
    source = model()
    fmt = get_format(name)
    proto = onnx.ModelProto.FromString(
        ir.to_proto(written_rounded(source, all_formats_of(source, fmt))).SerializeToString()
    )
    stripped = ir.from_proto(proto)
    formats = strip_rounding(stripped)
    assert formats == dict.fromkeys(rounding_points(source), fmt)
    assert [node.op_type for node in stripped.graph] == [node.op_type for node in source.graph]
    assert DOMAIN not in stripped.opset_imports and not stripped.functions
    for key, value in source.graph.initializers.items():
        got = stripped.graph.initializers[key].const_value.numpy()
        np.testing.assert_array_equal(got, round_to(value.const_value.numpy(), fmt))
        assert got.dtype == np.float32
    onnx.checker.check_model(ir.to_proto(stripped), full_check=True)


def test_strip_leaves_the_casts_of_the_model_itself() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)
        { h = Cast <to=10> (x)  y = Cast <to=1> (h) }
    """
    source = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    stripped = written_rounded(source, {"y": get_format("fp16")})
    formats = strip_rounding(stripped)
    assert [node.op_type for node in stripped.graph] == ["Cast", "Cast"]
    assert list(formats) == ["y"]


def test_the_same_bytes_twice() -> None:
    formats = all_formats_of(model(), get_format("fp11"))
    first, second = (ir.to_proto(written_rounded(model(), formats)).SerializeToString() for _ in range(2))
    assert first == second


def test_fp8_is_not_cast_because_onnxruntime_casts_it_otherwise() -> None:
    assert set(CAST_TYPES) == {"fp16", "bfloat16"}
    (got,) = run(written_rounded(identity(), {"x": get_format("fp8_e5m2")}), {"x": np.float32([63603.5, 57344])})
    np.testing.assert_array_equal(got, np.float32([np.inf, 57344]))


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ({"x": get_format("int8")}, "x cannot be rounded to int8"),
        ({"x": get_format("e8m0")}, "x cannot be rounded to e8m0"),
        ({"q": get_format("fp11")}, "q is not in the graph"),
    ],
)
def test_what_cannot_be_rounded_is_named(formats: dict[str, Format], message: str) -> None:
    with pytest.raises(InputError, match=message):
        written_rounded(model(), formats)
