"""Back from a written graph, which emulates in any runtime, to a plain one and what is to be done while it runs."""

from __future__ import annotations

import onnx_ir as ir

from quantbench.graphs.accumulators import strip_accumulators
from quantbench.graphs.rounding_functions import strip_rounding
from quantbench.graphs.staging import Tap, accumulation_taps, rounding_taps

__all__ = ["strip_emulation"]


def strip_emulation(model: ir.Model, threads: int | None = None) -> tuple[ir.Model, dict[str, Tap]]:
    """The float32 graph behind a written one, and the taps with which it computes the same in stages.

    A graph in which nothing was written comes back with no taps. The argument is left alone. A tap takes at most
    `threads` threads; None takes the cores.
    """
    plain, sums = strip_accumulators(model)
    plain, roundings = strip_rounding(plain)
    # neither is asked for nothing: both load the compiler of the kernels
    taps = accumulation_taps(sums, threads) if sums else {}
    return plain, taps | rounding_taps(roundings, threads) if roundings else taps
