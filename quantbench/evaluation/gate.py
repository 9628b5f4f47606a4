"""The gate: whether a variant keeps enough of its reference's quality, and with what certainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quantbench.errors import InputError
from quantbench.evaluation.bootstrap import RESAMPLES, SEED, resampled_ratios
from quantbench.evaluation.scoring import Score
from quantbench.references import Reference

__all__ = ["Verdict", "judge"]

_INTERVAL = 0.95

# Scores are ratios of floats: what is equal on paper may differ by a few parts in 10^16, while one sample
# more or less is at least one part in 10^9 of any set that fits here.
_FLOAT_NOISE = 1e-12


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one variant."""

    reference: str
    dtype: str
    metric: str
    reference_score: float
    score: float
    ratio: float
    ratio_low: float
    """Lower end of the 95% percentile interval of the ratio, by paired bootstrap."""
    ratio_high: float
    target_ratio: float
    samples: int
    verdict: Literal["pass", "fail"]
    confidence: float | None
    """How certain the gate was asked to be; None: the scores alone decide."""
    ratio_bound: float | None
    """What the ratio exceeds with that confidence, one-sided; it must reach the target too."""
    resamples: int
    seed: int
    samples_sha256: str
    """sha256 of the ids of the scored samples, one a line."""
    variant_sha256: str
    """The variant that was judged; the verdict says nothing about any other."""

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    def document(self) -> dict[str, Any]:
        """The verdict as one JSON object."""
        return dict(vars(self))


def judge(
    reference: Reference,
    fp32_score: Score,
    variant_score: Score,
    *,
    confidence: float | None = None,
    variant_sha256: str,
) -> Verdict:
    """Compare a variant's score with its reference's on the same samples.

    It passes when score ≥ target_ratio × reference score, and, where a confidence is given, when the lower end of the
    one-sided interval of the ratio at that confidence reaches the target as well.

    Raises:
        InputError: the scores are not of the same samples and metric, the reference scores 0, or the confidence is
            not between 0 and 1.
    """
    if confidence is not None and not 0 < confidence < 1:
        raise InputError(f"--confidence is {confidence:g}; it must lie between 0 and 1, such as 0.95")
    _check_comparable(fp32_score, variant_score)
    target = reference.quality.target_ratio
    ratios = resampled_ratios(fp32_score.outcomes, variant_score.outcomes)
    low, high = np.quantile(ratios, [(1 - _INTERVAL) / 2, (1 + _INTERVAL) / 2])
    bound = None if confidence is None else float(np.quantile(ratios, 1 - confidence))
    passed = _reaches(variant_score.score, target * fp32_score.score) and (bound is None or _reaches(bound, target))
    return Verdict(
        reference=reference.name,
        dtype=variant_score.dtype,
        metric=variant_score.metric,
        reference_score=fp32_score.score,
        score=variant_score.score,
        ratio=variant_score.score / fp32_score.score,
        ratio_low=float(low),
        ratio_high=float(high),
        target_ratio=target,
        samples=variant_score.samples,
        verdict="pass" if passed else "fail",
        confidence=confidence,
        ratio_bound=bound,
        resamples=RESAMPLES,
        seed=SEED,
        samples_sha256=variant_score.samples_sha256,
        variant_sha256=variant_sha256,
    )


def _reaches(value: float, wanted: float) -> bool:
    return value >= wanted * (1 - _FLOAT_NOISE)


def _check_comparable(fp32: Score, variant: Score) -> None:
    for what in ("reference", "metric", "samples_sha256"):
        if getattr(fp32, what) != getattr(variant, what):
            raise InputError(
                f"the scores of {fp32.reference} {fp32.dtype} and {variant.reference} {variant.dtype} differ in "
                f"{what} and cannot be compared; score both on the same samples"
            )
    if not fp32.score > 0:
        raise InputError(
            f"reference {fp32.reference} itself scores 0 in {fp32.metric}, so no ratio to it exists; "
            "check its labels, preprocessing and output"
        )
