"""kind = "npz": one file with arrays `x` (n, …), fed to the model as it is, and `y` (n labels)."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.splitting import calibration_list, make_dataset, split
from quantbench.errors import InputError, MissingError
from quantbench.references.models import character_set
from quantbench.references.schema import Reference

__all__ = ["KEYS", "load"]

KEYS = frozenset({"path", "label_offset"})

Array = NDArray[Any]


def load(reference: Reference) -> Dataset:
    """Samples by their position in the file; ids are "0", "1", ….

    `y` holds class numbers (any integer type), or texts, of shape (n,); with texts, `prediction_space` is the model's
    character set.

    Raises:
        MissingError: the file is not there.
        InputError: not an npz file, no `x` or `y`, unequal lengths, labels that are neither, or too few samples.
    """
    x, y = _arrays(reference)
    if y.dtype.kind in "iu":
        y = y.astype(np.int64) + reference.dataset.label_offset
        if y.size and y.min() < 0:
            raise InputError(f"{_file(reference)}: the label of sample {int(y.argmin())} is below 0")
    names = [str(index) for index in range(len(y))]
    calibration, scored = split(reference, names, calibration_list(reference, known=set(names)))

    def samples(ids: list[str]) -> LazySamples:
        positions = [int(name) for name in ids]
        return LazySamples(ids, lambda index: np.asarray(x[positions[index]]), lambda index: y[positions[index]].item())

    return make_dataset(
        samples(calibration), samples(scored), character_set(reference) if y.dtype.kind == "U" else None
    )


def _file(reference: Reference) -> str:
    if reference.dataset.path is None:
        raise InputError(f"{reference.file}: the kind 'npz' needs the key dataset.path")
    return str(reference.folder / reference.dataset.path)


def _arrays(reference: Reference) -> tuple[Array, Array]:
    file = _file(reference)
    arrays: dict[str, Array] = {}
    try:
        with np.load(file, allow_pickle=False) as archive:
            for name in ("x", "y"):
                if name not in archive:
                    raise InputError(f"{file} has no array {name!r}; it needs x (n, …) and y (n labels)")
                arrays[name] = archive[name]
    except FileNotFoundError as error:
        raise MissingError(f"the data file {file} is missing; put it there or correct {reference.file}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise InputError(f"{file} is not an npz file of plain arrays, or is cut off") from error
    x, y = arrays["x"], arrays["y"]
    if y.ndim != 1 or y.dtype.kind not in "iuU":
        raise InputError(f"{file}: y must hold one class number or text a sample, but is {y.dtype} {y.shape}")
    if x.ndim == 0 or len(x) != len(y):
        raise InputError(f"{file}: x has {len(x) if x.ndim else 0} samples but y has {len(y)} labels")
    return x, y
