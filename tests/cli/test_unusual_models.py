"""Models that are not float NCHW with a free batch: the whole way from convert to the gate works for them too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from cli_workshop import REFERENCE, Runner, images, tiny_model
from onnx import TensorProto, helper, numpy_helper


def nhwc_uint8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The tiny model behind Cast, a scale and a Transpose: bytes in, channels last."""
    nodes = [
        helper.make_node("Cast", ["bytes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "middle"], ["centred"]),
        helper.make_node("Div", ["centred", "width"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["image"], perm=[0, 3, 1, 2]),
    ]
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in (("middle", 128), ("width", 40))]
    old = model.graph
    graph = helper.make_graph(
        [*nodes, *old.node],
        "bytes",
        [helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["n", 8, 8, 3])],
        old.output,
        [*old.initializer, *constants],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)


def fixed_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The tiny model with a batch of one, and nothing else."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


@pytest.mark.parametrize("kind", ["nhwc-uint8", "fixed-batch"])
def test_convert_and_gate(kind: str, tmp_path: Path, quantbench: Runner) -> None:
    x = images(80)
    if kind == "nhwc-uint8":
        model = nhwc_uint8(tiny_model())
        x = np.clip(x.transpose(0, 2, 3, 1) * 40 + 128, 0, 255).astype(np.uint8)
    else:
        model = fixed_batch(tiny_model())
    onnx.save(model, tmp_path / "tiny.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    y = np.concatenate([session.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))]).argmax(1)
    np.savez(tmp_path / "tiny.npz", x=x, y=y)
    (tmp_path / "tiny.toml").write_text(REFERENCE)
    words = (
        "gate",
        tmp_path / "tiny.toml",
        "--dtype",
        "int8",
        "fp16",
        "fp11",
        "--out",
        tmp_path / "variants",
        "--json",
    )
    outcome = quantbench(*words)
    assert outcome.status == 0, outcome.stderr
    verdicts = json.loads(outcome.stdout)
    assert [verdict["dtype"] for verdict in verdicts] == ["int8", "fp16", "fp11"]
    assert all(verdict["reference_score"] == 1.0 and verdict["ratio"] >= 0.9 for verdict in verdicts)
