"""Studies: the emulated quality of many formats on one reference, sharing all that they have in common."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pydantic

from quantbench import evaluation
from quantbench.datasets import Dataset
from quantbench.datasets.keeping import keep_samples
from quantbench.errors import InputError
from quantbench.evaluation import Score
from quantbench.graphs.load import load_graphs
from quantbench.numerics import Format, get_format
from quantbench.numerics.threads import in_order, side_by_side
from quantbench.operations.catalogue import AnyReference, chosen
from quantbench.operations.conversions import REFERENCE_DTYPE
from quantbench.quantization import open_variant
from quantbench.quantization.emulation import check_emulated, open_emulated
from quantbench.references import Reference, fetch
from quantbench.reports import Cell, read_results, read_studies, study_folder, write_report, write_study
from quantbench.support import atomic_file, sha256_file, sha256_lines, to_json
from quantbench.tasks import open_with_truths

__all__ = ["grid", "study", "study_all"]

logger = logging.getLogger(__name__)

_CELLS = pydantic.TypeAdapter(dict[str, Cell])
_TOOLS = ("quantbench", "numpy", "numba", "onnx", "onnx_ir", "onnxruntime")


def study(
    reference: AnyReference,
    formats: Iterable[str | Format],
    *,
    samples: int | None = None,
    out: str | Path = "reports",
    force: bool = False,
) -> tuple[Cell, ...]:
    """Score a reference in many formats, weights and activations both, without writing variants.

    The scores are those of `convert` and `evaluate`. What is found is kept in `out/studies/REFERENCE/` after each
    format, so an interrupted study goes on where it was. `study.json`, the heat map and the pages in `out` follow.

    Args:
        formats: names or formats, float or block formats; integers need calibration and cannot be studied.
        samples: score only the first so many; None scores all.
        out: the folder of the pages.
        force: score again what is known.

    Returns:
        one cell a format, in the order given.

    Raises:
        InputError: no format, one that cannot be emulated, or a reference, model or data set that cannot be used.
        MissingError: the model or the data is not there.
    """
    return tuple(study_all([reference], formats, samples=samples, out=out, force=force))


def study_all(
    names: Iterable[AnyReference],
    formats: Iterable[str | Format],
    *,
    samples: int | None = None,
    out: str | Path = "reports",
    force: bool = False,
) -> Iterator[Cell]:
    """`study` for each reference."""
    asked = list(dict.fromkeys(check_emulated(name) for name in formats))
    if not asked:
        raise InputError("there is no format to study; name some with --formats, or a grid with --exponent, --mantissa")
    if samples is not None and samples < 1:
        raise InputError(f"--samples is {samples}; it must be at least 1")
    out = Path(out)
    for reference in chosen(names):
        cells = _cells(reference, asked, samples, study_folder(out, reference.name), force)
        write_study(study_folder(out, reference.name), cells)
        write_report(out, read_results(out / "results.json"), read_studies(out))
        yield from cells


def grid(exponents: Iterable[int], mantissas: Iterable[int]) -> list[Format]:
    """The IEEE-like formats with these numbers of exponent and mantissa bits, every pair.

    Raises:
        InputError: a number of bits that no format has.
    """
    columns = list(mantissas)
    return [get_format(f"e{exponent}m{mantissa}") for exponent in exponents for mantissa in columns]


def _cells(reference: Reference, asked: Sequence[Format], samples: int | None, folder: Path, force: bool) -> list[Cell]:
    """The cells of one reference: from the state file where it has them, else scored and noted there."""
    dataset = open_with_truths(reference)
    count = min(samples or len(dataset.scored), len(dataset.scored))
    kept = keep_samples(dataset.scored, count, f"{reference.name} inputs")
    key = _key(reference, count, kept.sha256())
    file = _state_file(folder, key)
    known = {} if force else _known(file, key)
    missing = [fmt for fmt in asked if fmt.name not in known]
    if len(missing) < len(asked):
        logger.info("%s: %d of %d formats are known already", reference.name, len(asked) - len(missing), len(asked))
    if missing:
        _write_state(file, key, known)  # a folder that cannot be written to shows now, not after the first score
        for cell in _scored(reference, dataclasses.replace(dataset, scored=kept), missing):
            known[cell.format] = cell
            _write_state(file, key, known)
    return [known[fmt.name] for fmt in asked]


def _scored(reference: Reference, dataset: Dataset, formats: Sequence[Format]) -> Iterator[Cell]:
    """Score each format, several side by side; the prepared graphs, the inputs and FP32's outcomes serve them all."""
    models = load_graphs(reference)
    executor = open_variant(reference, REFERENCE_DTYPE, out=Path())
    baseline = evaluation.evaluate(reference, executor, dtype=REFERENCE_DTYPE, dataset=dataset)
    calls, _ = side_by_side()
    workers = min(calls, len(formats))

    def scored(fmt: Format) -> Cell:
        if fmt.name == REFERENCE_DTYPE:
            return _cell(reference, fmt, baseline, baseline)
        executor = open_emulated(models, fmt, calls // workers)
        score = evaluation.evaluate(reference, executor, dtype=fmt.name, dataset=dataset)
        return _cell(reference, fmt, baseline, score)

    started = time.perf_counter()
    for number, cell in enumerate(in_order(scored, formats, workers), 1):
        left = (time.perf_counter() - started) / number * (len(formats) - number)
        progress = f"{number} of {len(formats)}" + (f", about {left:.0f} s left" if left >= 1 else "")
        logger.info(
            "%s %s: %.2f%% of FP32, %s (%s)", cell.reference, cell.format, 100 * cell.ratio, cell.verdict, progress
        )
        yield cell


def _cell(reference: Reference, fmt: Format, baseline: Score, scored: Score) -> Cell:
    verdict = evaluation.judge(reference, baseline, scored, variant_sha256="")
    return Cell(
        reference=reference.name,
        format=fmt.name,
        bits=fmt.bits,
        exponent_bits=fmt.exponent_bits,
        mantissa_bits=fmt.mantissa_bits,
        metric=verdict.metric,
        reference_score=verdict.reference_score,
        score=verdict.score,
        ratio=verdict.ratio,
        ratio_low=verdict.ratio_low,
        ratio_high=verdict.ratio_high,
        target_ratio=verdict.target_ratio,
        samples=verdict.samples,
        verdict=verdict.verdict,
    )


def _key(reference: Reference, samples: int, inputs_sha256: str) -> dict[str, Any]:
    """Everything that a cell depends on besides its format."""
    description = json.dumps(dataclasses.asdict(reference) | {"file": "", "folder": ""}, default=str, sort_keys=True)
    return {
        "reference": reference.name,
        "reference_sha256": sha256_lines([description, sha256_file(fetch(reference))]),
        "samples": samples,
        "inputs_sha256": inputs_sha256,
        "tools": {name: version(name) for name in _TOOLS},
    }


def _state_file(folder: Path, key: dict[str, Any]) -> Path:
    """Where the cells of one key are: another number of samples, say, leaves those of the former in their place."""
    return folder / f"state-{sha256_lines([json.dumps(key)])[:16]}.json"


def _known(file: Path, key: dict[str, Any]) -> dict[str, Cell]:
    """The cells of a state file by format; none where there is no file yet.

    Raises:
        InputError: the folder cannot be used.
    """
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        if state["key"] == key:
            return _CELLS.validate_python(state["cells"])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; choose another folder with --out") from error
    except (ValueError, KeyError, TypeError):
        pass
    logger.info("%s is damaged; its formats are scored again", file)
    return {}


def _write_state(file: Path, key: dict[str, Any], cells: dict[str, Cell]) -> None:
    document = {"key": key, "cells": {name: cell.document() for name, cell in cells.items()}}
    with atomic_file(file) as temporary:
        temporary.write_text(to_json(document), encoding="utf-8")
