"""What lies under the ink and what happens to the picture: colours, shading, blur and noise, JPEG."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["blank", "photograph", "print_on", "to_jpeg"]

Array = NDArray[Any]


def blank(rng: np.random.Generator, height: int, width: int) -> Array:
    """Unevenly lit paper of a random colour: float32 (height, width, 3) in 0..255."""
    colour = rng.uniform(20, 235, 3) * 0.3 + rng.uniform(20, 235) * 0.7  # tinted, more often than bright, paper
    slope = rng.uniform(-25, 25, 2)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(slope[0])
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * np.float32(slope[1])
    return np.asarray(colour, np.float32) + (rows + columns)[..., None]


def print_on(paper: Array, mask: Array, left: int, top: int, contrast: float, rng: np.random.Generator) -> None:
    """Blend ink into the paper in place, darker or lighter than it by about `contrast` grey values."""
    height, width = mask.shape
    under = paper[top : top + height, left : left + width]
    darker = under.mean() > contrast and (rng.random() < 0.7 or under.mean() > 255 - contrast)
    tint = rng.uniform(-12, 12, 3).astype(np.float32)
    under += mask[..., None] * (tint + np.float32(-contrast if darker else contrast))


def photograph(picture: Array, blur: float, noise: float, rng: np.random.Generator) -> Array:
    """The picture as a camera might have it: blurred and noisy, float32.

    Args:
        picture: float32 (height, width, 3), blue, green, red, about 0..255.
        blur, noise: standard deviations, in pixels and in grey values.
    """
    blurred = cv2.GaussianBlur(picture, (0, 0), blur)
    return np.asarray(blurred + rng.standard_normal(picture.shape, np.float32) * np.float32(noise))


def to_jpeg(picture: Array, quality: int) -> bytes:
    """The picture (as in `photograph`) as a JPEG file of a quality from 0 to 100."""
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
