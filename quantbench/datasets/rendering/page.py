"""content = "page": words scattered over a page, each with the box of its ink."""

from __future__ import annotations

import numpy as np

from quantbench.datasets.rendering.ink import ink_mask, random_face, random_word
from quantbench.datasets.rendering.paper import blank, photograph, print_on, to_jpeg

__all__ = ["draw"]

_MARGIN = 6
_GAP = 12  # between words, so that each is a part of its own
_ATTEMPTS = 20


def draw(rng: np.random.Generator, height: int, width: int) -> tuple[bytes, list[list[int]]]:
    """A JPEG of (height, width) and the boxes x1, y1, x2, y2 of its 6 to 12 words, the far edges exclusive.

    A box is exact: the smallest upright one around the word's ink before blur and noise.
    """
    paper = blank(rng, height, width)
    boxes: list[list[int]] = []
    for _ in range(rng.integers(6, 13)):
        mask = ink_mask(random_word(rng), random_face(rng), round(height * rng.uniform(0.05, 0.13)), rng.uniform(-3, 3))
        box = _place(rng, boxes, mask.shape[0], mask.shape[1], height, width)
        if box is not None:
            print_on(paper, mask, box[0], box[1], rng.uniform(40, 150), rng)
            boxes.append(box)
    picture = photograph(paper, rng.uniform(0.2, 1.5), rng.uniform(0, 15), rng)
    return to_jpeg(picture, int(rng.integers(60, 96))), boxes


def _place(
    rng: np.random.Generator, taken: list[list[int]], tall: int, wide: int, height: int, width: int
) -> list[int] | None:
    """A free place for a word, or None when none is found."""
    if tall > height - 2 * _MARGIN or wide > width - 2 * _MARGIN:
        return None
    for _ in range(_ATTEMPTS):
        x1 = int(rng.integers(_MARGIN, width - _MARGIN - wide + 1))
        y1 = int(rng.integers(_MARGIN, height - _MARGIN - tall + 1))
        x2, y2 = x1 + wide, y1 + tall
        if all(x2 + _GAP <= a or c + _GAP <= x1 or y2 + _GAP <= b or d + _GAP <= y1 for a, b, c, d in taken):
            return [x1, y1, x2, y2]
    return None
