"""Sentences and their translations as the reference implementation of GNMT keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.datasets import Dataset, open_dataset
from quantbench.errors import InputError, MissingError
from quantbench.references import load_reference

SOURCE = "a dog b@@ arks\nthe cat s@@ lee@@ ps\na cat\nthe dog\n"
TARGET = "ein H@@ und bel@@ lt\ndie Katze sch@@ läft\neine Katze\nder H@@ und\n"
ENGLISH = "<unk>\n<s>\n</s>\na\nthe\ndog\ncat\nb@@\narks\ns@@\nlee@@\nps\n"
GERMAN = "ein\nH@@\nund\nbel@@\nlt\n"


def folder(path: Path, **files: str | None) -> Path:
    contents = {"en": SOURCE, "de": TARGET, "en_words": ENGLISH, "de_words": GERMAN} | files
    for name, text in contents.items():
        if text is not None:
            (path / f"{name}.txt").write_text(text, encoding="utf-8")
    (path / "own.toml").write_text(
        'name="own"\ntask="translation"\nquality.metric="bleu"\nmodel.path="m.onnx"\n'
        '[dataset]\nkind="parallel-text"\npath="."\nsource="en.txt"\ntarget="de.txt"\n'
        'source_vocabulary="en_words.txt"\ntarget_vocabulary="de_words.txt"\n[calibration]\nsamples=1\n'
    )
    return path / "own.toml"


def opened(path: Path, **files: str | None) -> Dataset:
    return open_dataset(load_reference(str(folder(path, **files))))


def test_words_are_numbered_and_translations_joined(tmp_path: Path) -> None:
    data = opened(tmp_path)
    assert data.calibration.input(0).tolist() == [3, 5, 7, 8]
    assert [data.scored.input(k).tolist() for k in range(3)] == [[4, 6, 9, 10, 11], [3, 6], [4, 5]]
    assert [data.scored.truth(k) for k in range(3)] == ["die Katze schläft", "eine Katze", "der Hund"]
    assert list(data.scored.ids) == ["line-000002", "line-000003", "line-000004"]


def test_special_words_come_first_whether_the_file_has_them_or_not(tmp_path: Path) -> None:
    assert opened(tmp_path).prediction_space == ("<unk>", "<s>", "</s>", "ein", "H@@", "und", "bel@@", "lt")
    assert opened(tmp_path, de_words=f"<unk>\n<s>\n</s>\n{GERMAN}").prediction_space[3] == "ein"


def test_an_unknown_word_is_unk(tmp_path: Path) -> None:
    assert opened(tmp_path, en_words="a\nthe\n").scored.input(0).tolist() == [4, 0, 0, 0, 0]


def test_a_calibration_list_has_sentences_of_its_own(tmp_path: Path) -> None:
    file = folder(tmp_path)
    (tmp_path / "cal.txt").write_text("the cat ps\na dog\n")
    file.write_text(file.read_text().replace("samples=1", 'list="cal.txt"'))
    data = open_dataset(load_reference(str(file)))
    assert [data.calibration.input(k).tolist() for k in range(2)] == [[4, 6, 11], [3, 5]]
    assert len(data.scored) == 4  # no line of the test set is used up


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"de": "ein\nzwei\n"}, "en.txt has 4 lines but .*de.txt has 2"),
        ({"de": "ein\n\ndrei\nvier\n"}, "de.txt, line 2 is empty"),
        ({"de_words": "\n"}, "the vocabulary .*de_words.txt is empty"),
        ({"en": "a\n", "de": "ein\n"}, "all 1 sentences are for calibration"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        opened(tmp_path, **files)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"de_words\.txt is missing"):
        opened(tmp_path, de_words=None)
