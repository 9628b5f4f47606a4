"""`quantbench gate`: prove a variant's quality against its reference, or say no."""

from __future__ import annotations

from pathlib import Path

import click

from quantbench.cli.options import (
    DtypeCommand,
    confidence_option,
    debug_option,
    dtype_option,
    json_option,
    out_option,
    references_argument,
    samples_option,
)
from quantbench.cli.output import Column, emit

__all__ = ["gate"]

REFUSED = 1


@click.command(cls=DtypeCommand, epilog="Example: quantbench gate ppocr-cls --dtype int8 fp16 --confidence 0.95")
@references_argument
@dtype_option(required=True)
@samples_option
@confidence_option
@out_option
@json_option
@debug_option
@click.pass_context
def gate(
    context: click.Context,
    references: tuple[str, ...],
    dtypes: tuple[str, ...],
    samples: int | None,
    confidence: float | None,
    out: Path,
    as_json: bool,
) -> None:
    """Prove variants against their references.

    A variant passes when its score is at least the reference's target ratio times the FP32 score on the
    same samples; the exit status is 1 when one falls short. A variant that does not exist yet, or is out of date, is
    converted first.
    """
    from quantbench.evaluation import format_score
    from quantbench.operations import verdicts

    columns: list[Column] = [
        ("reference", lambda verdict: verdict.reference),
        ("dtype", lambda verdict: verdict.dtype),
        (">FP32", lambda verdict: format_score(verdict.reference_score)),
        (">score", lambda verdict: format_score(verdict.score)),
        (">ratio", lambda verdict: f"{verdict.ratio:.2%}"),
        (">interval", lambda verdict: f"{100 * verdict.ratio_low:.2f}–{verdict.ratio_high:.2%}"),
        (">target", lambda verdict: f"{verdict.target_ratio:.1%}"),
        (">samples", lambda verdict: str(verdict.samples)),
        ("verdict", lambda verdict: verdict.verdict),
    ]
    judged = emit(
        verdicts.gate_all(references, dtypes, samples=samples, confidence=confidence, out=out),
        document=lambda verdict: verdict.document(),
        columns=columns,
        as_json=as_json,
    )
    if any(verdict.verdict != "pass" for verdict in judged):
        context.exit(REFUSED)
