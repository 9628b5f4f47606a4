"""What a number format is: the table of formats, rounding, bit codes and packing.

The names load on first use, so that looking a format up does not wait for the compiler of the kernels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantbench.numerics.formats import Format, all_formats, contains, format_names, get_format, storage_dtype

if TYPE_CHECKING:
    from quantbench.numerics.rounding import round_inplace, round_to

__all__ = [
    "Format",
    "all_formats",
    "contains",
    "format_names",
    "get_format",
    "round_inplace",
    "round_to",
    "storage_dtype",
]

_LATE = {"round_inplace": "rounding", "round_to": "rounding"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
