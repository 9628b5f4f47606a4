"""Text as a mask of ink: the words, the faces, and one text drawn and turned."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["fitting_mask", "ink_mask", "random_code", "random_face", "random_word"]

Array = NDArray[Any]

# The DejaVu faces that matplotlib ships: three families, two weights, upright and slanted.
_UPRIGHT = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
)
_SLANTED = (
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSerif-Italic.ttf",
)
_ONSETS: tuple[str, ...] = (
    "b",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "qu",
    "r",
)
_ONSETS += ("s", "sh", "sp", "st", "t", "th", "tr", "v", "w", "y", "z")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "io", "oo", "ou")
_CODAS = ("", "", "", "b", "ck", "d", "g", "l", "m", "n", "nd", "ng", "p", "r", "rd", "s", "st", "t", "x")


def random_word(rng: np.random.Generator) -> str:
    """A pronounceable word in lower case, capitalised or in capitals, or a number."""
    return _number(rng) if rng.random() < 0.2 else _word(rng)


def random_code(rng: np.random.Generator) -> str:
    """A short word and a number, e.g. `BRAND 0421`, `77-Stea`: some ten characters."""
    word = _word(rng)[:6]
    while len(word) < 3:
        word = _word(rng)[:6]
    number = "".join(str(digit) for digit in rng.integers(0, 10, rng.integers(3, 5)))
    return (f"{word.upper()} {number}", f"{number}-{word.upper()[:4]}", f"{number} {word.capitalize()}")[
        rng.integers(3)
    ]


def random_face(rng: np.random.Generator, slanted: bool = True) -> str:
    """The name of one of the faces."""
    return _pick(rng, _UPRIGHT + _SLANTED if slanted else _UPRIGHT)


def fitting_mask(text: str, face: str, size: int, angle: float, height: int, width: int) -> Array | None:
    """`ink_mask` at the largest size, from `size` down, that fits; None when the text does not fit at 16 pixels."""
    widest = int(size * width / _font(face, size).getlength(text)) + 2  # larger ones need not be drawn to see
    for smaller in range(min(size, widest), 15, -1):
        mask = ink_mask(text, face, smaller, angle)
        if mask.shape[0] <= height and mask.shape[1] <= width:
            return mask
    return None


def ink_mask(text: str, face: str, size: int, angle: float) -> Array:
    """A text as coverage by ink, cropped to the ink.

    Args:
        face: a name from `random_face`.
        size: of the font, in pixels.
        angle: in degrees, counter-clockwise.

    Returns:
        float32 (height, width) in 0..1; each border row and column has some ink.
    """
    font = _font(face, size)
    left, top, right, bottom = font.getbbox(text)
    mask = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(mask).text((2 - left, 2 - top), text, fill=255, font=font)
    if angle:
        mask = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    box = mask.point(lambda value: 255 if value >= 64 else 0).getbbox()
    return np.asarray(mask.crop(box), np.float32) / 255


@functools.cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_faces() / face), size)


@functools.cache
def _faces() -> Path:
    """Where matplotlib keeps its faces, found without importing it, which takes a tenth of a second."""
    package = find_spec("matplotlib")
    assert package is not None and package.origin is not None  # a dependency
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"


def _word(rng: np.random.Generator) -> str:
    syllables = rng.integers(1, 4)
    word = "".join(_pick(rng, part) for _ in range(syllables) for part in (_ONSETS, _VOWELS, _CODAS))
    match rng.integers(6):
        case 0:
            return word.upper()
        case 1 | 2:
            return word.capitalize()
    return word


def _number(rng: np.random.Generator) -> str:
    digits = "".join(str(digit) for digit in rng.integers(0, 10, rng.integers(2, 6)))
    match rng.integers(4):
        case 0:
            return f"{digits}.{rng.integers(10)}"
        case 1:
            return f"{digits}%"
    return digits


def _pick(rng: np.random.Generator, parts: tuple[str, ...]) -> str:
    return parts[rng.integers(len(parts))]
