"""Boxes out of a graph's outputs: which row means what, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_graphs import executor

from quantbench.errors import InputError
from quantbench.graphs import SessionExecutor
from quantbench.references.schema import DetectionOutputs
from quantbench.tasks.box_detection import BoxDetectionTask

SSD_MOBILENET = DetectionOutputs(
    boxes="detection_boxes:0", scores="detection_scores:0", classes="detection_classes:0", count="num_detections:0"
)
SSD_RESNET34 = DetectionOutputs(boxes="bboxes", scores="scores", classes="labels", order="x1y1x2y2", min_score=0.05)


def replay(outputs: dict[str, np.ndarray]) -> tuple[SessionExecutor, list[np.ndarray]]:
    """A graph that takes all outputs of a sample in one row and gives them back under their names."""
    kinds = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("int64"): TensorProto.INT64}
    batch = len(next(iter(outputs.values())))
    rows = np.concatenate([values.reshape(batch, -1).astype(np.float32) for values in outputs.values()], axis=1)
    nodes, weights, start = [], {}, 0
    for name, values in outputs.items():
        size = values[0].size
        weights |= {f"{name}_from": np.array([start]), f"{name}_to": np.array([start + size]), "axis": np.array([1])}
        weights[f"{name}_shape"] = np.array([-1, *values.shape[1:]], np.int64)
        nodes += [
            helper.make_node("Slice", ["x", f"{name}_from", f"{name}_to", "axis"], [f"{name}_flat"]),
            helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [f"{name}_shaped"]),
            helper.make_node("Cast", [f"{name}_shaped"], [name], to=kinds[values.dtype]),
        ]
        start += size
    shapes = {name: (kinds[values.dtype], ["n", *values.shape[1:]]) for name, values in outputs.items()}
    opened = executor(nodes, {"x": (TensorProto.FLOAT, ["n", rows.shape[1]])}, shapes, weights)
    return opened, list(rows)


def predicted(task: BoxDetectionTask, outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    opened, rows = replay(outputs)
    return task.predictions(task.infer(opened, task.feeds(opened, rows)))


def test_ssd_mobilenet() -> None:
    """As many rows as num_detections says; y1 x1 y2 x2; classes are category ids."""
    boxes = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4) / 24
    found = predicted(
        BoxDetectionTask(SSD_MOBILENET),
        {
            "num_detections:0": np.array([2, 3], np.float32),
            "detection_boxes:0": boxes,
            "detection_scores:0": np.array([[0.9, 0.01, 0.8], [0.7, 0.6, 0.5]], np.float32),
            "detection_classes:0": np.array([[90, 1, 7], [2, 3, 4]], np.float32),
        },
    )
    assert [len(rows) for rows in found] == [2, 3]
    assert all(rows.dtype == np.float32 for rows in found)
    np.testing.assert_array_equal(found[0], [[*boxes[0, 0, [1, 0, 3, 2]], np.float32(0.9), 90],
                                             [*boxes[0, 1, [1, 0, 3, 2]], np.float32(0.01), 1]])  # fmt: skip
    np.testing.assert_array_equal(found[1][:, 5], [2, 3, 4])


def test_ssd_resnet34() -> None:
    """Rows of score 0.05 and above; x1 y1 x2 y2; the k-th of 80 categories, here of five."""
    boxes = np.array([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [0, 0, 1, 1]]], np.float32)
    task = BoxDetectionTask(SSD_RESNET34, categories=(1, 2, 3, 13, 90))
    outputs = {
        "bboxes": boxes,
        "labels": np.array([[5, 4, 1]], np.int64),
        "scores": np.array([[0.6, 0.05, 0.049]], np.float32),
    }
    (rows,) = predicted(task, outputs)
    np.testing.assert_array_equal(rows, [[*boxes[0, 0], np.float32(0.6), 90], [*boxes[0, 1], np.float32(0.05), 13]])
    logged = np.frombuffer(task.to_bytes(rows, 3), np.float32).reshape(-1, 7)
    np.testing.assert_array_equal(logged[:, 0], [3, 3])
    np.testing.assert_array_equal(logged[:, 1:5], boxes[0, :2][:, [1, 0, 3, 2]])
    np.testing.assert_array_equal(logged[:, 6], [5, 4])  # the model's own numbers
    np.testing.assert_array_equal(task.from_bytes(task.to_bytes(rows, 3)), rows)
    outputs["labels"][0, 0] = 6
    with pytest.raises(InputError, match="the class 6, but the annotations list 5 categories"):
        predicted(task, outputs)


def test_an_image_without_detections() -> None:
    task = BoxDetectionTask(SSD_RESNET34, categories=(1, 2))
    outputs = {
        "bboxes": np.zeros((1, 2, 4), np.float32),
        "labels": np.zeros((1, 2), np.int64),  # padding has a class of no category
        "scores": np.zeros((1, 2), np.float32),
    }
    (rows,) = predicted(task, outputs)
    assert rows.shape == (0, 6)
    assert task.to_bytes(rows, 0) == b"" and task.from_bytes(b"").shape == (0, 6)


def test_outputs_that_are_no_boxes_are_refused() -> None:
    outputs = {
        "bboxes": np.zeros((1, 2, 5), np.float32),
        "labels": np.zeros((1, 2), np.int64),
        "scores": np.zeros((1, 2), np.float32),
    }
    with pytest.raises(InputError, match=r"bboxes, scores and labels have the shapes \(1, 2, 5\).*\[detection\]"):
        predicted(BoxDetectionTask(SSD_RESNET34), outputs)
    with pytest.raises(InputError, match="no output scores"):
        predicted(BoxDetectionTask(SSD_RESNET34), {"bboxes": outputs["bboxes"], "labels": outputs["labels"]})
