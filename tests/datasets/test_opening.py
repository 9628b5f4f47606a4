"""Which kind reads a reference's data, and the rules of calibration that all kinds share."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from quantbench.datasets import Dataset, open_dataset
from quantbench.errors import InputError, MissingError
from quantbench.references import load_reference


def open_npz(folder: Path, calibration: str = "", dataset: str = 'path = "data.npz"') -> Dataset:
    file = folder / "own.toml"
    file.write_text(
        f'name="own"\ntask="t"\nmodel.path="m.onnx"\nquality.metric="top1"\n'
        f'[dataset]\nkind = "npz"\n{dataset}\n[calibration]\n{calibration}'
    )
    return open_dataset(load_reference(file))


def save(folder: Path, count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3)
    y = np.arange(count, dtype=np.int16) * 2
    np.savez(folder / "data.npz", x=x, y=y)
    return x, y


def test_samples_as_they_are(tmp_path: Path) -> None:
    x, y = save(tmp_path)
    data = open_npz(tmp_path, "samples = 4")
    assert list(data.calibration.ids) == ["0", "1", "2", "3"] and list(data.scored.ids) == [
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
    ]
    assert len(data.calibration) == 4 and len(data.scored) == 6
    for index in range(6):
        assert np.array_equal(data.scored.input(index), x[4 + index]) and data.scored.input(index).dtype == np.uint8
        assert data.scored.truth(index) == y[4 + index] and type(data.scored.truth(index)) is int
    assert np.array_equal(data.calibration.input(3), x[3])
    assert data.calibration_sha256 == hashlib.sha256(b"0\n1\n2\n3\n").hexdigest()
    assert data.scored_sha256 == hashlib.sha256(b"4\n5\n6\n7\n8\n9\n").hexdigest()


def test_a_calibration_list_of_its_own(tmp_path: Path) -> None:
    x, _ = save(tmp_path)
    (tmp_path / "list.txt").write_text("7\n\n2\n5\n")
    data = open_npz(tmp_path, 'list = "list.txt"')
    assert list(data.calibration.ids) == ["7", "2", "5"]
    assert np.array_equal(data.calibration.input(0), x[7])
    assert list(data.scored.ids) == ["0", "1", "3", "4", "6", "8", "9"]
    data = open_npz(tmp_path, 'list = "list.txt"\nsamples = 1')
    assert list(data.calibration.ids) == ["7"]
    assert list(data.scored.ids) == ["0", "1", "3", "4", "6", "8", "9"]  # nothing in the list is scored


def test_too_few_samples(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(InputError, match="asks for 11 samples, but there are 10"):
        open_npz(tmp_path, "samples = 11")
    with pytest.raises(InputError, match="none is left to score"):
        open_npz(tmp_path, "samples = 10")
    with pytest.raises(InputError, match="asks for 100 samples"):
        open_npz(tmp_path)
    (tmp_path / "list.txt").write_text("7\n2\n")
    with pytest.raises(InputError, match="asks for 3 samples, but there are 2"):
        open_npz(tmp_path, 'list = "list.txt"\nsamples = 3')
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(InputError, match="empty"):
        open_npz(tmp_path, 'list = "list.txt"')
    with pytest.raises(MissingError, match=r"gone\.txt"):
        open_npz(tmp_path, 'list = "gone.txt"')
    (tmp_path / "list.txt").write_text("7\n10\n")
    with pytest.raises(InputError, match=r"list\.txt, line 2: .*'10'"):
        open_npz(tmp_path, 'list = "list.txt"')


def test_label_offset_and_labels_below_zero(tmp_path: Path) -> None:
    save(tmp_path)
    data = open_npz(tmp_path, "samples = 4", 'path = "data.npz"\nlabel_offset = 1')
    assert data.scored.truth(0) == 9
    with pytest.raises(InputError, match="sample 0 is below 0"):
        open_npz(tmp_path, "samples = 4", 'path = "data.npz"\nlabel_offset = -1')


def test_texts_as_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2)), y=np.array(["a", "bc", "d"]))
    (tmp_path / "own.toml").write_text(
        'name="own"\ntask="t"\nmodel.path="m.npz"\nmodel.builder="g2p-gru"\nquality.metric="exact-match"\n'
        'dataset.kind="npz"\ndataset.path="data.npz"\ncalibration.samples=1'
    )
    data = open_dataset(load_reference(tmp_path / "own.toml"))
    assert [data.scored.truth(index) for index in range(2)] == ["bc", "d"]


X, Y = np.zeros((5, 3), np.float32), np.zeros(5, np.int64)
BAD = {
    "no x": ({"y": Y}, "no array 'x'"),
    "no y": ({"x": X}, "no array 'y'"),
    "unequal": ({"x": X, "y": Y[:4]}, "x has 5 samples but y has 4"),
    "a single x": ({"x": np.float32(1), "y": Y}, "x has 0 samples but y has 5"),
    "real labels": ({"x": X, "y": Y.astype(np.float32)}, "float32"),
    "labels in two columns": ({"x": X, "y": np.zeros((5, 2), np.int64)}, r"\(5, 2\)"),
    "pickled": ({"x": np.array([object()] * 5), "y": Y}, "plain arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays(case: str, tmp_path: Path) -> None:
    arrays, words = BAD[case]
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=rf"data\.npz.*{words}"):
        open_npz(tmp_path, "samples = 1")


def test_no_npz_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"data\.npz"):
        open_npz(tmp_path, "samples = 1")
    save(tmp_path)
    data = (tmp_path / "data.npz").read_bytes()
    for cut in (0, 1, 30, len(data) // 2, len(data) - 1):
        (tmp_path / "data.npz").write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"data\.npz"):
            open_npz(tmp_path, "samples = 1")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(InputError, match=r"one\.npy"):
        open_npz(tmp_path, "samples = 1", 'path = "one.npy"')


def test_unknown_kind_and_keys_of_another_kind(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(InputError, match=r"dataset\.seed means nothing to the kind 'npz'.*label_offset, path"):
        open_npz(tmp_path, "samples = 1", 'path = "data.npz"\nseed = 3')
    with pytest.raises(InputError, match=r"needs the key dataset\.path"):
        open_npz(tmp_path, "samples = 1", "")
    file = tmp_path / "own.toml"
    file.write_text(file.read_text().replace('kind = "npz"', 'kind = "npy"'))
    with pytest.raises(InputError, match=r"'npy'; did you mean 'npz'.*coco, .*image-list, npz, .*rendered-text"):
        open_dataset(load_reference(file))
