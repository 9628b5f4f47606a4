"""kind = "rendered-text": images of text drawn from a seed; `content` names the file of `datasets/rendering/`.

Each sample has a random stream of its own, from the seed, its part (calibration or scored) and its number: it is the
same image however many others there are, and no image serves both parts.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import pkgutil
import zipfile
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from quantbench.datasets import rendering
from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.preprocess import to_input
from quantbench.datasets.splitting import DEFAULT_CALIBRATION, make_dataset
from quantbench.errors import InputError
from quantbench.references.models import character_set
from quantbench.references.schema import Reference, nearest
from quantbench.support import atomic_file, cache_folder, progress

__all__ = ["KEYS", "load"]

KEYS = frozenset({"content", "seed", "samples", "height", "width"})

Array = NDArray[Any]

_PARTS = ("calibration", "scored")  # the position is part of each sample's seed
_DEFAULT_SAMPLES = 1000


class Content(Protocol):
    """A file in `datasets/rendering/` with a `draw`."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[bytes, Any]:
        """An image file of (height, width), and its truth: a str, an int, or a list of boxes."""


def load(reference: Reference) -> Dataset:
    """Drawn when first asked for, then kept in the cache as JPEGs; ids name content, seed, part and number,
    e.g. `line-2-scored-000017`.

    Truths are an int, a str, or boxes (k, 4) float32. For text, `prediction_space` is the model's character set.

    Raises:
        InputError: `content`, `height` or `width` is absent, or there is no such content.
    """
    content = _content(reference)
    if reference.calibration.list is not None:
        raise InputError(f"{reference.file}: the kind 'rendered-text' takes [calibration] samples, not a list")
    counts = (reference.calibration.samples or DEFAULT_CALIBRATION, reference.dataset.samples or _DEFAULT_SAMPLES)
    calibration, scored = (
        _samples(reference, content, part, count) for part, count in zip(_PARTS, counts, strict=True)
    )
    return make_dataset(calibration, scored, character_set(reference) if reference.dataset.content == "line" else None)


def _content(reference: Reference) -> Content:
    for key in ("content", "height", "width"):
        if getattr(reference.dataset, key) is None:
            raise InputError(f"{reference.file}: the kind 'rendered-text' needs the key dataset.{key}")
    name = str(reference.dataset.content)
    modules = {
        module.name.replace("_", "-"): importlib.import_module(f"{rendering.__name__}.{module.name}")
        for module in pkgutil.iter_modules(rendering.__path__)
    }
    known = sorted(name for name, module in modules.items() if hasattr(module, "draw"))
    if name not in known:
        raise InputError(
            f"{reference.file}: there is no content {name!r} to render{nearest(name, known)} "
            f"(known: {', '.join(known)})"
        )
    return cast(Content, modules[name])


def _samples(reference: Reference, content: Content, part: str, count: int) -> LazySamples:
    @functools.cache
    def rendered() -> tuple[list[Array], list[Any]]:
        return _rendered(reference, content, part, count)

    data = reference.dataset
    ids = [f"{data.content}-{data.seed}-{part}-{index:06d}" for index in range(count)]

    def prepared(index: int) -> Array:
        image = np.asarray(cv2.imdecode(rendered()[0][index], cv2.IMREAD_COLOR))
        return to_input(image, reference.preprocess, reference.model.layout, ids[index])

    def truth(index: int) -> Any:
        value = rendered()[1][index]
        return np.array(value, np.float32).reshape(-1, 4) if isinstance(value, list) else value

    return LazySamples(ids, prepared, truth)


def _rendered(reference: Reference, content: Content, part: str, count: int) -> tuple[list[Array], list[Any]]:
    """The image files and truths of one part, from the cache where it has them."""
    data = reference.dataset
    assert data.height is not None and data.width is not None  # `_content` has asked for them
    settings = {"content": data.content, "seed": data.seed, "part": part, "count": count}
    size = {"height": data.height, "width": data.width, "drawn_by": _drawing_sha256()}
    key = hashlib.sha256(json.dumps({**settings, **size}).encode()).hexdigest()[:16]
    file = cache_folder() / "rendered" / f"{data.content}-{part}-{count}-{key}.npz"
    if (kept := _read(file)) is not None:
        return kept
    images, truths = [], []
    for index in progress(range(count), count, f"rendering {part} samples of {reference.name}"):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([data.seed, _PARTS.index(part), index])))
        image, truth = content.draw(rng, data.height, data.width)
        images.append(np.frombuffer(image, np.uint8))
        truths.append(truth)
    with atomic_file(file) as temporary, temporary.open("wb") as target:
        ends = np.cumsum([len(image) for image in images])
        np.savez(target, images=np.concatenate(images), ends=ends, truths=np.array(json.dumps(truths)))
    return images, truths


def _read(file: Path) -> tuple[list[Array], list[Any]] | None:
    """The content of a cache file, or None when there is none or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            images = np.split(archive["images"], archive["ends"][:-1])
            return images, json.loads(str(archive["truths"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


@functools.cache
def _drawing_sha256() -> str:
    """Of the source that draws: a cached set from before a change to it is not taken for the new one."""
    sources = sorted(Path(path) for folder in rendering.__path__ for path in Path(folder).glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
