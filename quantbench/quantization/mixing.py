"""Which weights stay narrow and which get 8 bits, from what each does to the outputs on calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.qdq import QuantizedTensor
from quantbench.numerics import get_format
from quantbench.quantization.affine import dequantize
from quantbench.quantization.output_error import OutputError
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.plan import GraphPlan
from quantbench.quantization.precision import Candidate, most_saved, share_with_least_error
from quantbench.quantization.writing import array_of, replace_array
from quantbench.support import progress

__all__ = ["candidates", "mix", "narrow_weights"]

Array = NDArray[Any]

_TRIALS = 5
"""Mixes that are made and measured at most, while the errors of single weights are scaled to what they do together."""
_CLOSE = 0.85
"""Share of the limit above which a mix is not looked for a smaller one."""


def narrow_weights(plan: GraphPlan) -> list[str]:
    """The weights that the plan puts into integers of fewer than 8 bits."""
    return [name for name, tensor in plan.of_role("weight").items() if _is_narrow(tensor.format)]


def candidates(
    model: ir.Model, narrow: Mapping[str, QuantizedTensor], shifts: Mapping[str, Array], judge: OutputError
) -> list[Candidate]:
    """What each narrow weight alone does to the outputs.

    Args:
        model: a prepared graph; left as it is.
        narrow: weights in few bits, by initializer.
        shifts: what their rounding adds to biases, by initializer.
        judge: knows the exact outputs.
    """
    uses = weight_uses(model)
    found = []
    for name, tensor in progress(list(narrow.items()), len(narrow), "measuring weights"):
        changed = model.clone()
        replace_array(changed, name, dequantize(tensor))
        bias = uses[name].added
        if bias is not None and bias in shifts:
            replace_array(changed, bias, (array_of(model, bias) + shifts[bias]).astype(np.float32))
        found.append(Candidate(name, tensor.codes.size, judge.of(changed)))
    return found


def mix(
    weights: list[Candidate], share: float, limit: float, floor: float, error_of: Callable[[frozenset[str]], float]
) -> frozenset[str]:
    """The weights to keep narrow: as many elements as the error allows, and at least the share.

    Args:
        weights: what could be narrow.
        share: of the elements, that has to be narrow whatever the error.
        limit: the error that the outputs may have.
        floor: the error with all weights in 8 bits.
        error_of: makes the mix in which these weights are narrow and measures it.
    """
    least = frozenset(share_with_least_error(weights, share)) if share else frozenset()
    best, budget = least, limit - floor
    for _ in range(_TRIALS if budget > 0 else 0):
        chosen = frozenset(most_saved(weights, budget))
        if _elements(weights, chosen) <= _elements(weights, best):
            break
        error = error_of(chosen)
        if error <= limit:
            best = chosen
            if error > _CLOSE * limit or len(chosen) == len(weights):
                break
        budget *= (limit - floor) / max(error - floor, 0.1 * (limit - floor))
    return best


def _elements(weights: list[Candidate], chosen: frozenset[str]) -> int:
    return sum(candidate.elements for candidate in weights if candidate.name in chosen)


def _is_narrow(name: str) -> bool:
    fmt = get_format(name)
    return fmt.kind == "int" and fmt.bits < 8
