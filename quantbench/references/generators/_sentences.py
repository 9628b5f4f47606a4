"""Sentences for translators without text: word ids drawn from a seed, the frequent ones first.

As in `_scenes.py`, each sentence is a variation of one of a few motifs, whose translations a drawn translator can have
learnt. Of any other sentence it would hardly prefer one translation to another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHORTEST", "SPECIAL", "draw_sentence", "training_sentences"]

Array = NDArray[Any]

SPECIAL = ("<unk>", "<s>", "</s>")
"""The first words of every vocabulary."""
SHORTEST = 3

_MOTIFS = 24
_MOTIF_STREAM = 0x5E47E  # motifs are the same whatever the seed of the sentences
_TRAINING_STREAM = 0x7EAC5
_VARIATION = (0.05, 0.3)  # the share of words that are not the motif's


def draw_sentence(rng: np.random.Generator, words: int, longest: int) -> Array:
    """A variation of some motif, 3 to `longest` ids below `words`, int64."""
    return _variation(rng, _motif(int(rng.integers(_MOTIFS)), words, longest), words)


def training_sentences(count: int, words: int, longest: int) -> list[Array]:
    """Variations of each motif to learn from, (count, length) each; no data set has them."""
    rng = np.random.Generator(np.random.PCG64(_TRAINING_STREAM))
    motifs = [_motif(number, words, longest) for number in range(_MOTIFS)]
    return [np.stack([_variation(rng, motif, words) for _ in range(count)]) for motif in motifs]


def _motif(number: int, words: int, longest: int) -> Array:
    rng = np.random.Generator(np.random.PCG64([_MOTIF_STREAM, number]))
    return _words(rng, int(rng.integers(SHORTEST, longest, endpoint=True)), words)


def _variation(rng: np.random.Generator, motif: Array, words: int) -> Array:
    other = rng.random(len(motif)) < rng.uniform(*_VARIATION)
    return np.where(other, _words(rng, len(motif), words), motif)


def _words(rng: np.random.Generator, count: int, words: int) -> Array:
    """Zipf's law: the logarithm of a word's rank is spread evenly."""
    ranks = np.exp(rng.uniform(0, np.log(words - len(SPECIAL)), count)).astype(np.int64) - 1
    return np.asarray(ranks + len(SPECIAL))
