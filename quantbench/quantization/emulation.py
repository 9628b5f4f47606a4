"""Emulating whole graphs in one format, without a variant on disk."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from quantbench.errors import InputError
from quantbench.graphs.emulation import strip_emulation
from quantbench.graphs.staging import StagedExecutor
from quantbench.numerics import Format, get_format
from quantbench.numerics.threads import side_by_side
from quantbench.quantization.planning import plan_graph
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.writing import write_graph

__all__ = ["check_emulated", "open_emulated"]


def open_emulated(
    models: Mapping[str, ir.Model],
    format: str | Format,  # noqa: A002 (named as in round_to)
    calls: int | None = None,
) -> StagedExecutor:
    """Open prepared graphs for scoring with every tensor in one format, as `convert` and `open_variant` without a disk.

    The graphs are optimised, cut and opened anew for each format, which takes about a tenth of a second for the small
    references. Keeping the stages would not be safe: ONNX Runtime folds constants into its fused operators, and packs
    weights when it opens a session, both from values that the format changes.

    Args:
        models: prepared graphs by name; they are left alone.
        format: a float or block format.
        calls: how many calls will be made side by side, at most; None for as many as the cores are good for.

    Raises:
        InputError: the format cannot be emulated (`check_emulated`).
    """
    recipe = Recipe(check_emulated(format).name)
    written = {name: write_graph(model, plan_graph(model, recipe, {}), {}, {}) for name, model in models.items()}
    most, threads = side_by_side()
    taps = {name: strip_emulation(model, threads) for name, model in written.items()}
    return StagedExecutor(written, taps, threads, calls or most)


def check_emulated(format: str | Format) -> Format:  # noqa: A002
    """The format of that name, if a model can be held in it: a float or a block format.

    Raises:
        InputError: there is no such format, or it is an integer format, or one without a zero.
    """
    fmt = get_format(format)
    if fmt.kind == "int" or not fmt.has_zero:
        raise InputError(
            f"{fmt.name} cannot be emulated on its own: weights and activations alike need a floating-point or block "
            "format, such as fp11, e4m3 or mxfp8_e4m3"
        )
    return fmt
