"""A pronouncing dictionary small enough to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.datasets import Dataset, open_dataset
from quantbench.datasets.kinds.pronunciation import read_pronunciations
from quantbench.errors import InputError, MissingError
from quantbench.references import load_reference

DICTIONARY = """\
'bout B AW1 T
a AH0
a(2) EY1
aalborg AO1 L B AO0 R G # place, danish
aalborg(2)  AA1 L B AO0 R G
a.d. EY2 D IY1
bee B IY1
cab K AE1 B
dab D AE1 B
# only a comment
zed Z EH1 D
"""
WORDS = {"a", "aalborg", "bee", "cab", "dab", "zed"}


def open_words(folder: Path, dataset: str = "", calibration: str = "samples = 2") -> Dataset:
    (folder / "words.dict").write_text(DICTIONARY)
    file = folder / "own.toml"
    file.write_text(
        f'name="own"\ntask="t"\nmodel.path="m.onnx"\nquality.metric="word-accuracy"\n'
        f'[dataset]\nkind = "pronunciation"\npath = "words.dict"\n{dataset}\n[calibration]\n{calibration}'
    )
    return open_dataset(load_reference(file))


def test_every_listed_pronunciation_counts(tmp_path: Path) -> None:
    (tmp_path / "words.dict").write_text(DICTIONARY)
    found = read_pronunciations(tmp_path / "words.dict")
    assert set(found) == WORDS
    assert found["a"] == ("AH0", "EY1")
    assert found["aalborg"] == ("AO1 L B AO0 R G", "AA1 L B AO0 R G")
    assert found["zed"] == ("Z EH1 D",)


def test_samples(tmp_path: Path) -> None:
    data = open_words(tmp_path)
    assert set(data.calibration.ids) | set(data.scored.ids) == WORDS
    assert (len(data.calibration), len(data.scored)) == (2, 4)
    for part in (data.calibration, data.scored):
        for index, word in enumerate(part.ids):
            tokens = part.input(index)
            assert tokens.dtype == "int64"
            # graphemes: <pad> <unk> </s> a b c …
            assert tokens.tolist() == [3 + ord(letter) - ord("a") for letter in word] + [2]
            assert isinstance(part.truth(index), tuple)
    assert len(data.prediction_space) == 74


def test_the_order_is_the_seed_s(tmp_path: Path) -> None:
    orders = [tuple(open_words(tmp_path, f"seed = {seed}").scored.ids) for seed in (0, 1, 2, 3)]
    assert len(set(orders)) > 1
    assert tuple(open_words(tmp_path, "seed = 2").scored.ids) == orders[2]
    assert tuple(open_words(tmp_path, "seed = 2\nsamples = 3").scored.ids) == orders[2][:3]


def test_a_calibration_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("zed\nbee\n")
    data = open_words(tmp_path, calibration='list = "list.txt"')
    assert list(data.calibration.ids) == ["zed", "bee"]
    assert set(data.scored.ids) == WORDS - {"zed", "bee"}
    (tmp_path / "list.txt").write_text("zed\nzedd\n")
    with pytest.raises(InputError, match="'zedd'"):
        open_words(tmp_path, calibration='list = "list.txt"')


def test_bad_dictionaries(tmp_path: Path) -> None:
    (tmp_path / "words.dict").write_text("bee B IY1\ncab\n")
    with pytest.raises(InputError, match=r"words\.dict, line 2: .*'cab'"):
        read_pronunciations(tmp_path / "words.dict")
    open_words(tmp_path)
    (tmp_path / "words.dict").unlink()
    with pytest.raises(MissingError, match=r"words\.dict"):
        open_dataset(load_reference(tmp_path / "own.toml"))
