"""Files by their url, kept in the user's cache, never used without a check of their sha256."""

from __future__ import annotations

import logging
import urllib.parse
import zipfile
from pathlib import Path

import onnx
import pooch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from quantbench.errors import InputError, MissingError
from quantbench.references.schema import FIRST_USE
from quantbench.support import atomic_file, cache_folder, sha256_file, sha256_lines

__all__ = ["download", "download_path", "is_downloaded"]


def download(url: str, sha256: str, *, source: Path, command: str) -> Path:
    """The local file of a url, from the cache when its sha256 is right, else downloaded.

    Args:
        sha256: in hex, or `FIRST_USE`: then the sha256 of the first file that is what its name says (an ONNX model, a
            zip archive) is written beside it, and every later one is compared with that. For archives that keep what
            they have published unchanged, but publish no sha256 of it.
        source: the reference file, named in errors.
        command: what to run when the network is there again.

    Raises:
        MissingError: it could not be downloaded.
        InputError: it has another sha256, or a first file is not what its name says; nothing is kept of it.
    """
    file = download_path(url, sha256)
    if is_downloaded(url, sha256):
        return file
    file.unlink(missing_ok=True)  # cut off or changed: not trusted again
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, known_hash=None, fname=file.name, path=file.parent)
    except Exception as error:  # requests, urllib and sockets each have a family of their own
        raise MissingError(
            f"cannot download {url} ({_one_line(error)}); when the network is there again, run: {command} "
            f"(or place the file at {file})"
        ) from error
    wanted, found = _wanted(file, sha256), sha256_file(file)
    if wanted is None:
        _keep_first(file, found, url)
    elif found != wanted:
        file.unlink()
        where = source if sha256 != FIRST_USE else _record(file)
        raise InputError(f"{url} has the sha256 {found}, but {where} gives {wanted}; the download was removed")
    return file


def is_downloaded(url: str, sha256: str) -> bool:
    """Whether the cache holds the file with the right sha256; a first file that somebody placed there counts."""
    file = download_path(url, sha256)
    if not file.is_file():
        return False
    wanted = _wanted(file, sha256)
    if wanted is not None:
        return sha256_file(file) == wanted
    if not _is_what_its_name_says(file):
        return False
    _keep_first(file, sha256_file(file), url)
    return True


def download_path(url: str, sha256: str) -> Path:
    """Where the cache keeps the file of a url; the name tells versions and addresses apart."""
    name = Path(urllib.parse.urlparse(url).path).name or "model.onnx"
    key = sha256_lines([url]) if sha256 == FIRST_USE else sha256
    return cache_folder() / "downloads" / f"{key[:16]}-{name}"


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _wanted(file: Path, sha256: str) -> str | None:
    """The sha256 that the file must have; None for the first file."""
    if sha256 != FIRST_USE:
        return sha256
    return _record(file).read_text().strip() if _record(file).is_file() else None


def _keep_first(file: Path, sha256: str, url: str) -> None:
    if not _is_what_its_name_says(file):
        file.unlink()
        raise InputError(f"what came from {url} is not the file that its name says; the download was removed")
    with atomic_file(_record(file)) as temporary:
        temporary.write_text(f"{sha256}\n")


def _is_what_its_name_says(file: Path) -> bool:
    """Guards a first file against a login page or a cut-off download that would be trusted ever after."""
    if file.suffix == ".onnx":
        model = onnx.ModelProto()
        try:
            model.ParseFromString(file.read_bytes())
        except DecodeError:
            return False
        return bool(model.opset_import) and bool(model.graph.output)
    if file.suffix == ".zip":
        try:
            with zipfile.ZipFile(file) as archive:
                return archive.testzip() is None
        except zipfile.BadZipFile:
            return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
