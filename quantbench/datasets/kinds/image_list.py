"""kind = "image-list": a folder of images and a list with `file label` a line."""

from __future__ import annotations

from pathlib import Path

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.datasets.preprocess import read_image, to_input
from quantbench.datasets.splitting import calibration_list, find_list, make_dataset, read_lines, split
from quantbench.errors import InputError, MissingError
from quantbench.references import Reference, data_folder

__all__ = ["KEYS", "load"]

KEYS = frozenset({"path", "variable", "list", "label_offset"})


def load(reference: Reference) -> Dataset:
    """Samples in the order of the list; ids are the file names as the list writes them.

    Truths are class numbers. An image of a calibration list of its own needs no label: its truth is then -1.

    Raises:
        MissingError: the folder, a list or an image is not there.
        InputError: a bad line (its number is given), or too few samples.
    """
    folder = data_folder(reference)
    if reference.dataset.list is None:
        raise InputError(f"{reference.file}: the kind 'image-list' needs the key dataset.list")
    entries = _entries(find_list(reference, reference.dataset.list, folder), reference.dataset.label_offset)
    listed = calibration_list(reference, folder)
    if listed is not None:
        listed = _file_names(folder, listed, [name for name, _ in entries])
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


def _file_names(folder: Path, lines: list[str], ids: list[str]) -> list[str]:
    """The images that a calibration list means, as the data set's list writes them.

    Official lists have file names alone or `file number`; the images may lie in a folder of the data set, as in `val/`.
    """
    by_name = {Path(name).name: name for name in ids}
    names = [line if (folder / line).is_file() else line.rsplit(maxsplit=1)[0] for line in lines]
    return [name if (folder / name).is_file() else by_name.get(name, name) for name in names]


def _check_present(reference: Reference, folder: Path, names: list[str]) -> None:
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise MissingError(
            f"the image {folder / absent[0]}{more} is missing, but listed for {reference.file}; "
            "put it there or take its line out of the list"
        )
