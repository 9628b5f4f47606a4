"""From an image file to a model's input, as [preprocess] says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError, MissingError
from quantbench.references.schema import Preprocess

__all__ = ["read_image", "to_input"]

Array = NDArray[Any]

_INTERPOLATION = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


def read_image(file: Path) -> Array:
    """An image as uint8 (height, width, 3) in the order blue, green, red.

    Raises:
        MissingError: the file is not there.
        InputError: OpenCV cannot decode it.
    """
    if not file.is_file():
        raise MissingError(f"the image {file} is missing")
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"the image {file} cannot be decoded; replace it or take its line out of the list")
    return np.asarray(image)


def to_input(image: Array, preprocess: Preprocess, layout: str, name: str) -> Array:
    """Resize, crop, order the channels and normalise, in this order.

    Args:
        image: uint8 (height, width, 3), blue, green, red.
        layout: "NCHW" or "NHWC".
        name: names the image in an error.

    Returns:
        (3, height, width) or (height, width, 3): float32 when there is a mean or a std, else uint8.

    Raises:
        InputError: the image is smaller than the crop.
    """
    if preprocess.resize is not None:
        image = _resize_shorter_side(image, preprocess.resize, _INTERPOLATION[preprocess.interpolation])
    if preprocess.crop is not None:
        image = _crop_centre(image, preprocess.crop, name)
    if preprocess.channels == "RGB":
        image = image[..., ::-1]
    if preprocess.mean is not None or preprocess.std is not None:
        mean = np.array(preprocess.mean or (0, 0, 0), np.float32)
        std = np.array(preprocess.std or (1, 1, 1), np.float32)
        image = (image.astype(np.float32) - mean) / std
    return np.ascontiguousarray(image if layout == "NHWC" else image.transpose(2, 0, 1))


def _resize_shorter_side(image: Array, size: int, interpolation: int) -> Array:
    height, width = image.shape[:2]
    scale = size / min(height, width)
    resized = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=interpolation)
    return np.asarray(resized)


def _crop_centre(image: Array, size: int, name: str) -> Array:
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise InputError(
            f"the image {name} is {width}x{height}, smaller than the crop of {size}; set [preprocess] resize"
        )
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]
