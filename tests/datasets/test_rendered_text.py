"""Rendered pictures: reproducible, apart, exactly labelled."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from quantbench.datasets import Dataset, open_dataset
from quantbench.datasets.rendering import line, page, upside_down
from quantbench.errors import InputError
from quantbench.references import load_reference

CONTENTS = ("line", "page", "upside-down")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def open_rendered(folder: Path, content: str, samples: int = 4, calibration: int = 3, more: str = "") -> Dataset:
    height, width = (96, 256) if content == "page" else (48, 224)
    file = folder / "own.toml"
    file.write_text(
        'name="own"\ntask="t"\nmodel.path="m.npz"\nmodel.builder="g2p-gru"\nquality.metric="top1"\n'
        f'[dataset]\nkind="rendered-text"\ncontent="{content}"\nheight={height}\nwidth={width}\nsamples={samples}\n{more}\n'
        f"[calibration]\nsamples={calibration}"
    )
    return open_dataset(load_reference(file))


def stream(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_sample_is_the_same_whatever_the_count(content: str, tmp_path: Path, cache: Path) -> None:
    few, many = open_rendered(tmp_path, content), open_rendered(tmp_path, content, samples=7, calibration=5)
    assert list(many.scored.ids[:4]) == list(few.scored.ids)
    for index in range(4):
        assert np.array_equal(few.scored.input(index), many.scored.input(index))
        assert np.array_equal(few.scored.truth(index), many.scored.truth(index))
    assert len(list(cache.rglob("*.npz"))) == 2  # the scored parts; nothing asked for the calibration samples


@pytest.mark.parametrize("content", CONTENTS)
def test_no_two_pictures_are_the_same(content: str, tmp_path: Path) -> None:
    data, other = open_rendered(tmp_path, content), open_rendered(tmp_path, content, more="seed = 1")
    parts = [data.calibration, data.scored, other.calibration, other.scored]
    pictures = {part.input(index).tobytes() for part in parts for index in range(len(part))}
    ids = {name for part in parts for name in part.ids}
    assert len(pictures) == len(ids) == 14


def test_the_cache_gives_what_was_drawn_and_repairs_itself(tmp_path: Path, cache: Path) -> None:
    drawn = open_rendered(tmp_path, "page").scored
    expected = [(drawn.input(index), drawn.truth(index)) for index in range(4)]
    (file,) = cache.rglob("*.npz")
    whole = file.read_bytes()
    for data in (whole, whole[: len(whole) // 2], b""):
        file.write_bytes(data)
        again = open_rendered(tmp_path, "page").scored
        for index, (picture, boxes) in enumerate(expected):
            assert np.array_equal(again.input(index), picture)
            assert np.array_equal(again.truth(index), boxes) and again.truth(index).dtype == np.float32
    assert file.read_bytes() == whole


def test_shapes_and_truths(tmp_path: Path) -> None:
    read = open_rendered(tmp_path, "line").scored
    assert read.input(0).shape == (3, 48, 224) and read.input(0).dtype == np.uint8
    assert all(isinstance(read.truth(index), str) and read.truth(index) for index in range(4))
    turned = open_rendered(tmp_path, "upside-down", samples=20).scored
    assert {turned.truth(index) for index in range(20)} == {0, 1}
    boxes = open_rendered(tmp_path, "page").scored.truth(0)
    assert boxes.dtype == np.float32 and boxes.shape[1] == 4 and len(boxes) >= 3


@pytest.fixture
def bare_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Black paper, white ink, no camera; `to_jpeg` hands over the picture itself."""

    def imprint(paper: np.ndarray, mask: np.ndarray, left: int, top: int, *_: object) -> None:
        paper[top : top + mask.shape[0], left : left + mask.shape[1]] += mask[..., None]

    monkeypatch.setattr(page, "blank", lambda _, height, width: np.zeros((height, width, 3), np.float32))
    monkeypatch.setattr(page, "print_on", imprint)
    monkeypatch.setattr(page, "photograph", lambda picture, *_: picture)
    monkeypatch.setattr(page, "to_jpeg", lambda picture, quality: picture)


@pytest.mark.usefixtures("bare_ink")
@pytest.mark.parametrize("number", range(5))
def test_boxes_are_exactly_around_the_ink(number: int) -> None:
    picture, boxes = page.draw(stream(number), 320, 480)
    ink = np.asarray(picture)[..., 0]
    assert ink.shape == (320, 480)
    covered = np.zeros_like(ink, bool)
    for x1, y1, x2, y2 in boxes:
        inside = ink[y1:y2, x1:x2] > 0.24
        for border in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert border.any()  # a box one pixel smaller would cut ink off
        assert not covered[y1:y2, x1:x2].any()  # words do not overlap
        covered[y1:y2, x1:x2] = True
    assert not (ink[~covered] > 0).any()
    assert 4 <= len(boxes) <= 12


def test_upside_down_is_a_half_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same stream, with the class forced: one picture is the other turned by 180 degrees."""
    monkeypatch.setattr(upside_down, "to_jpeg", lambda picture, quality: picture.copy())

    class Forced:
        """A generator whose last draw of a class is decided here."""

        def __init__(self, label: int) -> None:
            self.rng, self.label = np.random.default_rng(9), label

        def integers(self, low: int, *rest: object) -> object:
            drawn = self.rng.integers(low, *rest)  # type: ignore[call-overload]
            return self.label if low == 2 and not rest else drawn

        def __getattr__(self, name: str) -> object:
            return getattr(self.rng, name)

    upright, zero = upside_down.draw(Forced(0), 48, 192)  # type: ignore[arg-type]
    turned, one = upside_down.draw(Forced(1), 48, 192)  # type: ignore[arg-type]
    assert (zero, one) == (0, 1)
    assert np.array_equal(np.rot90(np.asarray(upright), 2), turned)


def test_pictures_are_jpegs_of_the_size_asked() -> None:
    for draw in (line.draw, page.draw, upside_down.draw):
        data, _ = draw(stream(1), 64, 320)
        assert data[:3] == b"\xff\xd8\xff"
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (64, 320, 3)


def test_what_lies_right_of_a_line_is_grey() -> None:
    """(128/255 - 0.5)/0.5 is nearest to the 0 that PP-OCR pads with."""
    for number in range(20):
        data, text = line.draw(stream(number), 48, 320)
        if len(text) <= 4:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            assert (picture[:, -64:] == 128).all()
            return
    raise AssertionError("no short text among twenty")


@pytest.mark.parametrize("key", ["content", "height", "width"])
def test_needed_keys(key: str, tmp_path: Path) -> None:
    open_rendered(tmp_path, "line")
    file = tmp_path / "own.toml"
    file.write_text("\n".join(text for text in file.read_text().splitlines() if not text.startswith(key)))
    with pytest.raises(InputError, match=rf"needs the key dataset\.{key}"):
        open_dataset(load_reference(file))


def test_unknown_content_and_a_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'lines'.*did you mean 'line'.*line, page, upside-down"):
        open_rendered(tmp_path, "lines")
    open_rendered(tmp_path, "line")
    with (tmp_path / "own.toml").open("a") as file:
        file.write('\nlist = "calibration.txt"\n')
    with pytest.raises(InputError, match="not a list"):
        open_dataset(load_reference(tmp_path / "own.toml"))
