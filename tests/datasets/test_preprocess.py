"""Each key of [preprocess] against Pillow or numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantbench.datasets.preprocess import read_image, to_input
from quantbench.errors import InputError
from quantbench.references.schema import Preprocess

PICTURE = np.random.default_rng(3).integers(0, 256, (12, 20, 3), np.uint8)  # blue, green, red


def test_the_order_of_colours(tmp_path: Path) -> None:
    Image.fromarray(np.ascontiguousarray(PICTURE[..., ::-1])).save(tmp_path / "p.png")
    image = read_image(tmp_path / "p.png")
    assert np.array_equal(image, PICTURE)
    assert np.array_equal(to_input(image, Preprocess(channels="BGR"), "NHWC", "p"), PICTURE)
    assert np.array_equal(to_input(image, Preprocess(), "NHWC", "p"), PICTURE[..., ::-1])
    first = to_input(image, Preprocess(), "NCHW", "p")
    assert np.array_equal(first, np.moveaxis(PICTURE[..., ::-1], 2, 0))
    assert first.dtype == np.uint8 and first.flags.c_contiguous


def test_a_grey_image_has_three_channels(tmp_path: Path) -> None:
    Image.fromarray(PICTURE[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), PICTURE[..., :1].repeat(3, axis=2))


def test_mean_and_std_follow_the_channels() -> None:
    """Red 10, green 20, blue 30: (10-1)/2, (20-2)/4, (30-3)/5."""
    pixel = np.array([[[30, 20, 10]]], np.uint8)
    both = to_input(pixel, Preprocess(mean=(1, 2, 3), std=(2, 4, 5)), "NCHW", "p")
    assert both.dtype == np.float32
    assert both.ravel().tolist() == np.array([4.5, 4.5, 5.4], np.float32).tolist()
    bgr = to_input(pixel, Preprocess(channels="BGR", mean=(1, 2, 3), std=(2, 4, 5)), "NHWC", "p")
    assert bgr.ravel().tolist() == np.array([14.5, 4.5, 1.4], np.float32).tolist()
    assert to_input(pixel, Preprocess(mean=(1, 2, 3)), "NCHW", "p").ravel().tolist() == [9, 18, 27]
    assert to_input(pixel, Preprocess(std=(2, 4, 5)), "NCHW", "p").ravel().tolist() == [5, 5, 6]


@pytest.mark.parametrize(("height", "width", "top", "left"), [(4, 4, 0, 0), (6, 4, 1, 0), (5, 8, 0, 2), (9, 7, 2, 1)])
def test_the_crop_is_the_centre(height: int, width: int, top: int, left: int) -> None:
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    cropped = to_input(image, Preprocess(crop=4, channels="BGR"), "NHWC", "p")
    assert np.array_equal(cropped, image[top : top + 4, left : left + 4])


def test_a_crop_larger_than_the_image() -> None:
    with pytest.raises(InputError, match="small one is 20x12, smaller than the crop of 13"):
        to_input(PICTURE, Preprocess(crop=13), "NCHW", "small one")


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (24, 24), (27, 50)])
def test_resize_keeps_the_proportion(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    resized = to_input(image, Preprocess(resize=12), "NHWC", "p")
    assert min(resized.shape[:2]) == 12
    assert max(resized.shape[:2]) == round(max(shape) * 12 / min(shape))


def test_area_is_the_mean_of_the_pixels() -> None:
    resized = to_input(PICTURE, Preprocess(resize=6, interpolation="area", channels="BGR"), "NHWC", "p")
    means = PICTURE.reshape(6, 2, 10, 2, 3).mean(axis=(1, 3))
    assert np.abs(resized - means).max() <= 0.5


def test_linear_and_cubic_when_enlarging_agree_with_pillow() -> None:
    """Enlarging, where Pillow's filters are the plain ones; its cubic has another parameter (-0.5, not -0.75)."""
    smooth = np.asarray(Image.fromarray(PICTURE).resize((20, 12)).resize((10, 6)).resize((20, 12)))
    for name, filtered, near in [
        ("linear", Image.Resampling.BILINEAR, 1.0),
        ("cubic", Image.Resampling.BICUBIC, 16.0),
    ]:
        asked = Preprocess(resize=24, interpolation=name, channels="BGR")  # type: ignore[arg-type]
        resized = to_input(smooth, asked, "NHWC", "p").astype(int)
        expected = np.asarray(Image.fromarray(smooth).resize((40, 24), filtered)).astype(int)
        assert np.abs(resized - expected).max() <= near
    linear, cubic, area = (
        to_input(PICTURE, Preprocess(resize=9, interpolation=name), "NHWC", "p")  # type: ignore[arg-type]
        for name in ("linear", "cubic", "area")
    )
    assert not np.array_equal(linear, cubic) and not np.array_equal(linear, area)
