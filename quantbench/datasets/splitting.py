"""Which samples calibrate and which are scored; the two never overlap."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

from quantbench.datasets.base import Dataset, Samples
from quantbench.errors import InputError, MissingError
from quantbench.references import Reference, calibration_file
from quantbench.support import sha256_lines

__all__ = ["DEFAULT_CALIBRATION", "calibration_list", "find_list", "make_dataset", "read_lines", "split"]

DEFAULT_CALIBRATION = 100
"""Calibration samples where a reference file does not say."""


def make_dataset(
    calibration: Samples, scored: Samples, prediction_space: object = None, *, labelled: bool = True
) -> Dataset:
    """The two lists with the sha256 of their ids."""
    return Dataset(
        calibration,
        scored,
        prediction_space,
        calibration_sha256=sha256_lines(calibration.ids),
        labelled=labelled,
        scored_sha256=sha256_lines(scored.ids),
    )


def split(reference: Reference, ids: Sequence[str], listed: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The ids that calibrate and those that are scored.

    `listed` are the ids of a calibration list of its own, else None and the first `samples` of `ids` calibrate. An id
    that calibrates is not scored, however often `ids` repeats it, unless the reference says so of its list (`scored`).

    Raises:
        InputError: fewer samples than the calibration asks for, or none left to score.
    """
    wanted = reference.calibration.samples
    if listed is None:
        listed, wanted = ids, wanted or DEFAULT_CALIBRATION
    calibration = list(listed[:wanted])
    if wanted is not None and len(calibration) < wanted:
        raise InputError(
            f"{reference.file}: the calibration asks for {wanted} samples, but there are {len(calibration)}; "
            "lower [calibration] samples or give more data"
        )
    if not calibration:
        raise InputError(f"{reference.file}: the calibration list is empty")
    # Of a list of its own nothing is scored, even what lies behind the first `samples` of it.
    kept_back = set(calibration) if listed is ids else set() if reference.calibration.scored else set(listed)
    scored = [name for name in ids if name not in kept_back]
    if not scored:
        raise InputError(
            f"{reference.file}: all {len(ids)} samples are for calibration and none is left to score; "
            "lower [calibration] samples or give more data"
        )
    return calibration, scored


def calibration_list(
    reference: Reference, folder: Path | None = None, known: Container[str] | None = None
) -> list[str] | None:
    """The ids in [calibration] list, one a line, or None when the reference names no list.

    Raises:
        MissingError: the list is not there.
        InputError: it has another sha256 than the reference gives, or an id that is not `known` (its line is given).
    """
    if reference.calibration.list is None:
        return None
    file = calibration_file(reference, folder)
    lines = read_lines(file)
    for number, line in lines:
        if known is not None and line not in known:
            raise InputError(f"{file}, line {number}: the data set has no sample {line[:80]!r}")
    return [line for _, line in lines]


def find_list(reference: Reference, name: str, folder: Path | None = None) -> Path:
    """A list file: looked for in the data set's folder, then beside the reference file.

    Raises:
        MissingError: it is in neither.
    """
    places = [place / name for place in (folder, reference.folder) if place is not None]
    for file in places:
        if file.is_file():
            return file
    raise MissingError(f"the list file {places[0]} is missing; put it there or correct {reference.file}")


def read_lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, each with its number, from 1.

    Raises:
        InputError: the file cannot be read or is not UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list file {file}: {error}") from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
