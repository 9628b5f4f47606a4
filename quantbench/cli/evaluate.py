"""`quantbench evaluate`: score references and their variants."""

from __future__ import annotations

from pathlib import Path

import click

from quantbench.cli.options import (
    DtypeCommand,
    batch_option,
    debug_option,
    dtype_option,
    json_option,
    out_option,
    references_argument,
    samples_option,
)
from quantbench.cli.output import Column, emit

__all__ = ["evaluate"]


@click.command(cls=DtypeCommand, epilog="Example: quantbench evaluate ppocr-cls --dtype int8 fp11 --samples 500")
@references_argument
@dtype_option(required=False)
@samples_option
@batch_option
@out_option
@json_option
@debug_option
def evaluate(
    references: tuple[str, ...],
    dtypes: tuple[str, ...],
    samples: int | None,
    batch: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Score references and their variants.

    Each REFERENCE is scored in FP32 and in each --dtype, on the same samples. A variant that does not exist yet, or is
    out of date, is converted first.
    """
    from quantbench.evaluation import format_score
    from quantbench.operations import scores

    columns: list[Column] = [
        ("reference", lambda score: score.reference),
        ("dtype", lambda score: score.dtype),
        ("metric", lambda score: score.metric),
        (">score", lambda score: format_score(score.score)),
        (">samples", lambda score: str(score.samples)),
        (">samples/s", lambda score: f"{score.samples_per_second:.1f}"),
        (">seconds", lambda score: f"{score.seconds:.1f}"),
        ("execution", lambda score: score.execution),
    ]
    results = scores.evaluate_all(references, dtypes, samples=samples, batch=batch, out=out)
    emit(results, document=lambda score: score.document(), columns=columns, as_json=as_json)
