"""LoadGen runs of variants that passed the gate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from quantbench import scenarios
from quantbench.operations.catalogue import AnyReference, chosen
from quantbench.operations.conversions import REFERENCE_DTYPE, up_to_date_variant
from quantbench.operations.scores import Bench, open_bench
from quantbench.quantization import load_variant, open_variant
from quantbench.scenarios import Run
from quantbench.tasks import make_task

__all__ = ["run", "run_all", "run_scenarios"]


def run(
    reference: AnyReference,
    dtype: str,
    scenario: str,
    *,
    mode: str = "performance",
    round: str = "current",  # noqa: A002 - the name of the option and of the key
    quick: bool = False,
    ungated: bool = False,
    out: str | Path = "variants",
    logs: str | Path = "runs",
) -> Run:
    """Put one variant through LoadGen in one scenario; its logs go to `logs/reference/dtype/scenario-mode`.

    Args:
        scenario: "SingleStream", "MultiStream", "Server" or "Offline".
        mode: "performance", or "accuracy": every scored sample once.
        round: whose rules, "current" or "v0.5".
        quick: seconds instead of the rules' length; the run is marked as no result.
        ungated: run without a passing verdict; the run is marked so.

    Raises:
        RefusedError: the variant has no fresh passing verdict.
        InputError: the reference, the model, the data or the variant cannot be used.
        MissingError: the model or the data is not there.
    """
    (done,) = run_all(
        [reference], [dtype], [scenario], mode=mode, round=round, quick=quick, ungated=ungated, out=out, logs=logs
    )
    return done


def run_all(
    names: Iterable[AnyReference],
    dtypes: Sequence[str],
    scenario_names: Sequence[str],
    *,
    mode: str = "performance",
    round: str = "current",  # noqa: A002 - the name of the option and of the key
    quick: bool = False,
    ungated: bool = False,
    out: str | Path = "variants",
    logs: str | Path = "runs",
) -> Iterator[Run]:
    """`run` for each reference, dtype and scenario."""
    for reference in chosen(names):
        bench = open_bench(reference, Path(out))
        for dtype in dtypes:
            if dtype != REFERENCE_DTYPE:
                up_to_date_variant(reference, dtype, bench.out)
                if not ungated:
                    variant = load_variant(bench.out, reference, dtype)
                    scenarios.require_passing(reference, dtype, variant.path, variant.sha256)
            yield from run_scenarios(
                bench, dtype, scenario_names, mode=mode, round=round, quick=quick, gated=not ungated, logs=Path(logs)
            )


def run_scenarios(
    bench: Bench,
    dtype: str,
    scenario_names: Sequence[str],
    *,
    mode: str,
    round: str,  # noqa: A002
    quick: bool,
    gated: bool,
    logs: Path,
) -> Iterator[Run]:
    """Open one dtype of an opened reference and run the scenarios in turn."""
    executor = open_variant(bench.reference, dtype, bench.out)
    task = make_task(bench.reference, bench.dataset)
    for scenario in scenario_names:
        yield scenarios.run(
            bench.reference,
            executor,
            bench.dataset,
            task,
            dtype=dtype,
            scenario=scenario,
            mode=mode,
            round=round,
            quick=quick,
            gated=gated,
            logs=logs / bench.reference.name / dtype / f"{scenario}-{mode}",
        )
