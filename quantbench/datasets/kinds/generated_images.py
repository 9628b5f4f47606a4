"""kind = "generated-images": scenes drawn from a seed, for models without data; the truths are the FP32 model's own.

Each sample has a random stream of its own, from the seed, its part (calibration or scored) and its number: it is the
same image however many others there are, and no image serves both parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.preprocess import to_input
from quantbench.datasets.splitting import DEFAULT_CALIBRATION, make_dataset
from quantbench.errors import InputError
from quantbench.references import Reference
from quantbench.references.generators._scenes import MOTIFS, draw_scene

__all__ = ["KEYS", "load"]

KEYS = frozenset({"seed", "samples", "height", "width", "motifs"})

Array = NDArray[Any]

_PARTS = ("calibration", "scored")  # the position is part of each sample's seed
_DEFAULT_SAMPLES = 200


def load(reference: Reference) -> Dataset:
    """Drawn when asked for; ids name seed, part, size and number, e.g. `scene-7-scored-224x224-000017`.

    Raises:
        InputError: `height` or `width` is absent, there are not as many motifs, or a calibration list is given.
    """
    for key in ("height", "width"):
        if getattr(reference.dataset, key) is None:
            raise InputError(f"{reference.file}: the kind 'generated-images' needs the key dataset.{key}")
    if (reference.dataset.motifs or 0) > MOTIFS:
        raise InputError(
            f"{reference.file}: there are {MOTIFS} motifs, not {reference.dataset.motifs}; lower dataset.motifs"
        )
    if reference.calibration.list is not None:
        raise InputError(f"{reference.file}: the kind 'generated-images' takes [calibration] samples, not a list")
    counts = (reference.calibration.samples or DEFAULT_CALIBRATION, reference.dataset.samples or _DEFAULT_SAMPLES)
    calibration, scored = (_samples(reference, part, count) for part, count in zip(_PARTS, counts, strict=True))
    return make_dataset(calibration, scored, labelled=False)


def _samples(reference: Reference, part: str, count: int) -> LazySamples:
    data = reference.dataset
    height, width = data.height or 0, data.width or 0
    ids = [f"scene-{data.seed}-{part}-{height}x{width}-{index:06d}" for index in range(count)]

    def load_input(index: int) -> Array:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([data.seed, _PARTS.index(part), index])))
        scene = draw_scene(rng, height, width, data.motifs or MOTIFS)[..., ::-1]  # files come blue first
        return to_input(scene, reference.preprocess, reference.model.layout, ids[index])

    return LazySamples(ids, load_input, lambda index: None)
