"""Pack codes into the raw bytes of ONNX tensors, and back.

ONNX stores codes of less than a byte one after the other, the first in the lowest bits: two 4-bit codes or four 2-bit
codes a byte, four 6-bit codes in three bytes. Wider ones are little-endian (onnx.proto, TensorProto.raw_data).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.numerics.codes import code_dtype
from quantbench.numerics.formats import ONNX_TYPES, Format, get_format

__all__ = ["onnx_type", "pack", "unpack"]


def onnx_type(format: str | Format) -> str:  # noqa: A002 (named as in round_to)
    """The ONNX tensor type that is this format: its name in `onnx.TensorProto`.

    Raises:
        InputError: ONNX has no such type; `storage_dtype` names one that holds the values.
    """
    entry = get_format(format)
    for dtype, name in ONNX_TYPES:
        if name == entry.name:
            return dtype
    raise InputError(f"ONNX has no tensor type for {entry.name}; store its values in another type (storage_dtype)")


def pack(codes: NDArray[Any], format: str | Format) -> bytes:  # noqa: A002 (named as in round_to)
    """The raw data of an ONNX tensor of that format from `codes` (unsigned, any shape, in C order).

    Raises:
        InputError: ONNX has no such type; a code does not fit its bits.
    """
    entry = get_format(format)
    onnx_type(entry)
    codes = np.asarray(codes)
    if codes.dtype.kind != "u" or (codes.size and int(codes.max()) >= 2**entry.bits):
        raise InputError(f"pack takes unsigned codes of at most {entry.bits} bits for {entry.name}")
    flat = np.ascontiguousarray(codes).reshape(-1)
    if entry.bits % 8 == 0:
        return flat.astype(code_dtype(entry).newbyteorder("<")).tobytes()
    count, size = _group(entry.bits)
    words = np.zeros(math.ceil(flat.size / count), "<u4")
    for place in range(count):
        part = flat[place::count].astype(np.uint32)
        words[: part.size] |= part << np.uint32(place * entry.bits)
    data = words.view(np.uint8).reshape(-1, 4)[:, :size].tobytes()
    return data[: math.ceil(flat.size * entry.bits / 8)]


def unpack(data: bytes, format: str | Format, shape: Sequence[int]) -> NDArray[Any]:  # noqa: A002 (as in round_to)
    """The codes in the raw data of an ONNX tensor of that format and shape.

    Raises:
        InputError: ONNX has no such type; `data` has not the length that the shape asks for.
    """
    entry = get_format(format)
    onnx_type(entry)
    elements = math.prod(shape)
    if len(data) != math.ceil(elements * entry.bits / 8):
        raise InputError(f"{len(data)} bytes are not a {entry.name} tensor of shape {tuple(shape)}")
    if entry.bits % 8 == 0:
        stored = np.frombuffer(data, code_dtype(entry).newbyteorder("<"))
        return np.array(stored, code_dtype(entry)).reshape(shape)
    count, size = _group(entry.bits)
    padded = np.zeros((math.ceil(elements / count), 4), np.uint8)
    bytes_of_groups = np.zeros(padded.shape[0] * size, np.uint8)
    bytes_of_groups[: len(data)] = np.frombuffer(data, np.uint8)
    padded[:, :size] = bytes_of_groups.reshape(-1, size)
    words = padded.view("<u4")
    places = np.arange(count, dtype=np.uint32) * np.uint32(entry.bits)
    codes = (words >> places) & np.uint32(2**entry.bits - 1)
    return np.asarray(codes.reshape(-1)[:elements], code_dtype(entry)).reshape(shape)


def _group(bits: int) -> tuple[int, int]:
    """The least number of codes that fill whole bytes, and the number of those bytes."""
    count = 8 // math.gcd(bits, 8)
    return count, count * bits // 8
