"""The whole way for many references and dtypes: convert, score, gate, run what passed, and write the report."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from quantbench import evaluation
from quantbench.evaluation import Score, Verdict
from quantbench.operations.catalogue import AnyReference, chosen
from quantbench.operations.conversions import REFERENCE_DTYPE, up_to_date_variant
from quantbench.operations.runs import run_scenarios
from quantbench.operations.scores import Bench, open_bench, score
from quantbench.operations.verdicts import judge
from quantbench.quantization import load_variant
from quantbench.references import Reference, fetch
from quantbench.reports import (
    REFERENCE,
    ROUND,
    Result,
    ScenarioResult,
    read_results,
    read_studies,
    write_report,
    write_results,
)
from quantbench.scenarios import SCENARIOS
from quantbench.support import sha256_file, sha256_lines

__all__ = ["DTYPES", "report"]

DTYPES = ("int8", "fp16", "bfloat16", "fp11")
"""What is converted where nothing is asked for."""

logger = logging.getLogger(__name__)


def report(
    names: Iterable[AnyReference] = (),
    dtypes: Sequence[str] = (),
    *,
    samples: int | None = None,
    out: str | Path = "variants",
    logs: str | Path = "runs",
    reports: str | Path = "reports",
    force: bool = False,
) -> Iterator[Result]:
    """Yield the results of each reference, FP32 first, and write `index.html`, `index.md` and `results.json`.

    Results in `results.json` whose inputs have not changed are taken from there unless `force`. It is written again
    after each reference, so an interrupted report goes on where it was.

    Raises:
        InputError: a reference, model, data set or folder cannot be used.
        MissingError: a model or data set is not there.
    """
    out, logs, reports = Path(out), Path(logs), Path(reports)
    dtypes = [dtype for dtype in dict.fromkeys(dtypes or DTYPES) if dtype != REFERENCE_DTYPE]
    file = reports / "results.json"
    known = {} if force else {(result.reference, result.dtype): result for result in read_results(file)}
    results: list[Result] = []
    for reference in chosen(names):
        bench = open_bench(reference, out)
        rows = _reused(bench, dtypes, samples, known) or _measured(bench, dtypes, samples, logs)
        results += rows
        known |= {(row.reference, row.dtype): row for row in rows}
        write_results(file, list(known.values()))
        yield from rows
    write_results(file, results)
    write_report(reports, results, read_studies(reports))


def _reused(
    bench: Bench, dtypes: Sequence[str], samples: int | None, known: dict[tuple[str, str], Result]
) -> list[Result]:
    """The known results of a reference if every one of them still holds, else none."""
    rows = []
    for dtype in (REFERENCE_DTYPE, *dtypes):
        if dtype != REFERENCE_DTYPE:
            up_to_date_variant(bench.reference, dtype, bench.out)
        row = known.get((bench.reference.name, dtype))
        if row is None or row.fingerprint != _fingerprint(bench, dtype, samples):
            return []
        rows.append(row)
    logger.info("%s: nothing has changed, %d results kept", bench.reference.name, len(rows))
    return rows


def _measured(bench: Bench, dtypes: Sequence[str], samples: int | None, logs: Path) -> list[Result]:
    baseline = score(bench, REFERENCE_DTYPE, samples=samples)
    rows = []
    for dtype in (REFERENCE_DTYPE, *dtypes):
        scored = baseline if dtype == REFERENCE_DTYPE else score(bench, dtype, samples=samples)
        verdict = judge(bench, baseline, scored)
        said = f", {verdict.ratio:.2%} of FP32, {verdict.verdict}" if dtype != REFERENCE_DTYPE else ""
        logger.info("%s %s: score %s%s", verdict.reference, dtype, evaluation.format_score(verdict.score), said)
        rows.append(_result(bench, baseline, scored, verdict, samples, logs))
    return rows


def _result(bench: Bench, baseline: Score, scored: Score, verdict: Verdict, samples: int | None, logs: Path) -> Result:
    runs = tuple(_quick_runs(bench, scored.dtype, logs)) if verdict.passed else ()
    is_reference = scored.dtype == REFERENCE_DTYPE
    reference_bytes = fetch(bench.reference).stat().st_size
    model_bytes = reference_bytes
    if not is_reference:
        model_bytes = load_variant(bench.out, bench.reference, scored.dtype).manifest["model_bytes"]
    return Result(
        reference=verdict.reference,
        dtype=verdict.dtype,
        metric=verdict.metric,
        reference_score=verdict.reference_score,
        score=verdict.score,
        ratio=verdict.ratio,
        ratio_low=verdict.ratio_low,
        ratio_high=verdict.ratio_high,
        target_ratio=verdict.target_ratio,
        samples=verdict.samples,
        verdict=REFERENCE if is_reference else verdict.verdict,
        model_bytes=model_bytes,
        reference_bytes=reference_bytes,
        speed=scored.samples_per_second / baseline.samples_per_second,
        execution=scored.execution,
        fingerprint=_fingerprint(bench, scored.dtype, samples),
        scenarios=runs,
    )


def _quick_runs(bench: Bench, dtype: str, logs: Path) -> Iterator[ScenarioResult]:
    latency = bench.reference.latency
    possible = [name for name in SCENARIOS if name != "Server" or (latency and latency.server_ms)]
    for run in run_scenarios(
        bench, dtype, possible, mode="performance", round=ROUND, quick=True, gated=True, logs=logs
    ):
        logger.info("%s %s %s: %.4g %s", run.reference, run.dtype, run.scenario, run.result, run.unit)
        yield ScenarioResult(run.scenario, run.result, run.unit, run.valid, run.queries)


def _fingerprint(bench: Bench, dtype: str, samples: int | None) -> str:
    """sha256 over what a result depends on. For a variant, the verdict that is in its folder is part of it."""
    ids = bench.dataset.scored.ids[:samples]
    parts = [version("quantbench"), dtype, sha256_lines(ids), _reference_sha256(bench.reference)]
    if dtype != REFERENCE_DTYPE:
        variant = load_variant(bench.out, bench.reference, dtype)
        verdict = evaluation.read_verdict(variant.path)
        parts += [variant.sha256, "" if verdict is None else verdict.variant_sha256 + verdict.samples_sha256]
    return sha256_lines(parts)


def _reference_sha256(reference: Reference) -> str:
    return sha256_lines([sha256_file(reference.file), sha256_file(fetch(reference))])
