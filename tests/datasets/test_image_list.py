"""Folders of images with a list, and the sample of ImageNet where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantbench.datasets import Dataset, open_dataset
from quantbench.errors import InputError, MissingError
from quantbench.references import load_reference

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images, each of one colour, and a list."""
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["a.png", "b.png", "c d.png", "e.png", "f.png", "g.png"]
    for index, name in enumerate(names):
        Image.new("RGB", (8, 6), (index, 100, 200)).save(folder / name)
    (folder / "list.txt").write_text("".join(f"{name} {index * 10}\n" for index, name in enumerate(names)))
    return folder


def open_list(images: Path, calibration: str = "samples = 2", dataset: str = "") -> Dataset:
    file = images.parent / "own.toml"
    file.write_text(
        f'name="own"\ntask="t"\nmodel.path="m.onnx"\nquality.metric="top1"\n'
        f'[dataset]\nkind = "image-list"\npath = "images"\nlist = "list.txt"\n{dataset}\n[calibration]\n{calibration}'
    )
    return open_dataset(load_reference(file))


def test_the_first_calibrate_and_the_rest_are_scored(images: Path) -> None:
    data = open_list(images)
    assert list(data.calibration.ids) == ["a.png", "b.png"]
    assert list(data.scored.ids) == ["c d.png", "e.png", "f.png", "g.png"]
    assert [data.scored.truth(index) for index in range(4)] == [20, 30, 40, 50]
    assert data.scored.input(0).shape == (3, 6, 8) and data.scored.input(0).dtype == np.uint8
    assert data.scored.input(0)[:, 0, 0].tolist() == [2, 100, 200]


def test_an_image_that_calibrates_is_never_scored(images: Path) -> None:
    (images / "list.txt").write_text("a.png 1\nb.png 2\nc d.png 3\na.png 1\nc d.png 3\n")
    assert list(open_list(images).scored.ids) == ["c d.png", "c d.png"]


@pytest.mark.parametrize("lines", ["g.png\nc d.png\n", "g.png 50\nc d.png 20\n"], ids=["names", "names and labels"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_calibration_list_of_its_own(lines: str, beside: bool, images: Path) -> None:
    (images.parent if beside else images).joinpath("calibration.txt").write_text(lines)
    data = open_list(images, 'list = "calibration.txt"')
    assert list(data.calibration.ids) == ["g.png", "c d.png"]
    assert list(data.scored.ids) == ["a.png", "b.png", "e.png", "f.png"]
    assert [data.scored.truth(index) for index in range(4)] == [0, 10, 30, 40]


def test_calibration_images_outside_the_list_need_no_label(images: Path) -> None:
    Image.new("RGB", (8, 6)).save(images / "extra.png")
    (images / "calibration.txt").write_text("extra.png\n")
    data = open_list(images, 'list = "calibration.txt"')
    assert len(data.scored) == 6 and data.calibration.truth(0) == -1 and data.calibration.input(0).max() == 0


def test_label_offset(images: Path) -> None:
    assert open_list(images, dataset="label_offset = 1").scored.truth(0) == 21
    with pytest.raises(InputError, match=r"list\.txt, line 1: the label -1"):
        open_list(images, dataset="label_offset = -1")


@pytest.mark.parametrize(
    "line", ["a.png", "a.png one", "a.png 1.5", "a.png -1", "a.png ²", "12", "b.png 3"], ids=lambda line: line
)
def test_a_bad_line_is_named(line: str, images: Path) -> None:
    (images / "list.txt").write_text(f"b.png 2\n\nc d.png 3\n{line}\n")
    with pytest.raises(InputError, match=r"list\.txt, line 4: "):
        open_list(images)


def test_missing_files(images: Path) -> None:
    with (images / "list.txt").open("a") as file:
        file.write("gone.png 1\nlost.png 2\n")
    with pytest.raises(MissingError, match=r"gone\.png and 1 more is missing") as caught:
        open_list(images)
    assert caught.value.status == 3
    (images / "list.txt").unlink()
    with pytest.raises(MissingError, match=r"list\.txt"):
        open_list(images)
    images.rename(images.with_name("elsewhere"))
    with pytest.raises(MissingError, match="images"):
        open_list(images)


def test_an_image_that_vanishes_or_is_none(images: Path) -> None:
    data = open_list(images)
    (images / "e.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"e\.png cannot be decoded"):
        data.scored.input(1)
    (images / "e.png").unlink()
    with pytest.raises(MissingError, match=r"e\.png"):
        data.scored.input(1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared test data is not there")
def test_the_imagenet_sample() -> None:
    data = open_dataset(load_reference(SHARED / "efficientnet_lite0.toml"))
    assert (len(data.calibration), len(data.scored)) == (100, 400)
    assert not set(data.calibration.ids) & set(data.scored.ids)
    image = data.scored.input(0)
    assert image.shape == (3, 224, 224) and image.dtype == np.float32
    with Image.open(SHARED / "imagenet_sample" / data.scored.ids[0]) as picture:
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        pixels = np.asarray(picture.convert("RGB").crop((left, top, left + 224, top + 224)), np.float64)
    expected = ((pixels - 127) / 128).transpose(2, 0, 1)
    assert np.abs(image - expected).max() < 4 / 128  # two JPEG decoders differ by a few grey values
    assert np.abs(image - expected).mean() < 0.5 / 128
