"""What a conversion says about its transforms, and that they reach the written graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import operators, run, weights_of
from small_reference import SAMPLES, images, network, small_reference

from quantbench.errors import InputError
from quantbench.quantization import Recipe, convert


def made(folder: Path, **options: object) -> tuple[dict, onnx.ModelProto]:
    done = convert(small_reference(folder), Recipe("int8", output_error=0.0, **options), out=folder / "variants")
    return json.loads((done.path / "plan.json").read_text(encoding="utf-8")), onnx.load(done.path / "model.onnx")


def test_scales_per_tensor_are_equalized_and_the_plan_says_what(tmp_path: Path):
    """c1 → Clip → c2 and c3 → Add stays: its other operand and what follows share one factor."""
    plan, model = made(tmp_path, granularity="tensor")
    assert "equalization" in plan["transforms"]
    groups = {tuple(each["makers"]): each for each in plan["graphs"]["model"]["equalized"]}
    assert groups[("c2",)]["readers"] == ["c3"]
    assert all(each["smallest"] < 1 < each["largest"] for each in groups.values())
    exact, got = (run(each, {"x": images()[:SAMPLES]})[0] for each in (network(), model))
    assert 0 < np.square(got - exact).mean() < 0.08**2 * exact.var()


def test_a_moved_bound_reaches_the_codes(tmp_path: Path):
    _, model = made(tmp_path, granularity="tensor")
    assert "Clip" not in operators(model)
    for node in (node for node in model.graph.node if node.op_type == "Min"):
        assert weights_of(model)[node.input[1]].dtype == np.uint8


def test_scales_per_channel_are_not(tmp_path: Path):
    plan, model = made(tmp_path)
    assert "equalization" not in plan["transforms"] and "equalized" not in plan["graphs"]["model"]
    assert "Clip" in operators(model)
    plan, _ = made(tmp_path, equalization=True)
    assert "equalization" in plan["transforms"]
    plan, _ = made(tmp_path, granularity="tensor", equalization=False)
    assert "equalization" not in plan["transforms"]


def test_the_range_of_weights_is_recorded_and_used(tmp_path: Path):
    plain, largest = made(tmp_path, weights="int4", rounding="nearest")
    plan, cut = made(tmp_path, weights="int4", rounding="nearest", weight_range="mse")
    tensors = plan["graphs"]["model"]["tensors"]
    assert tensors["w1"]["amplitude"] == "mse" and "amplitude" not in plain["graphs"]["model"]["tensors"]["w1"]
    narrow, wide = (weights_of(model)["w1_scale"] for model in (cut, largest))
    assert np.all(narrow <= wide) and np.any(narrow < 0.95 * wide)


def test_an_unknown_range_of_weights():
    with pytest.raises(InputError, match="unknown weight_range 'least'; use max or mse"):
        Recipe("int8", weight_range="least")
    assert Recipe("int8", granularity="block:32").weight_amplitude == "mse"
    assert Recipe("int8").weight_amplitude == Recipe("int8", granularity="tensor").weight_amplitude == "max"
