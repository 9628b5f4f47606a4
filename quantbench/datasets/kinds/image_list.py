"""kind = "image-list": a folder of images and a list with `file label` a line."""

from __future__ import annotations

from pathlib import Path

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.preprocess import read_image, to_input
from quantbench.datasets.splitting import calibration_list, find_list, make_dataset, read_lines, split
from quantbench.errors import InputError, MissingError
from quantbench.references.schema import Reference

__all__ = ["KEYS", "load"]

KEYS = frozenset({"path", "list", "label_offset"})


def load(reference: Reference) -> Dataset:
    """Samples in the order of the list; ids are the file names as the list writes them.

    Truths are class numbers. An image of a calibration list of its own needs no label: its truth is then -1.

    Raises:
        MissingError: the folder, a list or an image is not there.
        InputError: a bad line (its number is given), or too few samples.
    """
    folder = reference.folder / (reference.dataset.path or ".")
    if not folder.is_dir():
        raise MissingError(f"the image folder {folder} is missing; put it there or correct {reference.file}")
    if reference.dataset.list is None:
        raise InputError(f"{reference.file}: the kind 'image-list' needs the key dataset.list")
    entries = _entries(find_list(reference, reference.dataset.list, folder), reference.dataset.label_offset)
    listed = calibration_list(reference, folder)
    if listed is not None:  # official calibration lists have file names alone, others `file label`
        listed = [name if (folder / name).is_file() else name.rsplit(maxsplit=1)[0] for name in listed]
    calibration, scored = split(reference, [name for name, _ in entries], listed)
    labels = dict(entries)
    _check_present(reference, folder, [*calibration, *scored])

    def samples(ids: list[str]) -> LazySamples:
        return LazySamples(
            ids,
            lambda index: to_input(
                read_image(folder / ids[index]), reference.preprocess, reference.model.layout, ids[index]
            ),
            lambda index: labels.get(ids[index], -1),
        )

    return make_dataset(samples(calibration), samples(scored))


def _entries(file: Path, label_offset: int) -> list[tuple[str, int]]:
    """(file, label) of each line; a file name may hold spaces."""
    entries: list[tuple[str, int]] = []
    labels: dict[str, int] = {}
    for number, line in read_lines(file):
        parts = line.rsplit(maxsplit=1)
        if len(parts) != 2 or not parts[1].isascii() or not parts[1].lstrip("-").isdigit():
            raise InputError(f"{file}, line {number}: expected `file label` with a class number, found {line[:80]!r}")
        label = int(parts[1]) + label_offset
        if label < 0:
            raise InputError(f"{file}, line {number}: the label {label} (offset included) is below 0")
        if labels.setdefault(parts[0], label) != label:
            raise InputError(f"{file}, line {number}: {parts[0]} is listed before with another label")
        entries.append((parts[0], label))
    return entries


def _check_present(reference: Reference, folder: Path, names: list[str]) -> None:
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise MissingError(
            f"the image {folder / absent[0]}{more} is missing, but listed for {reference.file}; "
            "put it there or take its line out of the list"
        )
