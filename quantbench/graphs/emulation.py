"""Back from a written graph, which emulates in any runtime, to a plain one and what is to be done while it runs."""

from __future__ import annotations

import onnx_ir as ir

from quantbench.graphs.accumulators import strip_accumulators
from quantbench.graphs.rounding_functions import strip_rounding
from quantbench.graphs.staging import Tap, accumulation_taps, rounding_taps

__all__ = ["strip_emulation"]


def strip_emulation(model: ir.Model, threads: int | None = None) -> dict[str, Tap]:
    """Make a written graph the float32 graph behind it. Returns the taps with which it computes the same in stages.

    There are none for a graph in which nothing was written. A tap takes at most `threads` threads; None takes the
    cores.
    """
    sums = strip_accumulators(model)
    roundings = strip_rounding(model)
    # neither is asked for nothing: both load the compiler of the kernels
    taps = accumulation_taps(sums, threads) if sums else {}
    return taps | rounding_taps(roundings, threads) if roundings else taps
