"""Hard-swish on codes gives what ONNX Runtime's own operators give on real numbers, and is fused by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import graph, operators, run

from quantbench.graphs.hard_swish_codes import hard_swish_affine, hard_swish_codes
from quantbench.graphs.qdq import write_activations
from quantbench.quantization.affine import activation_affine

X = np.linspace(-9, 9, 4001, dtype=np.float32)[None]


def quantized(high: float, name: str, low: float = -5.0) -> ir.Model:
    """Q → DQ → HardSwish → Q → DQ, written as the converter does."""
    model = ir.from_proto(graph("g (float[n,m] x) => (float[n,m] y) { y = HardSwish(x) }"))
    model.graph[0].name = "y"
    affine = hard_swish_affine(activation_affine(low, high, name))
    write_activations(model, {"x": affine, "y": activation_affine(-0.375, high, name)}, ["y"])
    return model


@given(high=st.floats(0.015625, 300, width=32), name=st.sampled_from(["uint8", "int8"]))
@settings(max_examples=40, deadline=None)
def test_the_codes_of_the_float_operator(high: float, name: str):
    """At most half a step off, where float32 rounds to the other side of the middle between two codes."""
    model = quantized(high, name)
    want = run(ir.to_proto(model), {"x": X})[0]
    hard_swish_codes(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after)
    assert "HardSwish" not in operators(after)
    got = run(after, {"x": X})[0]
    step = float(activation_affine(-0.375, high, name).scale)
    assert np.abs(got - want).max() <= step * 1.001
    assert np.mean(got != want) < 0.01


def test_hand_computed():
    """From −3 to 9.75 in 255 steps of 0.05: 3 is 60 steps, so the codes of −3, 0 and 3 are 0, 60 and 120."""
    affine = hard_swish_affine(activation_affine(-3, 9.75, "uint8"))
    assert int(affine.zero_point) == 60 and float(affine.scale) == pytest.approx(0.05)
    affine = hard_swish_affine(activation_affine(-3, 9.75, "int8"))
    assert int(affine.zero_point) == 60 - 128


@given(high=st.floats(0, 1e4, width=32), low=st.floats(-1e4, 0, width=32), name=st.sampled_from(["uint8", "int8"]))
def test_codes_reach_from_minus_three_to_the_end_of_the_range(high: float, low: float, name: str):
    before = activation_affine(low, high, name)
    after = hard_swish_affine(before)
    largest = np.iinfo(name).max
    end = float(before.scale) * (largest - int(before.zero_point))
    assert (np.iinfo(name).min - int(after.zero_point)) * float(after.scale) == pytest.approx(-3)
    assert (largest - int(after.zero_point)) * float(after.scale) >= min(end, 3 * 254) - 1e-2 * (end + 3)


def test_onnx_runtime_fuses_it(tmp_path: Path):
    model = quantized(6.0, "uint8")
    hard_swish_codes(model)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    found = operators(onnx.load(tmp_path / "optimised.onnx"))
    assert found == ["QuantizeLinear", "Min", "QLinearMul", "DequantizeLinear"]


def test_other_codes_keep_the_operator():
    model = ir.from_proto(graph("g (float[n,m] x) => (float[n,m] y) { y = HardSwish(x) }"))
    write_activations(model, {"x": activation_affine(-2.9, 6, "uint8")}, ["y"])
    hard_swish_codes(model)
    assert "HardSwish" in operators(ir.to_proto(model))
