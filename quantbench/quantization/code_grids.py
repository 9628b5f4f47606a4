"""Scales that suit the operations around a tensor: what they do to real numbers they can then do to codes, exactly."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from quantbench.graphs.code_shifts import scaled_and_shifted, shifted_affine
from quantbench.graphs.edit import only_user
from quantbench.graphs.hard_swish_codes import hard_swish_affine
from quantbench.graphs.qdq import Affine
from quantbench.numerics import get_format

__all__ = ["on_grid"]


def on_grid(value: ir.Value, affine: Affine, nodes: Collection[str]) -> Affine:
    """Parameters near `affine` for codes of `value`: of 8 bits, and read by hard-swish or made by adding a number.

    Args:
        nodes: names of the nodes that compute in integers.
    """
    if get_format(affine.format).bits != 8:
        return affine
    reader, producer = only_user(value), value.producer()
    if reader is not None and reader.op_type == "HardSwish" and reader.name in nodes:
        return hard_swish_affine(affine)
    if producer is not None and producer.name in nodes:
        for source in producer.inputs:
            found = scaled_and_shifted(producer, source)
            if found is not None:
                return shifted_affine(affine, found[1])
    return affine
