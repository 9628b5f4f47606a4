"""A scale and a shift before QuantizeLinear go into its parameters, and the codes stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import graph, operators, run

from quantbench.graphs.code_shifts import shift_codes, shifted_affine
from quantbench.graphs.qdq import Affine, write_activations
from quantbench.quantization.affine import activation_affine

X = np.linspace(-3, 3, 2001, dtype=np.float32)[None]


def written(lines: str, affine: Affine, **numbers: float) -> ir.Model:
    arrays = {name: np.asarray(number, np.float32) for name, number in numbers.items()}
    model = ir.from_proto(graph(f"g (float[n,m] x) => (float[n,m] y) {{ {lines} }}", **arrays))
    common.ShapeInferencePass()(model)
    for node in model.graph:
        node.name = node.outputs[0].name
    write_activations(model, {"y": affine}, ["y"])
    return model


@given(
    shift=st.floats(-2, 2, width=32),
    factor=st.floats(0.125, 4, width=32),
    name=st.sampled_from(["uint8", "int8"]),
)
@settings(max_examples=60, deadline=None)
def test_the_codes_stay(shift: float, factor: float, name: str):
    affine = shifted_affine(activation_affine(-3 * factor + shift, 3 * factor + shift, name), shift)
    model = written("a = Mul(x, f)  y = Add(a, c)", affine, f=factor, c=shift)
    want = run(ir.to_proto(model), {"x": X})[0]
    shift_codes(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after)
    assert np.abs(run(after, {"x": X})[0] - want).max() <= float(affine.scale) * 1.01
    if abs(shift) >= float(affine.scale):
        assert operators(after) == ["QuantizeLinear", "DequantizeLinear"]


@pytest.mark.parametrize("line", ["Add(x, c)", "Add(c, x)"])
def test_hand_computed(line: str):
    """Step 0.5, zero point 10: 0.8 + 1.5 = 2.3 is code 10 + 5; with zero point 13, 0.8 is code 13 + 2, too: 2.5."""
    affine = Affine("uint8", np.asarray(np.float32(0.5)), np.asarray(10))
    model = written(f"y = {line}", affine, c=1.5)
    shift_codes(model)
    quantize = model.graph[0]
    assert quantize.op_type == "QuantizeLinear" and int(quantize.inputs[2].const_value.numpy()) == 13
    assert run(ir.to_proto(model), {"x": np.array([[0.8]], np.float32)})[0].item() == pytest.approx(2.5)


@pytest.mark.parametrize(("low", "high", "shift"), [(-4, 4, 1.0), (0, 10, -3.0), (-1, 0, 0.3), (-2, 2, 0.001)])
def test_the_range_is_kept_and_the_shift_is_whole_steps(low: float, high: float, shift: float):
    before = activation_affine(low, high, "uint8")
    after = shifted_affine(before, shift)
    scale, zero_point = float(after.scale), int(after.zero_point)
    if abs(shift) < float(before.scale):
        assert after == before
        return
    assert abs(shift) / scale == pytest.approx(round(abs(shift) / scale), abs=1e-4)
    assert -zero_point * scale <= low + scale / 2 and (255 - zero_point) * scale >= high - scale / 2


def test_what_cannot_be_taken_in_stays():
    affine = Affine("uint8", np.asarray(np.float32(0.5)), np.asarray(10))
    for lines, number in [("y = Add(x, c)", 0.7), ("y = Add(x, c)", -10.0), ("y = Mul(x, c)", -1.0)]:
        model = written(lines, affine, c=number)
        shift_codes(model)
        assert len(operators(ir.to_proto(model))) == 3
