"""Pictures for networks without training data: drawn from a seed, cheap, with structure at every scale.

As real images fall into classes, each picture is a variation of one of a few motifs. Without that, every picture would
lie on the border between two classes of a drawn classifier, and its answers would mean nothing.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MOTIFS", "draw_scene", "motif_batch", "training_batch"]

Array = NDArray[Any]

MOTIFS = 24

_MOTIF_STREAM = 0x5CE7E  # motifs are the same whatever the seed of the pictures
_TRAINING_STREAM = 0x7EAC4  # and so are the pictures that a drawn network learns from; no data set has them
_VARIATION = (0.05, 0.3)  # the share of a picture that is no motif


def draw_scene(rng: np.random.Generator, height: int, width: int, motifs: int = MOTIFS) -> Array:
    """A variation of one of the first `motifs`: another scene shines through it, and there is grain over all.

    Returns uint8 (height, width, 3), red, green, blue.
    """
    return _variation(rng, _motif(int(rng.integers(motifs)), height, width))


def motif_batch(count: int, size: int) -> Array:
    """The first `count` motifs, square, as float32 (count, 3, size, size), 0..255."""
    motifs = np.stack([np.clip(_motif(number, size, size), 0, 255) for number in range(count)])
    return np.ascontiguousarray(motifs.transpose(0, 3, 1, 2), np.float32)


def training_batch(motif: int, count: int, size: int) -> Array:
    """Variations of one motif to learn from, square, as float32 (count, 3, size, size), 0..255."""
    rng = np.random.Generator(np.random.PCG64([_TRAINING_STREAM, motif]))
    drawn = _motif(motif, size, size)
    images = np.stack([_variation(rng, drawn) for _ in range(count)])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)


def _variation(rng: np.random.Generator, motif: Array) -> Array:
    height, width = motif.shape[:2]
    share = rng.uniform(*_VARIATION)
    image = (1 - share) * motif + share * _composition(rng, height, width)
    grain = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(1, 6))
    return np.asarray(np.clip(image + grain, 0, 255), np.uint8)


def _motif(number: int, height: int, width: int) -> Array:
    return _composition(np.random.Generator(np.random.PCG64([_MOTIF_STREAM, number])), height, width)


def _composition(rng: np.random.Generator, height: int, width: int) -> Array:
    """A lit background with cloudy texture, in front of it shapes, edges and stripes; float32 (height, width, 3)."""
    image = _clouds(rng, height, width)
    for _ in range(int(rng.integers(3, 9))):
        _place_shape(rng, image)
    return image


def _clouds(rng: np.random.Generator, height: int, width: int) -> Array:
    """Smooth noise in three scales, each coarser one stronger, around a colour of its own."""
    image = np.broadcast_to(rng.uniform(30, 225, 3).astype(np.float32), (height, width, 3)).copy()
    for cells, strength in ((3, 50), (9, 25), (30, 12)):
        noise = rng.normal(0, strength * rng.uniform(0.3, 1), (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


def _place_shape(rng: np.random.Generator, image: Array) -> None:
    """Draw one filled or striped ellipse or rotated rectangle into the image."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    axes = (float(rng.uniform(0.1, 0.7) * width), float(rng.uniform(0.1, 0.7) * height))
    box = (centre, axes, float(rng.uniform(0, 180)))
    if rng.random() < 0.5:
        cv2.ellipse(mask, box, 255, -1)
    else:
        cv2.fillPoly(mask, [cv2.boxPoints(box).astype(np.int32)], 255)
    colour = rng.uniform(0, 255, 3).astype(np.float32)
    if rng.random() < 0.4:  # stripes
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.03, 0.2) * width
        y, x = np.mgrid[:height, :width].astype(np.float32)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * np.float32(2 * np.pi / period))
        paint = colour + np.float32(rng.uniform(20, 80)) * wave[..., None]
        image[mask > 0] = paint[mask > 0]
    else:
        image[mask > 0] = colour
