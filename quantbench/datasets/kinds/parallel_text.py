"""kind = "parallel-text": sentences in two languages, one a line, split into words of two vocabularies by spaces.

The conventions are those of the reference implementation of GNMT: subwords end in `@@` where the word goes on; words
that the vocabulary does not have are `<unk>`; vocabularies, one word a line, begin with <unk>, <s> and </s>, which
are put in front of those that do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.splitting import DEFAULT_CALIBRATION, calibration_list, make_dataset, read_lines
from quantbench.errors import InputError, MissingError
from quantbench.references import Reference, data_folder

__all__ = ["KEYS", "load"]

KEYS = frozenset({"path", "variable", "source", "target", "source_vocabulary", "target_vocabulary"})

Array = NDArray[Any]

_SPECIAL = ("<unk>", "<s>", "</s>")


def load(reference: Reference) -> Dataset:
    """Inputs are the ids of a sentence's words, int64; truths the translation with its subwords joined; ids are
    `line-000001` and so on.

    A calibration list holds sentences of the source language; without one, the first `samples` lines calibrate and are
    not scored. `prediction_space` is the target vocabulary.

    Raises:
        MissingError: a file is not there.
        InputError: an empty vocabulary or sentence, files of unequal length, or too few samples.
    """
    folder = data_folder(reference)
    files = {
        key: _file(reference, folder, key) for key in ("source", "target", "source_vocabulary", "target_vocabulary")
    }
    source, target = _sentences(files["source"]), _sentences(files["target"])
    if len(source) != len(target):
        raise InputError(
            f"{files['source']} has {len(source)} lines but {files['target']} has {len(target)}; "
            "a line and its translation must stand at the same place"
        )
    numbers = {word: number for number, word in enumerate(_vocabulary(files["source_vocabulary"]))}
    count = reference.calibration.samples
    listed = calibration_list(reference, folder)
    first = 0
    if listed is None:
        first = count = count or DEFAULT_CALIBRATION
        listed = source[:count]
    if (count is not None and len(listed) < count) or not listed:
        raise InputError(
            f"{reference.file}: the calibration asks for {count} sentences, but there are {len(listed)}; "
            "lower [calibration] samples or give more data"
        )
    if first >= len(source):
        raise InputError(f"{reference.file}: all {len(source)} sentences are for calibration and none is left to score")
    name = "line" if first else "calibration-line"
    return make_dataset(
        _samples([f"{name}-{k:06d}" for k in range(1, len(listed[:count]) + 1)], listed[:count], None, numbers),
        _samples([f"line-{k:06d}" for k in range(first + 1, len(source) + 1)], source[first:], target[first:], numbers),
        tuple(_vocabulary(files["target_vocabulary"])),
    )


def _samples(ids: list[str], source: list[str], target: list[str] | None, numbers: dict[str, int]) -> LazySamples:
    def load_input(index: int) -> Array:
        return np.array([numbers.get(word, 0) for word in source[index].split()], np.int64)

    def load_truth(index: int) -> str | None:
        return None if target is None else f"{target[index]} ".replace("@@ ", "").strip()

    return LazySamples(ids, load_input, load_truth)


def _file(reference: Reference, folder: Path, key: str) -> Path:
    name = getattr(reference.dataset, key)
    if name is None:
        raise InputError(f"{reference.file}: the kind 'parallel-text' needs the key dataset.{key}")
    file = folder / str(name)
    if not file.is_file():
        raise MissingError(f"the file {file} is missing; put it there or correct {key} in {reference.file}")
    return file


def _sentences(file: Path) -> list[str]:
    """The lines of a file, of which none may be empty."""
    lines = read_lines(file)
    for place, (number, _) in enumerate(lines, 1):
        if number != place:
            raise InputError(f"{file}, line {place} is empty; a line and its translation must stand at the same place")
    return [line for _, line in lines]


def _vocabulary(file: Path) -> list[str]:
    words = [line for _, line in read_lines(file)]
    if not words:
        raise InputError(f"the vocabulary {file} is empty")
    return words if tuple(words[:3]) == _SPECIAL else [*_SPECIAL, *words]
