"""Agreement with FP32: of classes, of words, and of boxes, the last against pycocotools with crowds."""

from __future__ import annotations

import numpy as np
import pytest
from coco_scores import coco_map

from quantbench.errors import InputError
from quantbench.metrics.kinds import box_agreement, token_agreement, top1_agreement


def test_top1_agreement_is_the_share_of_equal_classes():
    assert top1_agreement.measure([3, 1, 2, 2], [3, 1, 1, 2]).value == 0.75


@pytest.mark.parametrize(
    ("found", "wanted", "edits"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("k i t t e n", "s i t t i n g", 3),  # the textbook's example of Levenshtein's distance
        ("s a t u r d a y", "s u n d a y", 3),
        ("", "a b", 2),
    ],
)
def test_token_agreement_counts_edits(found, wanted, edits):
    longer = max(len(found.split()), len(wanted.split()))
    for one, other in ((found, wanted), (wanted, found)):
        assert token_agreement.measure([one], [other]).per_sample[0] == pytest.approx(1 - edits / longer)


def test_nothing_said_twice_agrees():
    assert token_agreement.measure([""], [""]).value == 1.0


def test_token_agreement_needs_texts():
    with pytest.raises(InputError, match="compares texts"):
        token_agreement.measure(["a"], [3])


def detections(rng, near=None):
    """Rows x1, y1, x2, y2, score, class of one image; some are those of `near`, moved a little and scored anew."""
    count = int(rng.integers(2, 12))
    low = rng.uniform(0, 0.6, (count, 2))
    rows = np.hstack([low, low + rng.uniform(0.05, 0.4, (count, 2)), rng.uniform(0.3, 1, (count, 1))])
    rows = np.hstack([rows, rng.integers(1, 4, (count, 1))])
    if near is not None:
        moved = near.copy()
        moved[:, :4] += rng.normal(0, 0.01, (len(near), 4))
        moved[:, 4] = np.clip(moved[:, 4] + rng.normal(0, 0.1, len(near)), 0.01, 1)
        rows = np.vstack([moved, rows[:2]])
    return rows


def by_pycocotools(predictions, truths):
    """FP32's boxes as annotations, those it scores below 0.5 as crowds."""

    def size(row):
        return [row[0], row[1], row[2] - row[0], row[3] - row[1]]

    annotations, found = [], []
    for image, rows in enumerate(truths):
        for row in rows:
            crowd = int(row[4] < 0.5)
            box = size(row)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(row[5]), "bbox": box}
                | {"area": box[2] * box[3], "iscrowd": crowd}
            )
    for image, rows in enumerate(predictions):
        found += [{"image_id": image, "category_id": int(r[5]), "bbox": size(r), "score": r[4]} for r in rows]
    truth = {
        "images": [{"id": image} for image in range(len(truths))],
        "annotations": annotations,
        "categories": [{"id": k} for k in (1, 2, 3)],
    }
    return coco_map(truth, found)


@pytest.mark.parametrize("seed", range(3))
def test_box_agreement_is_mean_average_precision_with_what_fp32_is_unsure_of_as_crowds(seed):
    rng = np.random.default_rng(seed)
    truths = [detections(rng) for _ in range(12)]
    predictions = [detections(rng, near=rows) for rows in truths]
    assert box_agreement.measure(predictions, truths).value == pytest.approx(by_pycocotools(predictions, truths))


def test_what_fp32_is_unsure_of_is_neither_wanted_nor_wrong():
    sure, unsure = [0.1, 0.1, 0.4, 0.4, 0.9, 1], [0.6, 0.6, 0.9, 0.9, 0.4, 1]
    truths = [np.array([sure, unsure])]
    assert box_agreement.measure([np.array([sure])], truths).value == pytest.approx(1)
    assert box_agreement.measure([np.array([sure, unsure])], truths).value == pytest.approx(1)
    elsewhere = [0.6, 0.1, 0.9, 0.4, 0.95, 1]
    assert box_agreement.measure([np.array([elsewhere, sure])], truths).value < 0.6
    assert box_agreement.measure([np.array([unsure])], truths).value == 0


def test_fp32_must_be_sure_of_something():
    with pytest.raises(InputError, match="no scored image has any"):
        box_agreement.measure([np.zeros((0, 6))], [np.array([[0, 0, 1, 1, 0.3, 1]])])
