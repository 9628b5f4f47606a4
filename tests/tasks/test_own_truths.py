"""Data without labels takes the FP32 model's answers, keeps them, and makes them anew when anything changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantbench.references import load_reference
from quantbench.tasks import own_truths
from quantbench.tasks.own_truths import open_with_truths


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.toml").write_text(
        'name="own"\ntask="image-classification"\nquality.metric="top1-agreement"\nmodel.path="m.onnx"\n'
        '[dataset]\nkind="generated-images"\nheight=16\nwidth=16\nsamples=20\n[calibration]\nsamples=2\n'
        "[preprocess]\nmean=[127.5, 127.5, 127.5]\n"
    )
    save_model(tmp_path, seed=1)
    return tmp_path


def save_model(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(5, 3, 16, 16)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "m.onnx").write_bytes(model.SerializeToString())


def truths(folder: Path) -> list[int]:
    data = open_with_truths(load_reference(str(folder / "own.toml")))
    return [data.scored.truth(index) for index in range(len(data.scored))]


def answers(folder: Path) -> list[int]:
    """By plain ONNX Runtime, one image at a time."""
    data = open_with_truths(load_reference(str(folder / "own.toml")))
    session = ort.InferenceSession(onnx.load(folder / "m.onnx").SerializeToString())
    return [int(session.run(None, {"x": data.scored.input(k)[None]})[0].argmax()) for k in range(len(data.scored))]


def test_truths_are_what_the_model_says(folder: Path) -> None:
    assert truths(folder) == answers(folder)
    assert len(set(truths(folder))) > 1


def test_answers_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = truths(folder)
    monkeypatch.setattr(own_truths, "SessionExecutor", None)  # opening the model again would fail
    assert truths(folder) == first


def test_another_model_another_picture_and_a_damaged_file_are_answered_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = truths(folder)
    save_model(folder, seed=2)
    assert truths(folder) == answers(folder) != first
    from quantbench.datasets.kinds import generated_images

    draw = generated_images.draw_scene
    monkeypatch.setattr(generated_images, "draw_scene", lambda *given: 255 - draw(*given))
    assert truths(folder) == answers(folder)
    for file in (folder / "cache" / "agreement").iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    assert truths(folder) == answers(folder)
