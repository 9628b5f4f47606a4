"""Reads the arrays of a TensorFlow checkpoint (format V2, "tensor bundle") out of a zip archive, without TensorFlow.

Sources of the format: `tensorflow/core/protobuf/tensor_bundle.proto` (what an entry says), and LevelDB's
`doc/table_format.md` (the index file is a table of entries by array name). The zip's own checksums cover all bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_checkpoint"]

Array = NDArray[Any]

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
"""`DataType` of `tensorflow/core/framework/types.proto`, those that numpy has too."""


@dataclass(frozen=True)
class _Entry:
    """Where an array stands: a `BundleEntryProto`."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    sliced: bool = False


def read_checkpoint(file: Path) -> dict[str, Array]:
    """Every array of numbers by its name; what is no number (strings) is left out.

    Args:
        file: a zip archive with one `NAME.index` and its `NAME.data-00000-of-00001`, in any folder.

    Raises:
        ValueError: the archive has no checkpoint or several, or it is cut off, compressed or sliced.
        zipfile.BadZipFile, OSError: the archive cannot be read.
    """
    with zipfile.ZipFile(file) as archive:
        found = [name for name in archive.namelist() if name.endswith(".index")]
        if len(found) != 1:
            raise ValueError(f"it has {len(found)} files NAME.index, but one is needed")
        table = dict(_table(archive.read(found[0])))
        shards = _header(table.pop(b"", b""))
        entries = {name.decode(): _entry(value) for name, value in table.items()}
        prefix = found[0].removesuffix(".index")
        data = []
        for shard in range(shards):
            name = f"{prefix}.data-{shard:05d}-of-{shards:05d}"
            if name not in archive.namelist():
                raise ValueError(f"it has no file {name}")
            data.append(archive.read(name))
    return {name: _array(name, entry, data) for name, entry in entries.items() if entry.dtype in _DTYPES}


def _array(name: str, entry: _Entry, data: list[bytes]) -> Array:
    dtype = np.dtype(_DTYPES[entry.dtype])
    count = int(np.prod(entry.shape, dtype=np.int64))
    if entry.sliced:
        raise ValueError(f"its array {name!r} is stored in slices; save the checkpoint without partitioned variables")
    if entry.shard >= len(data) or entry.offset + entry.size > len(data[entry.shard]):
        raise ValueError(f"its array {name!r} ends beyond the end of the data file")
    if entry.size != count * dtype.itemsize:
        raise ValueError(f"its array {name!r} has {entry.size} bytes, which are no {dtype} {entry.shape}")
    return np.frombuffer(data[entry.shard], dtype, count, entry.offset).reshape(entry.shape)


def _header(message: bytes) -> int:
    """The number of data files, from the `BundleHeaderProto`."""
    fields = dict(_fields(message))
    if fields.get(2, 0) != 0:
        raise ValueError("it is stored in big-endian byte order")
    shards = fields.get(1, 0)
    if not isinstance(shards, int) or shards < 1:
        raise ValueError("its index has no header")
    return shards


def _entry(message: bytes) -> _Entry:
    fields = list(_fields(message))
    numbers = {number: value for number, value in fields if isinstance(value, int)}
    shape = b"".join(value for number, value in fields if number == 2 and isinstance(value, bytes))
    sizes = [
        dict(_fields(value)).get(1, 0) for number, value in _fields(shape) if number == 2 and isinstance(value, bytes)
    ]
    return _Entry(
        dtype=numbers.get(1, 0),
        shape=tuple(size for size in sizes if isinstance(size, int)),
        shard=numbers.get(3, 0),
        offset=numbers.get(4, 0),
        size=numbers.get(5, 0),
        sliced=any(number == 7 for number, _ in fields),
    )


def _table(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every entry of a table file."""
    footer = file[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("its index is no table file, or is cut off")
    _, place = _handle(footer, 0)
    (offset, size), _ = _handle(footer, place)
    for _, handle in _block(file, offset, size):
        (offset, size), _ = _handle(handle, 0)
        yield from _block(file, offset, size)


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the place behind them."""
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _block(file: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of one block: each key says how much of the one before it still holds."""
    if offset + size >= len(file):
        raise ValueError("its index is cut off")
    if file[offset + size] != 0:
        raise ValueError("its index is compressed, which TensorFlow's own are not")
    block = file[offset : offset + size]
    end = size - 4 * (int.from_bytes(block[-4:], "little") + 1)
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + length]
        place += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message; sub-messages stay bytes."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        match tag & 7:
            case 0:
                value, place = _varint(message, place)
                yield tag >> 3, value
            case 2:
                length, place = _varint(message, place)
                yield tag >> 3, message[place : place + length]
                place += length
            case 1 | 5:
                width = 8 if tag & 7 == 1 else 4
                yield tag >> 3, int.from_bytes(message[place : place + width], "little")
                place += width
            case _:
                raise ValueError("its index holds what is no protobuf message")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        if place >= len(data):
            raise ValueError("its index is cut off")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
