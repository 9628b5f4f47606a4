"""Emulating whole graphs in one format, without a variant on disk."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from quantbench.errors import InputError
from quantbench.graphs.rounding_functions import strip_rounding, write_rounded
from quantbench.graphs.rounding_points import float_weights, rounding_points
from quantbench.graphs.staging import StagedExecutor, Tap, rounding_taps
from quantbench.numerics import Format, get_format

__all__ = ["check_emulated", "open_emulated"]


def open_emulated(
    models: Mapping[str, ir.Model],
    format: str | Format,  # noqa: A002 (named as in round_to)
    threads: int | None = None,
) -> StagedExecutor:
    """Open prepared graphs with every tensor in one format: what `convert` and `open_variant` give, without the disk.

    The graphs are optimised, cut and opened anew for each format, which takes about a tenth of a second for the small
    references. Keeping the stages would not be safe: ONNX Runtime folds constants into its fused operators, and packs
    weights when it opens a session, both from values that the format changes.

    Args:
        models: prepared graphs by name; they are left alone.
        format: a float format.
        threads: as of `StagedExecutor`.

    Raises:
        InputError: the format cannot be emulated (`check_emulated`).
    """
    fmt = check_emulated(format)
    rounded: dict[str, ir.Model] = {}
    taps: dict[str, dict[str, Tap]] = {}
    for name, model in models.items():
        written = write_rounded(model, dict.fromkeys(float_weights(model), fmt))
        rounded[name], _ = strip_rounding(written)  # float32 again, of the values that the format has
        taps[name] = rounding_taps(dict.fromkeys(rounding_points(model), fmt))
    return StagedExecutor(rounded, taps, threads)


def check_emulated(format: str | Format) -> Format:  # noqa: A002
    """The format of that name, if every tensor of a model can be held in it.

    Raises:
        InputError: there is no such format, or it is not a float format with a zero.
    """
    fmt = get_format(format)
    if fmt.kind != "float" or not fmt.has_zero:
        raise InputError(
            f"{fmt.name} cannot be emulated on its own: weights and activations alike need a floating-point format, "
            "such as fp11 or e4m3"
        )
    return fmt
