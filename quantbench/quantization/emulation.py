"""Opening graphs that hold rounding, and rounding whole graphs to one format without a variant on disk."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from quantbench.errors import InputError
from quantbench.graphs.executor import Executor, SessionExecutor
from quantbench.graphs.rounding_functions import strip_rounding, write_rounded
from quantbench.graphs.rounding_points import float_weights, rounding_points
from quantbench.graphs.staging import StagedExecutor, rounding_taps
from quantbench.numerics import Format, get_format

__all__ = ["check_emulated", "open_emulated", "open_rounded"]


def open_emulated(models: Mapping[str, ir.Model], format: str | Format, threads: int | None = None) -> Executor:  # noqa: A002
    """Open prepared graphs with every tensor in one format: what `convert` and `open_variant` give, without the disk.

    The graphs are written, optimised and cut anew for each format. That takes about a tenth of a second for the small
    references, and keeping the stages would not be safe: ONNX Runtime folds bounds into its fused operators and packs
    weights when it opens a session, both from values that the format changes.

    Args:
        models: prepared graphs by name; they are left alone.
        format: a float format.
        threads: as of `StagedExecutor`.

    Raises:
        InputError: the format cannot be emulated (`check_emulated`).
    """
    fmt = check_emulated(format)
    written = {
        name: write_rounded(model, dict.fromkeys([*rounding_points(model), *float_weights(model)], fmt))
        for name, model in models.items()
    }
    serialized = {name: ir.to_proto(model).SerializeToString() for name, model in written.items()}
    return open_rounded(written, threads) or SessionExecutor(serialized, threads)


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


def open_rounded(models: Mapping[str, ir.Model], threads: int | None = None) -> StagedExecutor | None:
    """Open graphs written with rounding in stages, rounded in between; None where they hold none.

    The results are those of the written graphs, sooner.
    """
    stripped = {name: strip_rounding(model) for name, model in models.items()}
    if not any(formats for _, formats in stripped.values()):
        return None
    taps = {name: rounding_taps(formats) for name, (_, formats) in stripped.items()}
    return StagedExecutor({name: model for name, (model, _) in stripped.items()}, taps, threads)
