"""mAP on a COCO data set, crowds and all, against pycocotools: on the same detections, and on a run's accuracy log."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from coco_folder import CATEGORIES, write_coco
from coco_scores import coco_map
from pycocotools.coco import COCO

from quantbench.datasets import open_dataset
from quantbench.datasets.boxes import LabelledBoxes
from quantbench.metrics import get_metric
from quantbench.references import load_reference
from quantbench.references.schema import DetectionOutputs
from quantbench.tasks.box_detection import BoxDetectionTask


def detections(truth: LabelledBoxes, generator: np.random.Generator) -> np.ndarray:
    """Near the labelled boxes, several in each crowd, some nowhere; scores in steps, so that many are equal."""
    copies = np.repeat(np.arange(len(truth.boxes)), generator.integers(0, 4, len(truth.boxes)))
    near = truth.boxes[copies] + generator.normal(0, 2, (len(copies), 4))
    inside = truth.boxes[truth.crowd].repeat(3, axis=0) * np.array([1, 1, 0.4, 0.4])
    labels = np.concatenate([truth.classes[copies], truth.classes[truth.crowd].repeat(3)])
    boxes = np.concatenate([near, inside])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    elsewhere = generator.uniform(1, 30, (3, 4))
    boxes = np.concatenate([boxes, elsewhere])
    labels = np.concatenate([labels, generator.choice(CATEGORIES, 3)])
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners /= [truth.width, truth.height, truth.width, truth.height]
    scores = np.round(generator.uniform(0, 1, len(boxes)) * 8) / 8
    return np.concatenate([corners, scores[:, None], labels[:, None]], axis=1).astype(np.float32)


@pytest.fixture(scope="module", params=[0, 1, 2])
def data_set(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The annotation file, the truths and detections of its images, in its order."""
    folder = tmp_path_factory.mktemp("coco")
    scored = open_dataset(load_reference(write_coco(folder, images=40, seed=request.param))).scored
    truths = [scored.truth(index) for index in range(len(scored))]
    generator = np.random.default_rng(request.param)
    return (
        folder / "coco" / "annotations" / "instances_val2017.json",
        truths,
        [detections(truth, generator) for truth in truths],
    )


def test_equals_pycocotools(data_set: Any) -> None:
    file, truths, predictions = data_set
    results = []
    for truth, rows in zip(truths, predictions, strict=True):
        for x1, y1, x2, y2, score, category in rows.astype(np.float64).tolist():
            x1, y1, x2, y2 = x1 * truth.width, y1 * truth.height, x2 * truth.width, y2 * truth.height
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": truth.image_id, "category_id": int(category), "bbox": box, "score": score})
    value = get_metric("map")(predictions, truths).value
    assert 0.1 < value < 0.9
    assert value == pytest.approx(coco_map(file, results), abs=1e-12)


def test_crowds_matter_here(data_set: Any) -> None:
    """So that the test above would notice if they were taken for labelled boxes, or for none."""
    _, truths, predictions = data_set
    value = get_metric("map")(predictions, truths).value
    for change in (
        lambda truth: {"crowd": np.zeros_like(truth.crowd)},
        lambda truth: {name: getattr(truth, name)[~truth.crowd] for name in ("boxes", "classes", "crowd")},
    ):
        changed = [LabelledBoxes(**{**vars(truth), **change(truth)}) for truth in truths]
        assert abs(get_metric("map")(predictions, changed).value - value) > 1e-3


@pytest.mark.parametrize("categories", [None, CATEGORIES])
def test_the_log_in_the_official_layout_has_the_same_map(data_set: Any, categories: tuple[int, ...] | None) -> None:
    """Read as the reference implementation's accuracy-coco.py does: float32 rows, fractions times the image's size.

    With `--use-inv-map`, where a model counts the categories, the class is a position among the category ids.
    """
    file, truths, predictions = data_set
    task = BoxDetectionTask(DetectionOutputs("boxes", "scores", "classes"), categories)
    log = {index: task.to_bytes(rows, index) for index, rows in enumerate(predictions)}
    inverse = [0, *CATEGORIES] if categories else list(range(91))
    with contextlib.redirect_stdout(io.StringIO()):
        images = COCO(str(file)).dataset["images"]
    results = []
    for index, data in log.items():
        values = np.frombuffer(data, np.float32)
        assert len(values) % 7 == 0
        for number, y1, x1, y2, x2, score, label in values.reshape(-1, 7):
            assert int(number) == index
            image = images[index]
            height, width = np.float64(image["height"]), np.float64(image["width"])
            corner = float(x1 * width), float(y1 * height)
            box = [*corner, float(x2 * width) - corner[0], float(y2 * height) - corner[1]]
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": inverse[int(label)],
                    "bbox": box,
                    "score": float(score),
                }
            )
    value = get_metric("map")(predictions, truths).value
    assert coco_map(file, results) == pytest.approx(value, abs=1e-12)
    read_back = [task.from_bytes(data) for data in log.values()]
    assert get_metric("map")(read_back, truths).value == value


def test_resamples_leave_out_what_falls_into_crowds(data_set: Any) -> None:
    """Drawing some images twice is what a set with copies of them gives, where no scores are equal."""
    _, truths, predictions = data_set
    generator = np.random.default_rng(5)
    predictions = [rows.copy() for rows in predictions]
    for rows in predictions:
        rows[:, 4] = generator.uniform(0, 1, len(rows))
    counts = generator.multinomial(len(truths), np.full(len(truths), 1 / len(truths)), size=6)
    expected = []
    for drawn in counts:
        copies = np.repeat(np.arange(len(truths)), drawn).tolist()
        numbered = [LabelledBoxes(**{**vars(truths[index]), "image_id": n}) for n, index in enumerate(copies)]
        expected.append(get_metric("map")([predictions[index] for index in copies], numbered).value)
    resampled = get_metric("map")(predictions, truths).resampled(counts)
    np.testing.assert_allclose(resampled, expected, atol=1e-12, rtol=0)
    assert len(set(expected)) == 6
