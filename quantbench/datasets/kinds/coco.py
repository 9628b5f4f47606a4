"""kind = "coco": a folder of images, and their boxes in COCO's annotation format.

Source of the format: "Data format" of the COCO data set, section "Object Detection". MLPerf Inference numbers the
samples in the order of the file's `images`, whether or not an image has boxes; so does this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.boxes import LabelledBoxes
from quantbench.datasets.preprocess import read_image, to_input
from quantbench.datasets.splitting import calibration_list, make_dataset, split
from quantbench.errors import InputError, MissingError
from quantbench.references import Reference, data_folder

__all__ = ["KEYS", "load"]

KEYS = frozenset({"path", "variable", "annotations", "images", "categories"})

T = TypeVar("T")


def load(reference: Reference) -> Dataset:
    """Samples in the order of the annotation file; ids are file names, truths are `LabelledBoxes`.

    The `prediction_space` of a reference with `categories = "positions"` is the tuple of COCO's category ids in the
    order of the file: a model's class k, counted from 1, is the k-th of them (91 ids for 80 categories). It is None
    where the model's classes are category ids.

    Raises:
        MissingError: the folder, the annotation file, the calibration list or an image is not there.
        InputError: the annotation file is cut off or names what it does not list, or too few samples.
    """
    folder = data_folder(reference)
    source = reference.dataset
    if source.annotations is None:
        raise InputError(f"{reference.file}: the kind 'coco' needs the key dataset.annotations")
    file = folder / source.annotations
    truths, categories = _read(file)
    images = folder / (source.images or ".")
    calibration_images = folder / (reference.calibration.images or source.images or ".")
    listed = calibration_list(reference, folder)
    calibration, scored = split(reference, list(truths), listed)
    _check_present(calibration_images, calibration, f"listed for calibration in {reference.file}")
    _check_present(images, scored, f"listed in {file}")

    def samples(ids: list[str], place: Path) -> LazySamples:
        return LazySamples(
            ids,
            lambda index: to_input(
                read_image(place / ids[index]), reference.preprocess, reference.model.layout, ids[index]
            ),
            lambda index: truths.get(ids[index]),
        )

    return make_dataset(
        samples(calibration, calibration_images),
        samples(scored, images),
        categories if source.categories == "positions" else None,
    )


def _read(file: Path) -> tuple[dict[str, LabelledBoxes], tuple[int, ...]]:
    """The boxes of each image by its file name, and the category ids; both in the order of the file."""
    document = _parsed(file)
    categories = tuple(_entries(file, document, "categories", lambda entry: int(entry["id"])))
    images = _entries(
        file,
        document,
        "images",
        lambda entry: (int(entry["id"]), str(entry["file_name"]), int(entry["height"]), int(entry["width"])),
    )
    boxes: dict[int, list[tuple[list[float], int, bool]]] = {number: [] for number, *_ in images}
    if len(boxes) < len(images) or len({name for _, name, *_ in images}) < len(images):
        raise InputError(f"{file}: two images have the same id or file name; get the file again")
    known = set(categories)
    for image, box, category, crowd in _entries(file, document, "annotations", _annotation):
        if image not in boxes:
            raise InputError(f"{file}: an annotation is of the image {image}, which the file does not list")
        if category not in known:
            raise InputError(f"{file}: an annotation is of the category {category}, which the file does not list")
        boxes[image].append((box, category, crowd))
    truths = {
        name: LabelledBoxes(
            image_id=number,
            height=height,
            width=width,
            boxes=np.array([box for box, _, _ in boxes[number]], np.float64).reshape(-1, 4),
            classes=np.array([category for _, category, _ in boxes[number]], np.int64),
            crowd=np.array([crowd for _, _, crowd in boxes[number]], bool),
        )
        for number, name, height, width in images
    }
    return truths, categories


def _parsed(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise MissingError(f"the annotation file {file} is missing; put it there")
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the annotation file {file}: {error.strerror or error}") from error
    except ValueError as error:  # JSONDecodeError, or bytes that are no UTF-8
        raise InputError(f"the annotation file {file} is not JSON, or is cut off ({error}); get it again") from error
    if not isinstance(document, dict):
        raise InputError(f"the annotation file {file} has no images, annotations and categories; get it again")
    return document


def _entries(file: Path, document: Mapping[str, Any], key: str, read: Callable[[Any], T]) -> list[T]:
    """Each entry of one of the file's lists, as `read` takes it apart."""
    entries = document.get(key)
    if not isinstance(entries, list):
        raise InputError(f"the annotation file {file} has no list of {key}; get it again")
    found: list[T] = []
    try:
        found.extend(map(read, entries))
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise InputError(f"{file}: entry {len(found)} of {key} {what}; get the file again") from error
    return found


def _annotation(entry: Any) -> tuple[int, list[float], int, bool]:
    box = [float(side) for side in entry["bbox"]]
    if len(box) != 4 or not np.isfinite(box).all():
        raise ValueError(f"its bbox {entry['bbox']!r} is no x, y, width, height")
    return int(entry["image_id"]), box, int(entry["category_id"]), bool(entry.get("iscrowd", 0))


def _check_present(folder: Path, names: list[str], why: str) -> None:
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise MissingError(f"the image {folder / absent[0]}{more} is missing, but {why}; put it there")
