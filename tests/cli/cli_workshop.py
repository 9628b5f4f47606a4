"""A small model with its data and reference file, made anew for each test, and a way to run commands on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantbench.cli import main

REFERENCE = """\
name = "tiny"
task = "image-classification"

[model]
path = "tiny.onnx"

[dataset]
kind = "npz"
path = "tiny.npz"

[calibration]
samples = 16

[quality]
metric = "top1"
target_ratio = 0.9
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def sentence(self) -> str:
        """The error sentence; fails unless stderr is exactly this one line."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("quantbench: "), self.stderr
        assert "Traceback" not in self.stderr
        return lines[0]


Runner = Callable[..., Outcome]


@pytest.fixture
def quantbench(capfd: pytest.CaptureFixture[str]) -> Runner:
    """Run one command line in this process; what C libraries print is captured too."""

    def run(*words: object) -> Outcome:
        capfd.readouterr()
        status = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Outcome(status, out, err)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The path of a reference file whose FP32 model is right on every one of its 80 samples."""
    return make_tiny(tmp_path)


def make_tiny(folder: Path) -> Path:
    """Write tiny.onnx, tiny.npz and tiny.toml: 3×8×8 images, five classes, labels as the FP32 model has them."""
    model = tiny_model()
    onnx.save(model, folder / "tiny.onnx")
    x = images(80)
    y = logits(model, x).argmax(1)
    assert np.bincount(y, minlength=5).min() >= 5, "every class occurs, so the scores mean something"
    np.savez(folder / "tiny.npz", x=x, y=y)
    (folder / "tiny.toml").write_text(REFERENCE)
    return folder / "tiny.toml"


def images(count: int) -> np.ndarray:
    """Noise in tints of its own for each image."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(count, 3, 8, 8)) + rng.normal(size=(count, 3, 1, 1))).astype(np.float32)


def logits(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What plain ONNX Runtime makes of images."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x})[0]


def tiny_model() -> onnx.ModelProto:
    """Conv, Relu, GlobalAveragePool, Flatten, Gemm; the last bias makes the five classes about equally frequent."""
    model = _unbalanced()
    bias = -logits(model, images(80)).mean(0)
    model.graph.initializer[3].CopyFrom(numpy_helper.from_array(bias, "b2"))
    return model


def _unbalanced() -> onnx.ModelProto:
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["logits"], name="classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
        [
            weight("w1", 16, 3, 3, 3),
            weight("b1", 16),
            weight("w2", 16, 5),
            numpy_helper.from_array(np.zeros(5, np.float32), "b2"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder, by its path within: what must not change when a command fails."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
