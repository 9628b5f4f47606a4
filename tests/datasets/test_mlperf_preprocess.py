"""The inputs of the MLPerf image models, value by value, against the steps computed here with numpy alone.

The steps are those of MLPerf Inference's reference implementation; the interpolations are OpenCV's, by their
definition: each axis is a matrix of weights, and 8-bit images are interpolated with weights of 11 bits.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from quantbench.datasets.preprocess import read_image, to_input
from quantbench.references import load_reference

SIZES = [(375, 500), (500, 375), (480, 640), (427, 640), (640, 427), (300, 299)]  # height, width


def picture(height: int, width: int) -> np.ndarray:
    """Waves, edges and noise, red, green, blue."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = np.stack([np.sin(x / 17), np.cos(y / 11), np.sin((x + y) / 29)], axis=-1) * 90 + 128
    waves[(x // 40 + y // 30) % 2 == 0] *= 0.6
    noise = np.random.default_rng(height * 1000 + width).normal(0, 12, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def image(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A file without loss, and its pixels in the order red, green, blue."""
    pixels = picture(*request.param)
    cv2.imwrite(str(tmp_path / "p.png"), pixels[..., ::-1])
    return tmp_path / "p.png", pixels


def prepared(name: str, file: Path) -> np.ndarray:
    reference = load_reference(name)
    return to_input(read_image(file), reference.preprocess, reference.model.layout, file.name)


def area_weights(source: int, size: int) -> np.ndarray:
    """(size, source): how much of each source pixel lies under each pixel of the result."""
    scale = source / size
    edges = np.arange(size + 1)[:, None] * scale
    pixel = np.arange(source)[None]
    return np.clip(np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel), 0, None) / scale


def linear_weights(source: int, size: int, places: type) -> tuple[np.ndarray, np.ndarray]:
    """The left neighbour of each pixel of the result, and the weight of the right one; edges repeat.

    OpenCV keeps the places in double precision for float images, in single precision for 8-bit ones.
    """
    place = ((np.arange(size) + 0.5) * (source / size) - 0.5).astype(places)
    left = np.floor(place).astype(int)
    right = (place - left).astype(np.float32)
    right[(left < 0) | (left >= source - 1)] = 0
    return np.clip(left, 0, source - 1), right


def resized_by_area(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = area_weights(pixels.shape[0], height), area_weights(pixels.shape[1], width)
    return np.einsum("ij,jkc,lk->ilc", rows, pixels.astype(np.float64), columns, optimize=True)


def resized_linearly(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """In the exact real numbers of the float32 weights."""
    top, down = linear_weights(pixels.shape[0], height, np.float64)
    left, over = linear_weights(pixels.shape[1], width, np.float64)
    values = pixels.astype(np.float64)
    below, right = np.minimum(top + 1, len(values) - 1), np.minimum(left + 1, values.shape[1] - 1)
    over, down = over[None, :, None].astype(np.float64), down[:, None, None].astype(np.float64)
    across = values[:, left] * (1 - over) + values[:, right] * over
    return across[top] * (1 - down) + across[below] * down


def resized_linearly_in_integers(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """As OpenCV interpolates 8-bit images: weights of 11 bits, four bits dropped after the first axis."""
    top, down = linear_weights(pixels.shape[0], height, np.float32)
    left, over = linear_weights(pixels.shape[1], width, np.float32)
    values = pixels.astype(np.int64)
    below, right = np.minimum(top + 1, len(values) - 1), np.minimum(left + 1, values.shape[1] - 1)
    over, over_rest = (np.rint(weight * 2048).astype(np.int64)[None, :, None] for weight in (over, 1 - over))
    down, down_rest = (np.rint(weight * 2048).astype(np.int64)[:, None, None] for weight in (down, 1 - down))
    across = values[:, left] * over_rest + values[:, right] * over
    return ((down_rest * (across[top] >> 4) >> 16) + (down * (across[below] >> 4) >> 16) + 2) >> 2


def cropped_sizes(pixels: np.ndarray) -> tuple[int, int]:
    """87.5% of the result is the crop: the shorter side becomes 256, the longer in proportion, cut off."""
    height, width = pixels.shape[:2]
    return (int(256 * height / width), 256) if height > width else (256, int(256 * width / height))


def centre(values: np.ndarray) -> np.ndarray:
    top, left = int((values.shape[0] - 224) / 2), int((values.shape[1] - 224) / 2)
    return values[top : top + 224, left : left + 224]


def assert_rounded(found: np.ndarray, exact: np.ndarray, slack: float) -> None:
    """`found` are integers, each the nearest to `exact`, give or take `slack` where a half is near."""
    assert np.array_equal(found, np.round(found))
    assert np.abs(found - exact).max() <= 0.5 + slack


def test_resnet50(image: tuple[Path, np.ndarray]) -> None:
    file, pixels = image
    exact = centre(resized_by_area(pixels, *cropped_sizes(pixels)))
    found = prepared("resnet50", file)
    assert found.shape == (3, 224, 224) and found.dtype == np.float32
    mean = np.array([123.68, 116.78, 103.94], np.float32)
    levels = np.round(found.transpose(1, 2, 0) + mean)
    assert_rounded(levels, exact, 1e-3)
    assert np.array_equal(found, (levels.astype(np.float32) - mean).transpose(2, 0, 1))


def test_mobilenet(image: tuple[Path, np.ndarray]) -> None:
    file, pixels = image
    expected = centre(resized_linearly_in_integers(pixels, *cropped_sizes(pixels))).astype(np.float32)
    found = prepared("mobilenet", file)
    assert found.shape == (3, 224, 224) and found.dtype == np.float32
    expected /= 255.0
    expected -= 0.5
    expected *= 2
    assert np.array_equal(found, expected.transpose(2, 0, 1))


def test_ssd_mobilenet(image: tuple[Path, np.ndarray]) -> None:
    file, pixels = image
    exact = resized_linearly(pixels, 300, 300)
    found = prepared("ssd-mobilenet", file)
    assert found.shape == (300, 300, 3) and found.dtype == np.uint8
    whole = np.abs(exact - np.round(exact)) < 1e-4  # float32 may fall on either side of a whole number
    assert np.array_equal(found[~whole], np.floor(exact[~whole]).astype(np.uint8))
    assert np.abs(found[whole].astype(int) - np.round(exact[whole])).max(initial=0) <= 1


def test_ssd_resnet34(image: tuple[Path, np.ndarray]) -> None:
    file, pixels = image
    exact = resized_linearly(pixels, 1200, 1200)
    found = prepared("ssd-resnet34", file)
    assert found.shape == (3, 1200, 1200) and found.dtype == np.float32
    expected = (exact / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-6, rtol=0)
