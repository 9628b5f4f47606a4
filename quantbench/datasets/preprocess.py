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
        (3, height, width) or (height, width, 3): float32 when there is a divisor, a mean or a std, else uint8.

    Raises:
        InputError: the image is smaller than the crop.
    """
    if preprocess.resize is not None:
        image = _resize_shorter_side(image, preprocess.resize, _INTERPOLATION[preprocess.interpolation])
    if preprocess.resize_to is not None:
        image = _resize_both_sides(image, preprocess.resize_to, _INTERPOLATION[preprocess.interpolation])
    if preprocess.crop is not None:
        image = _crop_centre(image, preprocess.crop, name)
    if preprocess.channels == "RGB":
        image = image[..., ::-1]
    if preprocess.divisor is None and preprocess.mean is None and preprocess.std is None:
        image = image.astype(np.uint8)  # cuts the fractions of `resize_to` off, as the reference implementation does
    else:
        divisor = np.float32(preprocess.divisor or 1)
        mean = np.array(preprocess.mean or (0, 0, 0), np.float32)
        std = np.array(preprocess.std or (1, 1, 1), np.float32)
        image = (image.astype(np.float32) / divisor - mean) / std
    return np.ascontiguousarray(image if layout == "NHWC" else image.transpose(2, 0, 1))


def _resize_shorter_side(image: Array, size: int, interpolation: int) -> Array:
    """The longer side is cut off to whole pixels, as MLPerf's reference implementation and torchvision do."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    resized = cv2.resize(image, (width * size // shorter, height * size // shorter), interpolation=interpolation)
    return np.asarray(resized)


def _resize_both_sides(image: Array, size: tuple[int, int], interpolation: int) -> Array:
    """In float32, because MLPerf's reference implementation does so for detection; values stay in 0..255."""
    height, width = size
    resized = cv2.resize(image.astype(np.float32), (width, height), interpolation=interpolation)
    return np.asarray(resized).clip(0, 255)


def _crop_centre(image: Array, size: int, name: str) -> Array:
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise InputError(
            f"the image {name} is {width}x{height}, smaller than the crop of {size}; set [preprocess] resize"
        )
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]
