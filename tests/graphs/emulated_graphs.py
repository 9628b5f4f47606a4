"""What is done to a graph in place, done to a copy of it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from quantbench.graphs.accumulators import Accumulator, write_accumulators
from quantbench.graphs.block_operands import Operand
from quantbench.graphs.rounding_functions import write_rounded
from quantbench.numerics import Format


def written_rounded(
    model: ir.Model, formats: Mapping[str, Format], operands: Mapping[Operand, Format] | None = None
) -> ir.Model:
    copy = model.clone()
    write_rounded(copy, formats, operands)
    return copy


def written_accumulators(model: ir.Model, accumulators: Mapping[str, Accumulator]) -> ir.Model:
    copy = model.clone()
    write_accumulators(copy, accumulators)
    return copy
