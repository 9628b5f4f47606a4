"""From a reference's source file to ONNX graphs in memory, with the checks that the file alone allows.

What a graph must be to be converted (operators, finite weights, outputs) is checked in `quantbench.graphs`.
"""

from __future__ import annotations

import importlib
import pkgutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import onnx
import onnx.external_data_helper
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from quantbench.errors import InputError, MissingError
from quantbench.references import builders
from quantbench.references.schema import Reference, nearest
from quantbench.references.sources import fetch
from quantbench.references.tensorflow_checkpoint import read_checkpoint

__all__ = ["character_set", "load_onnx", "source_models"]


class Builder(Protocol):
    """A file in `builders/`: it makes a model's graphs of the arrays of a checkpoint."""

    def build(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, onnx.ModelProto]:
        """The graphs by name. Raises KeyError when an array is absent, ValueError when its shape is wrong."""


def source_models(reference: Reference) -> dict[str, onnx.ModelProto]:
    """The graphs of a reference by name: `{"model": …}`, or what its builder makes. All weights are in memory.

    Raises:
        MissingError: the model is not there and could not be fetched.
        InputError: the file is no model, is cut off, has another sha256 or reaches outside its folder.
    """
    file = fetch(reference)
    if reference.model.builder is None:
        return {"model": load_onnx(file)}
    builder = _builder(reference, reference.model.builder)
    try:
        return builder.build(_checkpoint(file))
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the checkpoint {file} does not fit the builder {reference.model.builder!r}: {error.args[0]}"
        ) from error


def character_set(reference: Reference) -> tuple[str, ...] | None:
    """What each class of a text recognition model means, from the model's metadata `character`, one a line.

    The convention is PP-OCR's: class 0 is the CTC blank (here ""), the characters follow, a space is last. None when
    the model has no such metadata.

    Raises:
        MissingError, InputError: as `source_models`.
    """
    if reference.model.builder is not None:
        return None
    metadata = {entry.key: entry.value for entry in load_onnx(fetch(reference)).metadata_props}
    return ("", *metadata["character"].split("\n"), " ") if "character" in metadata else None


def load_onnx(file: Path) -> onnx.ModelProto:
    """Read an ONNX file with its external data.

    Raises:
        InputError: not ONNX, cut off, or external data outside the model's folder or shorter than it should be.
        MissingError: a file of external data is not there.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the model file {file}: {error.strerror or error}") from error
    except DecodeError as error:
        raise InputError(f"{file} is not an ONNX model, or is cut off; get the file again") from error
    # A few bytes of anything, and a file cut between two fields, parse as a protobuf message too.
    if not model.HasField("graph") or not model.graph.output or not model.opset_import:
        raise InputError(f"{file} is not an ONNX model, or is cut off; get the file again")
    for tensor in _tensors(model.graph, model.functions):
        if onnx.external_data_helper.uses_external_data(tensor):
            _load_external(tensor, file)
    return model


def _load_external(tensor: onnx.TensorProto, file: Path) -> None:
    """Read one tensor's data into the tensor. ONNX, external data: `location` is relative to the model's folder."""
    info = onnx.external_data_helper.ExternalDataInfo(tensor)
    folder = file.parent.resolve()
    location = (folder / info.location).resolve()
    if not location.is_relative_to(folder):
        raise InputError(
            f"{file}: the data of the tensor {tensor.name!r} is at {info.location!r}, outside the model's folder; "
            "put it beside the model"
        )
    if not location.is_file():
        raise MissingError(f"{file}: the data of the tensor {tensor.name!r} is missing; put {info.location} beside it")
    offset, length = info.offset or 0, info.length
    if offset + (length or 0) > location.stat().st_size:
        raise InputError(f"{location} is cut off: the tensor {tensor.name!r} ends beyond the end of the file")
    with location.open("rb") as data:
        data.seek(offset)
        tensor.raw_data = data.read() if length is None else data.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _tensors(graph: onnx.GraphProto, functions: Any = ()) -> Iterator[onnx.TensorProto]:
    """Every tensor with data: initializers and attributes, in subgraphs and functions too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    nodes = list(graph.node) + [node for function in functions for node in function.node]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for subgraph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(subgraph)


def _builder(reference: Reference, name: str) -> Builder:
    known = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(builders.__path__))
    if name not in known:
        raise InputError(f"{reference.file}: there is no builder {name!r}{nearest(name, known)}")
    return cast(Builder, importlib.import_module(f"{builders.__name__}.{name.replace('-', '_')}"))


def _checkpoint(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz`, or of the TensorFlow checkpoint in a `.zip`; nothing is unpickled."""
    if file.suffix == ".zip":
        try:
            return read_checkpoint(file)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{file} holds no TensorFlow checkpoint that can be read: {error}; get it again"
            ) from error
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{file} is not an npz file of plain arrays, or is cut off; get the file again") from error
