"""A small data set in COCO's layout: pictures, an annotation file, and a reference file over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CATEGORIES = (1, 2, 3, 5, 8, 90)  # as in COCO, ids leave gaps

TEXT = """\
name = "boxes"
task = "object-detection"
[model]
path = "boxes.onnx"
layout = "NHWC"
[dataset]
kind = "coco"
path = "coco"
annotations = "annotations/instances_val2017.json"
images = "val2017"
categories = "{categories}"
[calibration]
list = "coco.txt"
images = "train2017"
[preprocess]
resize_to = [30, 40]
[detection]
boxes = "boxes"
scores = "scores"
classes = "classes"
[quality]
metric = "map"
"""


def write_coco(folder: Path, images: int = 24, seed: int = 0, categories: str = "ids") -> Path:
    """Write `coco/`, `coco.txt` (the calibration list) and `boxes.toml`; return the TOML file."""
    generator = np.random.default_rng(seed)
    data = folder / "coco"
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    # Ids and file names in no order, as COCO has them: the file's order is what counts.
    for number in generator.permutation(np.arange(100, 100 + images)).tolist():
        height, width = int(generator.integers(40, 90)), int(generator.integers(40, 90))
        name = f"{number:012d}.jpg"
        _picture(data / "val2017" / name, height, width, generator)
        entries.append({"id": number, "file_name": name, "height": height, "width": width})
        for _ in range(int(generator.integers(0, 6))):
            x, y = generator.uniform(0, width - 20), generator.uniform(0, height - 20)
            w, h = generator.uniform(5, width - x), generator.uniform(5, height - y)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(generator.choice(CATEGORIES)),
                    "bbox": [round(float(side), 2) for side in (x, y, w, h)],
                    "area": float(w * h),
                    "iscrowd": int(generator.uniform() < 0.2),
                }
            )
    for number in range(3):
        _picture(data / "train2017" / f"{number:012d}.jpg", 50, 60, generator)
    document = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": number, "name": f"c{number}"} for number in CATEGORIES],
    }
    (data / "annotations").mkdir()
    (data / "annotations" / "instances_val2017.json").write_text(json.dumps(document))
    (folder / "coco.txt").write_text("".join(f"{number:012d}.jpg\n" for number in range(3)))
    (folder / "boxes.toml").write_text(TEXT.format(categories=categories))
    return folder / "boxes.toml"


def _picture(file: Path, height: int, width: int, generator: np.random.Generator) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), generator.integers(0, 256, (height, width, 3), np.uint8))
