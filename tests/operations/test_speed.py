"""What convert says of a variant's speed: whether it runs in integers at all."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import graph, normal, operators

import quantbench
from quantbench.quantization import Recipe

REFERENCE = """\
name = "depthwise"
task = "image-classification"
[model]
path = "depthwise.onnx"
[dataset]
kind = "npz"
path = "depthwise.npz"
[calibration]
samples = 4
[quality]
metric = "top1"
"""


@pytest.fixture
def depthwise(tmp_path: Path) -> Path:
    """Depthwise convolutions of few channels over a large image, which integers make slower."""
    lines = "a = Conv <group=8, pads=[1,1,1,1]> (x, w)  b = Conv <group=8, pads=[1,1,1,1]> (a, w)"
    text = f"g (float[n,8,96,96] x) => (float[n,8,1,1] y) {{ {lines}  y = GlobalAveragePool(b) }}"
    onnx.save(graph(text, w=normal(8, 1, 3, 3)), tmp_path / "depthwise.onnx")
    np.savez(tmp_path / "depthwise.npz", x=normal(8, 8, 96, 96), y=np.zeros(8, np.int64))
    file = tmp_path / "depthwise.toml"
    file.write_text(REFERENCE, encoding="utf-8")
    return file


def test_a_network_that_integers_slow_down_is_stored_in_them_and_computes_in_float(
    depthwise: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "quantbench"):
        made = quantbench.convert(depthwise, "int8", out=tmp_path / "out")
    assert "computes in float" in caplog.text and made.weight_elements["int8"] == 8 * 9
    model = onnx.load(made.path / "model.onnx")
    assert "QuantizeLinear" not in operators(model)
    caplog.clear()
    with caplog.at_level(logging.INFO, "quantbench"):
        everywhere = Recipe("int8", output_error=0.0, placement="everywhere")
        made = quantbench.convert(depthwise, recipe=everywhere, out=tmp_path / "all")
    assert "computes in float" not in caplog.text
    assert "QuantizeLinear" in operators(onnx.load(made.path / "model.onnx"))
