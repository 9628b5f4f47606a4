"""Opens the data set of a reference: finds the file of its kind in `datasets/kinds/`."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Protocol, cast

from quantbench.datasets import kinds
from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.references.schema import Reference, nearest

__all__ = ["open_dataset"]


class Kind(Protocol):
    """A file in `datasets/kinds/`. Its name with dashes is the kind's name; nothing else lists it."""

    KEYS: frozenset[str]
    """The keys of [dataset] that the kind reads, besides `kind`."""

    def load(self, reference: Reference) -> Dataset: ...


def open_dataset(reference: Reference) -> Dataset:
    """The calibration and scored samples of a reference.

    Raises:
        InputError: an unknown kind, a key that the kind does not read, a bad list or array file, or too few samples.
        MissingError: a file or folder of the data set is not there.
    """
    name = reference.dataset.kind
    known = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(kinds.__path__))
    if name not in known:
        raise InputError(
            f"{reference.file}: there is no kind of data set {name!r}{nearest(name, known)} (known: {', '.join(known)})"
        )
    kind = cast(Kind, importlib.import_module(f"{kinds.__name__}.{name.replace('-', '_')}"))
    for field in dataclasses.fields(reference.dataset):
        if field.name not in {"kind", *kind.KEYS} and getattr(reference.dataset, field.name) != field.default:
            raise InputError(
                f"{reference.file}: the key dataset.{field.name} means nothing to the kind {name!r}, "
                f"which reads {', '.join(sorted(kind.KEYS))}; remove it"
            )
    return kind.load(reference)
