"""Boxes around the parts of a probability map, against scipy's labelling and by hand."""

import numpy as np
import pytest
from scipy import ndimage
from small_graphs import identity

from quantbench.errors import InputError
from quantbench.tasks.detection import DetectionTask, boxes_of_map


def blobs(seed, size=(96, 128)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 5)
    return np.clip(noise / noise.std() * 0.4, 0, 1).astype(np.float32)


def expected_boxes(probability):
    """Slow and by definition: eight-connected parts above 0.3, grown by 0.7 · area / perimeter."""
    labels, _ = ndimage.label(probability > 0.3, structure=np.ones((3, 3)))
    rows = []
    for part in ndimage.find_objects(labels):
        height, width = part[0].stop - part[0].start, part[1].stop - part[1].start
        score = probability[part].astype(np.float64).mean()
        if score >= 0.4 and min(height, width) >= 3:
            grow = 0.7 * height * width / (2 * (height + width))
            rows.append(
                [
                    max(part[1].start - grow, 0),
                    max(part[0].start - grow, 0),
                    min(part[1].stop + grow, probability.shape[1]),
                    min(part[0].stop + grow, probability.shape[0]),
                    score,
                    1,
                ]
            )
    return np.array(sorted(rows, key=lambda row: -row[4]))


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_those_of_scipy(seed):
    probability = blobs(seed)
    boxes = boxes_of_map(probability)
    assert boxes.dtype == np.float32
    assert len(boxes) >= 2
    np.testing.assert_allclose(boxes, expected_boxes(probability), rtol=1e-5)


def test_by_hand():
    probability = np.zeros((40, 60), np.float32)
    probability[10:20, 20:50] = 0.8  # 30 × 10: grown by 300 · 0.7 / 80 = 2.625
    probability[10, 20] = 0.2  # below the threshold, but in the box: score (299 · 0.8 + 0.2) / 300
    probability[30:38, 0:8] = 0.35  # scores too little
    probability[2:4, 2:30] = 0.9  # too thin
    np.testing.assert_allclose(boxes_of_map(probability), [[17.375, 7.375, 52.625, 22.625, 0.798, 1]], rtol=1e-6)


def test_nothing_found_is_an_empty_table():
    boxes = boxes_of_map(np.zeros((16, 16), np.float32))
    assert boxes.shape == (0, 6)
    task = DetectionTask()
    assert task.from_bytes(task.to_bytes(boxes, 0)).shape == (0, 6)


def test_pages_of_a_batch_and_of_two_sizes():
    opened = identity(["n", 1, "h", "w"])
    task = DetectionTask()
    maps = [blobs(0), blobs(1, (64, 80)), blobs(2)]
    found = task.predictions(task.infer(opened, task.feeds(opened, [plane[None] for plane in maps])))
    for boxes, plane in zip(found, maps, strict=True):
        np.testing.assert_array_equal(boxes, boxes_of_map(plane))


def test_bytes_are_rows_of_the_official_layout_and_come_back():
    boxes = boxes_of_map(blobs(3))
    task = DetectionTask()
    data = task.to_bytes(boxes, 41)
    rows = np.frombuffer(data, np.float32).reshape(-1, 7)  # image id, y1, x1, y2, x2, score, class
    np.testing.assert_array_equal(rows[:, 0], 41)
    np.testing.assert_array_equal(rows[:, [2, 1, 4, 3, 5, 6]], boxes)
    np.testing.assert_array_equal(task.from_bytes(data), boxes)


def test_an_output_that_is_no_map_is_refused():
    opened = identity(["n", 4])
    task = DetectionTask()
    with pytest.raises(InputError, match="probability maps"):
        task.predictions(task.infer(opened, task.feeds(opened, [np.zeros(4, np.float32)])))
