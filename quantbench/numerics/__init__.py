"""What a number format is: the table of formats, rounding, bit codes and packing.

What needs the compiler of the kernels loads on first use, so that looking a format up does not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantbench.numerics.formats import (
    Format,
    all_formats,
    check_accumulator,
    contains,
    format_names,
    get_format,
    storage_dtype,
)

if TYPE_CHECKING:
    from quantbench.numerics.accumulation import running_sum
    from quantbench.numerics.codes import decode, encode
    from quantbench.numerics.packing import onnx_type, pack, unpack
    from quantbench.numerics.rounding import round_inplace, round_to, rounder

__all__ = [
    "Format",
    "all_formats",
    "check_accumulator",
    "contains",
    "decode",
    "encode",
    "format_names",
    "get_format",
    "onnx_type",
    "pack",
    "round_inplace",
    "round_to",
    "rounder",
    "running_sum",
    "storage_dtype",
    "unpack",
]

_LATE = {
    "decode": "codes",
    "encode": "codes",
    "onnx_type": "packing",
    "pack": "packing",
    "round_inplace": "rounding",
    "round_to": "rounding",
    "rounder": "rounding",
    "running_sum": "accumulation",
    "unpack": "packing",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
