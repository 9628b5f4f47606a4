"""COCO mAP against pycocotools, on the same detections and on resamples of the same images."""

import numpy as np
import pytest
from coco_scores import coco_map

from quantbench.errors import InputError
from quantbench.metrics import get_metric


def pycocotools_map(predictions, truths):
    """mAP by pycocotools; images, annotations and detections numbered in order, from 1."""
    images, annotations, results = [], [], []
    for number, (found, labelled) in enumerate(zip(predictions, truths, strict=True), 1):
        images.append({"id": number})
        for box in np.asarray(labelled, float):
            width, height = box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(box[4]) if len(box) == 5 else 1,
                    "bbox": [box[0], box[1], width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
        for x1, y1, x2, y2, score, category in np.asarray(found, float):
            results.append(
                {"image_id": number, "category_id": int(category), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            )
    categories = sorted({annotation["category_id"] for annotation in annotations})
    truth = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": category} for category in categories],
    }
    return coco_map(truth, results)


def pages(seed, images=25, classes=1, ties=False):
    """Truths, and detections that are near them, doubled, missing, or nowhere."""
    generator = np.random.default_rng(seed)
    predictions, truths = [], []
    for _ in range(images):
        corner = generator.uniform(0, 250, (generator.integers(0, 9), 2))
        truth = np.concatenate([corner, corner + generator.uniform(5, 60, corner.shape)], axis=1)
        label = generator.integers(1, classes + 1, (len(truth), 1))
        copies = np.repeat(np.arange(len(truth)), generator.integers(0, 3, len(truth)))
        near = truth[copies] + generator.normal(0, 3, (len(copies), 4))
        elsewhere = generator.uniform(0, 150, (generator.integers(0, 4), 4)) + np.array([0, 0, 150, 150])
        boxes = np.concatenate([near, elsewhere])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)  # COCOeval leaves boxes of negative area out
        named = np.concatenate([label[copies], generator.integers(1, classes + 1, (len(elsewhere), 1))])
        score = generator.uniform(0, 1, (len(boxes), 1))
        if ties:
            score = np.round(score * 4) / 4
        predictions.append(np.concatenate([boxes, score, named], axis=1).astype(np.float32))
        truths.append(np.concatenate([truth, label], axis=1) if classes > 1 else truth)
    return predictions, truths


@pytest.mark.parametrize(("seed", "classes", "ties"), [(0, 1, False), (1, 1, True), (2, 3, False), (3, 4, True)])
def test_equals_pycocotools(seed, classes, ties):
    predictions, truths = pages(seed, classes=classes, ties=ties)
    value = get_metric("map")(predictions, truths).value
    assert 0.05 < value < 0.95
    assert value == pytest.approx(pycocotools_map(predictions, truths), abs=1e-9)


def test_only_the_best_hundred_boxes_of_an_image_count():
    truth = np.array([[10.0 * k, 0, 10 * k + 8, 8] for k in range(150)])
    score = np.linspace(1, 0.1, 150)[:, None]
    found = np.concatenate([truth, score, np.ones((150, 1))], axis=1)
    value = get_metric("map")([found], [truth]).value
    assert value == pytest.approx(pycocotools_map([found], [truth]), abs=1e-9)
    assert value == pytest.approx(67 / 101)  # the recalls 0 to 0.66 of the 101 are reached with 100 of 150 boxes


@pytest.mark.parametrize("classes", [1, 3])
def test_a_resample_is_a_set_with_some_images_repeated(classes):
    predictions, truths = pages(7, images=20, classes=classes)
    outcomes = get_metric("map")(predictions, truths)
    counts = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=12)
    expected = []
    for drawn in counts:
        order = np.repeat(np.arange(20), drawn)
        expected.append(pycocotools_map([predictions[k] for k in order], [truths[k] for k in order]))
    np.testing.assert_allclose(outcomes.resampled(counts), expected, atol=1e-9, rtol=0)
    assert len(set(expected)) == 12


def test_nothing_found_scores_nothing():
    empty = np.zeros((0, 6), np.float32)
    assert get_metric("map")([empty, empty], [np.array([[0, 0, 5, 5]]), np.zeros((0, 4))]).value == 0


def test_resamples_without_a_box_to_find_have_no_value():
    found = np.array([[0, 0, 5, 5, 0.9, 1]], np.float32)
    outcomes = get_metric("map")([found, found], [np.array([[0, 0, 5, 5]]), np.zeros((0, 4))])
    np.testing.assert_array_equal(outcomes.resampled(np.array([[2, 0], [0, 2]])), [1.0, np.nan])


def test_truths_that_are_no_boxes_are_refused():
    with pytest.raises(InputError, match="map needs boxes"):
        get_metric("map")([np.zeros((0, 6))], [np.zeros((2, 3))])
    with pytest.raises(InputError, match="no scored image"):
        get_metric("map")([np.zeros((0, 6))], [np.zeros((0, 4))])
