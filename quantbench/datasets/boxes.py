"""The labelled boxes of one image, as COCO annotates them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["LabelledBoxes"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LabelledBoxes:
    """The truth of one image; a prediction for it gives boxes as fractions of the image's width and height."""

    image_id: int
    """COCO's number; detections of equal score count in its order."""
    height: int  # pixels
    width: int
    boxes: Array  # (k, 4) float64 x, y, width, height in pixels
    classes: Array  # (k,) int64 category ids
    crowd: Array  # (k,) bool: around many objects, none of which need be found
