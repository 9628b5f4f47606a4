"""kind = "pronunciation": words of a pronouncing dictionary; every pronunciation that it lists counts as right.

The format is that of the CMU Pronouncing Dictionary: `word PH ON EMES` a line, further pronunciations of the word as
`word(2)`, comments after `#`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.splitting import calibration_list, make_dataset, read_lines, split
from quantbench.errors import InputError, MissingError
from quantbench.references.builders.g2p_gru import GRAPHEMES, PHONEMES
from quantbench.references.schema import Reference
from quantbench.references.sources import fetch_data

__all__ = ["KEYS", "load", "read_pronunciations"]

KEYS = frozenset({"package", "member", "sha256", "path", "seed", "samples"})


def load(reference: Reference) -> Dataset:
    """A seeded sample of the words of letters a to z; ids are the words.

    Inputs are the ids of the letters and of the end mark, int64 (letters + 1). Truths are tuples of accepted
    pronunciations, phonemes joined by spaces. `prediction_space` is the table of phonemes by id.

    Raises:
        MissingError: the dictionary is not there and could not be fetched.
        InputError: a bad line (its number is given), or too few words.
    """
    pronunciations = read_pronunciations(_dictionary(reference))
    listed = calibration_list(reference, known=pronunciations)
    words = sorted(pronunciations)
    order = np.random.Generator(np.random.PCG64(reference.dataset.seed)).permutation(len(words))
    calibration, scored = split(reference, [words[position] for position in order], listed)
    token = {letter: number for number, letter in enumerate(GRAPHEMES)}

    def samples(ids: list[str]) -> LazySamples:
        return LazySamples(
            ids,
            lambda index: np.array([token[letter] for letter in (*ids[index], "</s>")], np.int64),
            lambda index: pronunciations[ids[index]],
        )

    return make_dataset(samples(calibration), samples(scored[: reference.dataset.samples]), PHONEMES)


def read_pronunciations(file: Path) -> dict[str, tuple[str, ...]]:
    """The pronunciations of each word that is all letters a to z, in the order of the file.

    Raises:
        InputError: a line has no phonemes.
    """
    found: dict[str, list[str]] = {}
    for number, line in read_lines(file):
        word, _, phonemes = line.partition("#")[0].strip().partition(" ")
        word = re.sub(r"\(\d+\)$", "", word)
        if word and not phonemes:
            raise InputError(f"{file}, line {number}: expected `word PHONEMES`, found {line[:80]!r}")
        if re.fullmatch("[a-z]+", word):
            found.setdefault(word, []).append(" ".join(phonemes.split()))
    return {word: tuple(listed) for word, listed in found.items()}


def _dictionary(reference: Reference) -> Path:
    if reference.dataset.path is not None:
        file = reference.folder / reference.dataset.path
        if not file.is_file():
            raise MissingError(f"the dictionary {file} is missing; put it there or correct {reference.file}")
        return file
    return fetch_data(reference)
