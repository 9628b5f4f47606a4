"""The COCO kind against pycocotools on the same annotation file, and what a bad file gets."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_folder import CATEGORIES, write_coco
from pycocotools.coco import COCO

from quantbench.datasets import open_dataset
from quantbench.datasets.boxes import LabelledBoxes
from quantbench.errors import InputError, MissingError
from quantbench.references import load_reference

ANNOTATIONS = Path("coco", "annotations", "instances_val2017.json")


def test_truths_are_those_of_pycocotools(tmp_path: Path) -> None:
    data = open_dataset(load_reference(write_coco(tmp_path)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / ANNOTATIONS))
    assert data.prediction_space is None
    assert list(data.scored.ids) == [image["file_name"] for image in coco.dataset["images"]]
    crowds = 0
    for index, image in enumerate(coco.dataset["images"]):
        truth = data.scored.truth(index)
        assert isinstance(truth, LabelledBoxes)
        assert (truth.image_id, truth.height, truth.width) == (image["id"], image["height"], image["width"])
        expected = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert truth.boxes.tolist() == [each["bbox"] for each in expected]
        assert truth.classes.tolist() == [each["category_id"] for each in expected]
        assert truth.crowd.tolist() == [bool(each["iscrowd"]) for each in expected]
        crowds += truth.crowd.sum()
    assert crowds


def test_inputs_are_prepared_and_calibration_images_lie_apart(tmp_path: Path) -> None:
    data = open_dataset(load_reference(write_coco(tmp_path)))
    assert data.scored.input(0).shape == (30, 40, 3) and data.scored.input(0).dtype == np.uint8
    assert list(data.calibration.ids) == ["000000000000.jpg", "000000000001.jpg", "000000000002.jpg"]
    assert data.calibration.input(2).shape == (30, 40, 3)
    assert not set(data.calibration.ids) & set(data.scored.ids)


def test_positions_stand_for_the_ids_in_the_order_of_the_file(tmp_path: Path) -> None:
    assert open_dataset(load_reference(write_coco(tmp_path, categories="positions"))).prediction_space == CATEGORIES


def test_without_a_list_the_first_images_calibrate(tmp_path: Path) -> None:
    file = write_coco(tmp_path)
    text = file.read_text().replace('list = "coco.txt"\nimages = "train2017"', "samples = 5")
    file.write_text(text)
    data = open_dataset(load_reference(file))
    assert len(data.calibration) == 5 and len(data.scored) == 19
    assert not set(data.calibration.ids) & set(data.scored.ids)


def _edited(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / ANNOTATIONS).read_text())
        change(document)
        (folder / ANNOTATIONS).write_text(json.dumps(document))

    return apply


def _cut(folder: Path) -> None:
    data = (folder / ANNOTATIONS).read_bytes()
    (folder / ANNOTATIONS).write_bytes(data[: len(data) // 2])


def _set(key: str, value: object) -> Callable[[Path], None]:
    return _edited(lambda document: document["annotations"][3].update({key: value}))


BAD: dict[str, tuple[Callable[[Path], None], type[Exception], list[str]]] = {
    "cut off": (_cut, InputError, ["instances_val2017.json", "cut off"]),
    "not JSON": (lambda folder: (folder / ANNOTATIONS).write_bytes(b"\xff\xfe"), InputError, ["not JSON"]),
    "a list": (lambda folder: (folder / ANNOTATIONS).write_text("[]"), InputError, ["images, annotations"]),
    "no images": (_edited(lambda document: document.pop("images")), InputError, ["no list of images"]),
    "an image without a height": (
        _edited(lambda document: document["images"][4].pop("height")),
        InputError,
        ["entry 4 of images", "'height'"],
    ),
    "an image missing from the list": (
        _edited(lambda document: document["images"].pop(next(
            i for i, image in enumerate(document["images"])
            if image["id"] == document["annotations"][0]["image_id"]
        ))),
        InputError,
        ["which the file does not list"],
    ),
    "an image twice": (
        _edited(lambda document: document["images"].append(document["images"][0])),
        InputError,
        ["two images have the same id"],
    ),
    "a category that is not listed": (_set("category_id", 4), InputError, ["the category 4"]),
    "three sides": (_set("bbox", [1, 2, 3]), InputError, ["entry 3 of annotations", "[1, 2, 3]"]),
    "a side that is no number": (_set("bbox", [1, 2, 3, "wide"]), InputError, ["entry 3 of annotations", "wide"]),
    "no annotation file": (lambda folder: (folder / ANNOTATIONS).unlink(), MissingError, ["instances_val2017.json"]),
    "an image file missing": (
        lambda folder: next((folder / "coco" / "val2017").iterdir()).unlink(),
        MissingError,
        ["val2017", "listed in"],
    ),
    "a calibration image missing": (
        lambda folder: (folder / "coco" / "train2017" / "000000000001.jpg").unlink(),
        MissingError,
        ["train2017", "000000000001.jpg", "calibration"],
    ),
    "no folder": (lambda folder: (folder / "coco").rename(folder / "elsewhere"), MissingError, ["data folder"]),
    "no calibration list": (lambda folder: (folder / "coco.txt").unlink(), MissingError, ["coco.txt"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_gets_one_sentence(case: str, tmp_path: Path) -> None:
    change, kind, words = BAD[case]
    file = write_coco(tmp_path)
    change(tmp_path)
    with pytest.raises(kind) as caught:
        open_dataset(load_reference(file))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
