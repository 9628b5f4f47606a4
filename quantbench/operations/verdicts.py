"""The gate: a variant's score against its reference's, on the same samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from quantbench import evaluation
from quantbench.evaluation import Score, Verdict
from quantbench.operations.catalogue import AnyReference, chosen
from quantbench.operations.conversions import REFERENCE_DTYPE, up_to_date_variant
from quantbench.operations.scores import Bench, open_bench, score
from quantbench.quantization import load_variant

__all__ = ["gate", "gate_all", "judge"]


def gate(
    reference: AnyReference,
    dtype: str,
    *,
    samples: int | None = None,
    confidence: float | None = None,
    out: str | Path = "variants",
) -> Verdict:
    """Judge one variant, which is converted first when it is missing or out of date, and write its `verdict.json`.

    Args:
        samples: score only the first so many; None scores all.
        confidence: pass only when the lower end of the ratio's interval at this confidence clears the target.

    Raises:
        InputError: the reference, the model, the data or the variant cannot be used.
        MissingError: the model or the data is not there.
    """
    (verdict,) = gate_all([reference], [dtype], samples=samples, confidence=confidence, out=out)
    return verdict


def gate_all(
    names: Iterable[AnyReference],
    dtypes: Sequence[str],
    *,
    samples: int | None = None,
    confidence: float | None = None,
    out: str | Path = "variants",
) -> Iterator[Verdict]:
    """`gate` for each reference and dtype; FP32 is scored once a reference."""
    for reference in chosen(names):
        bench = open_bench(reference, Path(out))
        for dtype in dtypes:  # before the long part, so that what cannot be converted is known soon
            if dtype != REFERENCE_DTYPE:
                up_to_date_variant(reference, dtype, bench.out)
        baseline = score(bench, REFERENCE_DTYPE, samples=samples)
        for dtype in dtypes:
            scored = baseline if dtype == REFERENCE_DTYPE else score(bench, dtype, samples=samples)
            yield judge(bench, baseline, scored, confidence=confidence)


def judge(bench: Bench, baseline: Score, scored: Score, *, confidence: float | None = None) -> Verdict:
    """Judge a score against FP32's and write `verdict.json` into the variant; FP32 itself has no folder to write to."""
    if scored.dtype == REFERENCE_DTYPE:
        return evaluation.judge(bench.reference, baseline, scored, confidence=confidence, variant_sha256="")
    variant = load_variant(bench.out, bench.reference, scored.dtype)
    verdict = evaluation.judge(bench.reference, baseline, scored, confidence=confidence, variant_sha256=variant.sha256)
    evaluation.write_verdict(variant.path, verdict)
    return verdict
