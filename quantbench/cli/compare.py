"""`quantbench compare`: our variant beside those of other projects' quantizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from quantbench.cli.options import (
    DtypeCommand,
    debug_option,
    dtype_option,
    json_option,
    references_argument,
    samples_option,
)
from quantbench.cli.output import Column, emit

__all__ = ["compare"]

ALL_FAILED = 2


def _measured(text: Callable[[Any], str]) -> Callable[[Any], str]:
    """A cell that stays empty where the backend failed."""
    return lambda row: "–" if row.error is not None else text(row)


@click.command(
    cls=DtypeCommand, epilog="Example: quantbench compare ppocr-cls --dtype int8 --backends native,onnxruntime"
)
@references_argument
@dtype_option(required=True)
@click.option(
    "--backends",
    metavar="B,B,...",
    help="native, onnxruntime, nncf, neural-compressor. Default: all that are installed.",
)
@click.option("--granularity", metavar="[tensor|channel]", help="For every backend. Default: each its own.")
@click.option(
    "--calibrator",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    help="For every backend. Default: each its own.",
)
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A recipe file (TOML) for the native backend.",
)
@samples_option
@json_option
@debug_option
@click.pass_context
def compare(
    context: click.Context,
    references: tuple[str, ...],
    dtypes: tuple[str, ...],
    backends: str | None,
    granularity: str | None,
    calibrator: str | None,
    recipe: Path | None,
    samples: int | None,
    as_json: bool,
) -> None:
    """Compare our variants with other quantizers' side by side.

    Each backend converts the REFERENCE in a process of its own, on the same calibration samples. Quality, with the
    paired 95% interval of its ratio to FP32, speed against FP32, size, time and peak memory are measured here and now.
    Nothing is kept; `quantbench convert --backend` makes a variant to keep. A backend that fails leaves a row with the
    reason; the exit status is 2 when all do.
    """
    from quantbench.evaluation import format_score
    from quantbench.operations import comparisons

    columns: list[Column] = [
        ("reference", lambda row: row.reference),
        ("dtype", lambda row: row.dtype),
        ("backend", lambda row: row.backend),
        (">score", _measured(lambda row: format_score(row.score))),
        (">ratio", _measured(lambda row: f"{row.ratio:.2%}")),
        (">interval", _measured(lambda row: f"{100 * row.ratio_low:.2f}–{row.ratio_high:.2%}")),
        (">speed", _measured(lambda row: f"{row.speedup:.2f}×")),
        (">MB", _measured(lambda row: f"{row.model_bytes / 1e6:.2f}")),
        (">seconds", _measured(lambda row: f"{row.seconds:.1f}")),
        (">peak MB", _measured(lambda row: f"{row.peak_bytes / 1e6:.0f}")),
    ]
    wanted = [word.strip() for word in (backends or "").split(",") if word.strip()]
    rows = emit(
        comparisons.compare_all(
            references,
            dtypes,
            wanted,
            samples=samples,
            granularity=granularity,
            calibrator=calibrator,
            recipe=recipe,
        ),
        document=lambda row: row.document(),
        columns=columns,
        as_json=as_json,
    )
    if all(row.error is not None for row in rows):
        context.exit(ALL_FAILED)
