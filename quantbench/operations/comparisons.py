"""Our variant of a reference beside those that other projects' quantizers make."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantbench import evaluation
from quantbench.errors import InputError, QuantbenchError
from quantbench.evaluation import Score
from quantbench.numerics import get_format
from quantbench.operations.apart import convert_apart
from quantbench.operations.catalogue import AnyReference, chosen
from quantbench.operations.conversions import REFERENCE_DTYPE
from quantbench.operations.scores import Bench, open_bench, score
from quantbench.quantization import load_variant, open_variant
from quantbench.quantization.backends import get_backend, installed_backends
from quantbench.quantization.variant import NATIVE
from quantbench.tasks import make_task

__all__ = ["Comparison", "compare", "compare_all"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One backend's variant. Where the backend fails, `error` says why and all that was to be measured is None.

    Attributes:
        score: the metric's value; ratio: to FP32's on the same samples, with the ends of its paired 95% interval.
        seconds, peak_bytes: wall time of the conversion, and the largest resident size of its process.
        calibration_seconds: of `seconds`, what observing took; 0 where a backend does not tell it apart.
        model_bytes: size of the graphs.
        speedup: FP32's inference time over the variant's, at the batch that `evaluate` takes.
    """

    reference: str
    dtype: str
    backend: str
    score: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    target_ratio: float
    samples: int
    seconds: float | None = None
    calibration_seconds: float | None = None
    peak_bytes: int | None = None
    model_bytes: int | None = None
    speedup: float | None = None
    error: str | None = None

    def document(self) -> dict[str, Any]:
        """The comparison as one JSON object."""
        return asdict(self)


def compare(
    reference: AnyReference,
    dtype: str,
    backends: Sequence[str] = (),
    *,
    samples: int | None = None,
    granularity: str | None = None,
    calibrator: str | None = None,
    recipe: str | Path | None = None,
) -> list[Comparison]:
    """Convert, score and time what each backend makes of a reference; nothing of it is kept.

    Args:
        backends: "native" and other quantizers, in the order wanted; without any, all that are installed.
        samples: score only the first so many; None scores all.
        granularity, calibrator: as of `convert`, for every backend; None leaves each its own default.
        recipe: a recipe file for the native backend.

    Raises:
        InputError: an unknown backend or format; the reference, the model or the data cannot be used.
        MissingError: the model or the data is not there.
    """
    return list(
        compare_all(
            [reference],
            [dtype],
            backends,
            samples=samples,
            granularity=granularity,
            calibrator=calibrator,
            recipe=recipe,
        )
    )


def compare_all(
    names: Iterable[AnyReference],
    dtypes: Sequence[str],
    backends: Sequence[str] = (),
    *,
    samples: int | None = None,
    granularity: str | None = None,
    calibrator: str | None = None,
    recipe: str | Path | None = None,
) -> Iterator[Comparison]:
    """`compare` for each reference and dtype, one backend after the other."""
    formats = [get_format(dtype).name for dtype in dtypes]
    if REFERENCE_DTYPE in formats:
        raise InputError(f"{REFERENCE_DTYPE} is what variants are compared with; give another --dtype")
    backends = list(dict.fromkeys(backends)) or [NATIVE, *installed_backends()]
    for backend in backends:
        if backend != NATIVE:
            get_backend(backend)
    options = {"granularity": granularity, "calibrator": calibrator}
    for reference in chosen(names):
        with tempfile.TemporaryDirectory() as folder:
            bench = open_bench(reference, Path(folder))
            baseline = score(bench, REFERENCE_DTYPE, samples=samples)
            for dtype in formats:
                for backend in backends:
                    own = {"recipe": recipe} if backend == NATIVE else {}
                    row = _compared(bench, baseline, {**options, **own, "dtype": dtype, "backend": backend})
                    if row.error is not None:
                        logger.info("%s: %s", backend, row.error)
                    yield row


def _compared(bench: Bench, baseline: Score, options: dict[str, Any]) -> Comparison:
    dtype, backend = options["dtype"], options["backend"]
    row: dict[str, Any] = {
        "reference": bench.reference.name,
        "dtype": dtype,
        "backend": backend,
        "target_ratio": bench.reference.quality.target_ratio,
        "samples": baseline.samples,
    }
    try:
        cost = convert_apart(bench.reference, options, bench.out)
        variant = dtype if backend == NATIVE else f"{dtype}@{backend}"
        exact = open_variant(bench.reference, REFERENCE_DTYPE, bench.out)
        executor = open_variant(bench.reference, variant, bench.out)
        scored = evaluation.evaluate(
            bench.reference, executor, dtype=variant, samples=baseline.samples, dataset=bench.dataset
        )
        verdict = evaluation.judge(
            bench.reference,
            baseline,
            scored,
            variant_sha256=load_variant(bench.out, bench.reference, variant).sha256,
        )
        speedup = evaluation.speedup(make_task(bench.reference, bench.dataset), bench.dataset, exact, executor)
    except QuantbenchError as error:
        return Comparison(**row, error=str(error))
    return Comparison(
        **row,
        score=verdict.score,
        ratio=verdict.ratio,
        ratio_low=verdict.ratio_low,
        ratio_high=verdict.ratio_high,
        seconds=cost.seconds,
        calibration_seconds=cost.calibration_seconds,
        peak_bytes=cost.peak_bytes,
        model_bytes=cost.model_bytes,
        speedup=speedup,
    )
