"""`quantbench convert`: make reduced-precision variants of references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantbench.cli.options import (
    DtypeCommand,
    debug_option,
    dtype_option,
    json_option,
    out_option,
    references_argument,
)
from quantbench.cli.output import Column, emit

__all__ = ["convert"]

COLUMNS: list[Column] = [
    ("reference", lambda conversion: conversion.reference),
    ("dtype", lambda conversion: conversion.dtype),
    (">seconds", lambda conversion: f"{conversion.seconds:.1f}"),
    (">MB", lambda conversion: f"{conversion.model_bytes / 1e6:.2f}"),
    (">of FP32", lambda conversion: f"{conversion.model_bytes / conversion.reference_bytes:.0%}"),
    ("path", lambda conversion: str(conversion.path)),
]


@click.command(cls=DtypeCommand, epilog="Example: quantbench convert ppocr-cls --dtype int8 --calibrator mse")
@references_argument
@dtype_option(required=False)
@click.option("--weights", metavar="F", help="Format of the weights, where it differs from --dtype.")
@click.option("--activations", metavar="F", help="Format of the activations, where it differs from --dtype.")
@click.option("--granularity", metavar="[tensor|channel|block:N]", help="What shares a scale. Default: channel.")
@click.option(
    "--calibrator",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    help="How observations become ranges. Default: mse.",
)
@click.option(
    "--rounding",
    type=click.Choice(["nearest", "gptq", "adaround"]),
    help="How weights get their integer codes. Default: nearest.",
)
@click.option("--accumulator", metavar="F", help="Float format in which products are added up. Default: float32.")
@click.option(
    "--accumulator-chunk",
    type=click.IntRange(min=1),
    help="Products added in float32 before that running sum is rounded. Default: 16.",
)
@click.option("--calibration-samples", type=click.IntRange(min=1), help="Default: what the reference says.")
@click.option(
    "--recipe",
    metavar="[auto|FILE]",
    help="A recipe file (TOML), or auto: the smallest mix of 4 and 8 bits expected to hold the target. "
    "Options given beside it win.",
)
@click.option("--target-ratio", type=float, help="The share of FP32's quality to hold. Default: the reference's rule.")
@click.option(
    "--backend",
    type=click.Choice(["native", "onnxruntime", "nncf", "neural-compressor"]),
    default="native",
    show_default=True,
    help="What quantizes. Another project's quantizer keeps to its own defaults where no option is given.",
)
@click.option("--seed", type=int, help="Seed of everything random. Default: 0.")
@click.option(
    "--observations",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep what calibration sees in DIR, and do not run again what is there, of the same model and samples.",
)
@out_option
@click.option("--force", is_flag=True, help="Rebuild a variant that is up to date.")
@json_option
@debug_option
def convert(
    references: tuple[str, ...], dtypes: tuple[str, ...], out: Path, force: bool, as_json: bool, **options: Any
) -> None:
    """Make reduced-precision variants.

    One for each --dtype of each REFERENCE; a variant that is up to date is kept.
    """
    from quantbench.operations import conversions

    results = conversions.convert_all(references, dtypes, out=out, force=force, **options)
    emit(results, document=lambda conversion: conversion.document(), columns=COLUMNS, as_json=as_json)
