"""Scoring references and their variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantbench import evaluation
from quantbench.datasets import Dataset
from quantbench.evaluation import Score
from quantbench.operations.catalogue import AnyReference, chosen
from quantbench.operations.conversions import REFERENCE_DTYPE, up_to_date_variant
from quantbench.quantization import open_variant
from quantbench.references import Reference
from quantbench.tasks import open_with_truths

__all__ = ["Bench", "evaluate", "evaluate_all", "open_bench", "score"]


@dataclass(frozen=True)
class Bench:
    """A reference with its data set open, shared by everything that is done with its variants."""

    reference: Reference
    dataset: Dataset
    out: Path
    """The folder of all variants."""


def evaluate(
    reference: AnyReference,
    dtype: str = REFERENCE_DTYPE,
    *,
    samples: int | None = None,
    batch: int | None = None,
    out: str | Path = "variants",
) -> Score:
    """Score one variant, which is converted first when it is missing or out of date; by default FP32.

    Args:
        samples: score only the first so many; None scores all.
        batch: samples in one inference; None takes what suits the model.

    Raises:
        InputError: the reference, the model, the data or the variant cannot be used.
        MissingError: the model or the data is not there.
    """
    (reference,) = chosen([reference])
    return score(open_bench(reference, Path(out)), dtype, samples=samples, batch=batch)


def evaluate_all(
    names: Iterable[AnyReference],
    dtypes: Sequence[str],
    *,
    samples: int | None = None,
    batch: int | None = None,
    out: str | Path = "variants",
) -> Iterator[Score]:
    """The scores of each reference: FP32 first, then each dtype, on the same samples."""
    for reference in chosen(names):
        bench = open_bench(reference, Path(out))
        for dtype in dict.fromkeys([REFERENCE_DTYPE, *dtypes]):
            yield score(bench, dtype, samples=samples, batch=batch)


def open_bench(reference: Reference, out: Path) -> Bench:
    """Open the data set of a reference."""
    return Bench(reference, open_with_truths(reference), out)


def score(bench: Bench, dtype: str, *, samples: int | None = None, batch: int | None = None) -> Score:
    """Score one dtype of an opened reference; its variant is converted first when missing or out of date."""
    if dtype != REFERENCE_DTYPE:
        up_to_date_variant(bench.reference, dtype, bench.out)
    executor = open_variant(bench.reference, dtype, bench.out, scoring=True)
    return evaluation.evaluate(
        bench.reference, executor, dtype=dtype, samples=samples, batch=batch, dataset=bench.dataset
    )
