"""kind = "generated-sentences": word ids drawn from a seed, for translators without data; the truths are the FP32
model's own.

Each sample has a random stream of its own, as in `generated_images.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.splitting import DEFAULT_CALIBRATION, make_dataset
from quantbench.errors import InputError
from quantbench.references import Reference
from quantbench.references.generators._sentences import SHORTEST, SPECIAL, draw_sentence

__all__ = ["KEYS", "load"]

KEYS = frozenset({"seed", "samples", "words", "longest"})

Array = NDArray[Any]

_PARTS = ("calibration", "scored")  # the position is part of each sample's seed
_DEFAULT_SAMPLES = 200


def load(reference: Reference) -> Dataset:
    """Variations of motifs of 3 to `longest` words, int64 ids below `words`, frequent ones first.

    `prediction_space` is a vocabulary of `words` made-up words behind <unk>, <s> and </s>. Ids name seed, part and
    number.

    Raises:
        InputError: `words` or `longest` is absent or too small, or a calibration list is given.
    """
    data = reference.dataset
    for key, least in (("words", len(SPECIAL) + 1), ("longest", SHORTEST)):
        if (getattr(data, key) or 0) < least:
            raise InputError(f"{reference.file}: the kind 'generated-sentences' needs dataset.{key}, at least {least}")
    if reference.calibration.list is not None:
        raise InputError(f"{reference.file}: the kind 'generated-sentences' takes [calibration] samples, not a list")
    counts = (reference.calibration.samples or DEFAULT_CALIBRATION, data.samples or _DEFAULT_SAMPLES)
    calibration, scored = (_samples(reference, part, count) for part, count in zip(_PARTS, counts, strict=True))
    vocabulary = (*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), data.words or 0)))
    return make_dataset(calibration, scored, vocabulary, labelled=False)


def _samples(reference: Reference, part: str, count: int) -> LazySamples:
    data = reference.dataset
    words, longest = data.words or 0, data.longest or 0
    ids = [f"sentence-{data.seed}-{part}-{words}-{longest}-{index:06d}" for index in range(count)]

    def load_input(index: int) -> Array:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([data.seed, _PARTS.index(part), index])))
        return draw_sentence(rng, words, longest)

    return LazySamples(ids, load_input, lambda index: None)
