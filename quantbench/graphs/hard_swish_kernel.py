"""Hard-swish in one pass through memory. Its own file because it loads the compiler, which only emulation needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.numerics.kernel import compiled
from quantbench.numerics.threads import share

__all__ = ["hard_swish"]

_CHUNK = 1 << 16
f32 = np.float32


def hard_swish(x: NDArray[np.float32], alpha: np.float32, beta: np.float32, threads: int | None) -> None:
    """x·max(0, min(1, αx + β)) in place of a C-contiguous x, each step rounded to float32, on `threads` threads.

    Releases the GIL.
    """
    values = x.reshape(-1)
    share(values.size, _CHUNK, threads, lambda first, last: _run(values[first:last], alpha, beta))


@compiled
def _run(values: Any, alpha: Any, beta: Any) -> None:
    for i in range(values.size):
        gate = f32(f32(values[i] * alpha) + beta)
        gate = gate if gate < f32(1) else f32(1)
        gate = gate if gate > f32(0) else f32(0)
        values[i] = f32(values[i] * gate)
