"""Weight rounding: each method is one file with one function, registered by its name here.

A method takes a `Problem`, one weight as matrices with the second moments of its inputs, and returns a `Solution`.
"""

from __future__ import annotations

from difflib import get_close_matches

from quantbench.errors import InputError
from quantbench.quantization.rounding.adaround import adaround
from quantbench.quantization.rounding.gptq import gptq
from quantbench.quantization.rounding.in_order import round_in_order
from quantbench.quantization.rounding.nearest import nearest, round_to_nearest
from quantbench.quantization.rounding.weight import Method

__all__ = ["METHODS", "Method", "get_method", "round_in_order", "round_to_nearest"]

METHODS: dict[str, Method] = {
    "nearest": Method(nearest, reads_inputs=False),
    "gptq": Method(gptq),
    "adaround": Method(adaround),
}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: there is none.
    """
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(METHODS)}"
        raise InputError(f"unknown weight rounding {name!r}; {hint}")
    return METHODS[name]
