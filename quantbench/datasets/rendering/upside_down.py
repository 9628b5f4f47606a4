"""content = "upside-down": one line of text, the right way up (class 0) or turned by 180 degrees (class 1)."""

from __future__ import annotations

import numpy as np

from quantbench.datasets.rendering.ink import fitting_mask, random_code, random_face
from quantbench.datasets.rendering.paper import blank, photograph, print_on, to_jpeg

__all__ = ["draw"]

_BORDER = 1


def draw(rng: np.random.Generator, height: int, width: int) -> tuple[bytes, int]:
    """A JPEG of (height, width) and its class.

    Tuned so that ppocr-cls is right about 98.5% of the time in FP32: that model needs upright faces, about as many
    characters as fill the width, and little noise.
    """
    mask = None
    while mask is None:  # a text that is too long for the width is drawn anew
        size = round(height * rng.uniform(0.6, 0.95))
        face, angle = random_face(rng, slanted=False), rng.uniform(-1.5, 1.5)
        mask = fitting_mask(random_code(rng), face, size, angle, height - 2 * _BORDER, width - 2 * _BORDER)
    paper = blank(rng, height, width)
    left = int(rng.integers(_BORDER, width - mask.shape[1] - _BORDER + 1))
    top = int(rng.integers(_BORDER, height - mask.shape[0] - _BORDER + 1))
    print_on(paper, mask, left, top, rng.uniform(80, 180), rng)
    picture = photograph(paper, rng.uniform(0.2, 0.6), rng.uniform(0, 5), rng)
    turned = int(rng.integers(2))
    return to_jpeg(picture[::-1, ::-1] if turned else picture, int(rng.integers(70, 96))), turned
