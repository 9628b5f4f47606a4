"""content = "line": a line of one word or number to be read, as a text detector cuts it out.

What lies right of the cut is filled with grey up to the width, as PP-OCR fills it when it reads lines in batches.
"""

from __future__ import annotations

import numpy as np

from quantbench.datasets.rendering.ink import fitting_mask, random_face, random_word
from quantbench.datasets.rendering.paper import blank, photograph, print_on, to_jpeg

__all__ = ["draw"]

_GREY = 128  # nearest to 0 after (x/255 - 0.5)/0.5
_BORDER = 2


def draw(rng: np.random.Generator, height: int, width: int) -> tuple[bytes, str]:
    """A JPEG of (height, width) and the text on it.

    Tuned so that ppocr-rec reads about 97.5% of the lines without a mistake in FP32.
    """
    mask = None
    while mask is None:  # a text that is too long for the width is drawn anew
        text = random_word(rng)
        size = round(height * rng.uniform(0.4, 0.8))
        face, angle = random_face(rng), rng.uniform(-2.5, 2.5)
        mask = fitting_mask(text, face, size, angle, height - 2 * _BORDER, width - 2 * _BORDER)
    margins = rng.integers(_BORDER, 14, 2)
    paper = blank(rng, height, min(width, mask.shape[1] + int(margins.sum())))
    left = min(int(margins[0]), paper.shape[1] - mask.shape[1])
    top = int(rng.integers(_BORDER, height - mask.shape[0] - _BORDER + 1))
    print_on(paper, mask, left, top, rng.uniform(42, 150), rng)
    cut = photograph(paper, rng.uniform(0.2, 1.4), rng.uniform(0, 17), rng)
    filled = np.full((height, width, 3), _GREY, np.float32)
    filled[:, : cut.shape[1]] = cut
    return to_jpeg(filled, int(rng.integers(60, 96))), text
