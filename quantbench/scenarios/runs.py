"""A run of an opened variant in one scenario: one LoadGen test, or a search for the highest that keeps to the bound."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor
from quantbench.references import Reference
from quantbench.scenarios.probe import concurrency, probe
from quantbench.scenarios.record import Probe, Run
from quantbench.scenarios.rounds import Search, settings, slow_settings
from quantbench.scenarios.search import highest
from quantbench.scenarios.traffic import (
    Traffic,
    highest_rate,
    latency_bound_ms,
    one_by_one,
    paced,
    plan_traffic,
    roomier,
    serving,
)
from quantbench.scenarios.trial import Setup, in_a_sentence, trial
from quantbench.support import atomic_folder, to_json
from quantbench.tasks.base import Task

__all__ = ["run"]

MODES = ("performance", "accuracy")
PROBED = 32
_SUMMARIES = ("mlperf_log_summary.txt", "mlperf_log_detail.txt", "result_line.txt")
"""What is kept of a search's probes; LoadGen's traces are large."""

_HALVINGS = 2
"""How often the guessed rate of a quick run is halved at most."""

_LONGEST_SERVER = 10.0
"""Seconds that the least queries of a quick Server run may take; longer only where the variant is too slow for them."""

logger = logging.getLogger(__name__)


def run(
    reference: Reference,
    executor: Executor,
    dataset: Dataset,
    task: Task,
    *,
    dtype: str,
    scenario: str,
    logs: Path,
    mode: str = "performance",
    round: str = "current",  # noqa: A002 - the name of the option and of the key
    quick: bool = False,
    gated: bool = True,
    target_qps: float | None = None,
    samples_per_query: int | None = None,
) -> Run:
    """Put an opened variant through LoadGen.

    Where the round's result is the highest rate, or the most samples a query, that keeps to a latency bound, it is
    searched for with short tests, and what is found is run at full length, as often as the round wants; the worst of
    these runs is the result. Where one of them fails the bound, the search goes on below. A quick run that is not
    searched for takes a guessed rate, halved, and halved again, where it is too much.

    Args:
        mode: "performance", or "accuracy": every scored sample once, its response logged and scored.
        quick: seconds instead of the rules' length; marks the run as no result.
        gated: only noted in the run; `require_passing` is what asks for a verdict.
        logs: the folder for LoadGen's logs and `run.json`; what stood there is replaced when the run is complete.
            Several runs have a folder each in it (`run_1` …), and so have the probes of a search.
        target_qps: Server's queries a second, instead of searching.
        samples_per_query: MultiStream's where the round leaves it open, instead of searching.

    Raises:
        InputError: an unknown scenario, mode or round; the reference lacks the bound that the scenario needs; the
            variant fails on a sample.
        MissingError: a sample is missing.
    """
    if mode not in MODES:
        raise InputError(f"there is no mode {mode!r}; --mode takes {' or '.join(MODES)}")
    rules = settings(round, scenario, reference.task, quick=quick)
    if len(dataset.scored) == 0:
        raise InputError(f"reference {reference.name}: its data set has no samples left to score")
    setup = Setup(
        reference=reference,
        executor=executor,
        dataset=dataset,
        task=task,
        dtype=dtype,
        mode=mode,
        quick=quick,
        gated=gated,
    )
    bound_ms = latency_bound_ms(rules, reference) if mode == "performance" else None
    what = f"{reference.name} {dtype} {scenario}"
    with in_a_sentence(what):
        inputs = [dataset.scored.input(index) for index in range(min(PROBED, setup.total))]
        speed = probe(executor, task, inputs)
        if scenario == "Server":
            speed = replace(speed, concurrent=concurrency(executor, task, inputs, serving(speed, bound_ms)))
    rules = paced(rules, one_by_one(rules, speed)) if quick else rules
    traffic = plan_traffic(
        rules,
        speed,
        mode=mode,
        total=setup.total,
        bound_ms=bound_ms,
        target_qps=target_qps,
        samples_per_query=samples_per_query,
    )
    searches = mode == "performance" and target_qps is None and samples_per_query is None
    with atomic_folder(logs) as folder:
        if rules.search is not None and searches:
            done = _searched(setup, traffic, rules.search, folder, what)
        elif quick and searches and traffic.target_qps is not None:
            done = _eased(setup, traffic, folder, what)
        else:
            done = _repeated(setup, traffic, folder, what)
        done = replace(done, logs=str(logs / Path(done.logs).relative_to(folder)))
        (folder / "run.json").write_text(to_json(done.document()), encoding="utf-8")
    return done


def _searched(setup: Setup, traffic: Traffic, search: Search, folder: Path, what: str) -> Run:
    """Look for the highest that keeps to the bound in short tests, then run it at full length, the next lower if that
    fails. The probes are part of the run that comes out, which is invalid where nothing keeps to the bound."""
    traffic = replace(traffic, rules=roomier(traffic.rules, traffic.bound_ms))
    probes: list[Run] = []
    whole = search.quantity == "samples_per_query"

    def fits(number: float) -> bool:
        place = folder / "probes" / f"{len(probes) + 1:02}"
        place.mkdir(parents=True)
        shorter = replace(traffic, rules=replace(traffic.rules, **search.shorter))
        done = trial(setup, _asking(shorter, search, number), place, what)
        _keep_summaries(place)
        probes.append(done)
        logger.info("%s: %s %s", what, _said(done, search), "keeps to it" if done.valid else "does not")
        return done.valid

    found = highest(
        fits,
        traffic.samples_per_query if whole else float(traffic.target_qps or 1.0),
        tolerance=search.tolerance,
        whole=whole,
        most=setup.in_memory if whole else float("inf"),
    )
    tried = 0
    done: Run | None = None
    while found is not None and tried < search.attempts:
        for earlier in folder.glob("run_*"):
            shutil.rmtree(earlier)
        done = _repeated(setup, _asking(traffic, search, found), folder, what)
        tried += 1
        if done.valid:
            break
        logger.info("%s: %s does not at full length", what, _said(done, search))
        found = _lower(found, search.tolerance, whole)
    evidence = tuple(each.probe() for each in probes)
    if done is None:  # nothing fits: the last probe says how far from it
        return replace(probes[-1], search=evidence)
    return replace(done, search=evidence)


def _eased(setup: Setup, traffic: Traffic, folder: Path, what: str) -> Run:
    """A test at the guessed rate; where that does not keep to the bound, and a query by itself does, at half of it, and
    so on."""
    least = slow_settings(traffic.rules).min_queries / _LONGEST_SERVER
    rate = max(traffic.target_qps or 1.0, min(least, highest_rate(traffic.speed)))
    possible = traffic.bound_ms is None or traffic.speed.mean[1] * 1e3 < traffic.bound_ms
    slower = [rate / 2**halved for halved in range(1, 1 + _HALVINGS)] if possible else []
    for asked in (rate, *(each for each in slower if each >= least)):
        done = trial(setup, replace(traffic, target_qps=asked, rules=paced(traffic.rules, asked)), folder, what)
        if done.valid:
            break
    return done


def _repeated(setup: Setup, traffic: Traffic, folder: Path, what: str) -> Run:
    """As many tests as the round wants; the worst one, which is an invalid one where there is any."""
    count = traffic.rules.runs if setup.mode == "performance" else 1
    if count == 1:
        return trial(setup, traffic, folder, what)
    runs: list[Run] = []
    for number in range(1, count + 1):
        place = folder / f"run_{number}"
        place.mkdir()
        runs.append(trial(setup, traffic, place, f"{what} {number} of {count}"))
        if not runs[-1].valid:  # the worst of all, whatever the others would be
            break
    repeats: tuple[Probe, ...] = tuple(each.probe() for each in runs)
    worst = min(runs, key=lambda each: (each.valid, each.result, -(each.bounded_ms or 0.0)))
    return replace(worst, repeats=repeats)


def _asking(traffic: Traffic, search: Search, number: float) -> Traffic:
    if search.quantity == "samples_per_query":
        return replace(traffic, samples_per_query=int(number), batch=traffic.speed.batch(largest=int(number)))
    return replace(traffic, target_qps=number)


def _lower(number: float, tolerance: float, whole: bool) -> float | None:
    """The next number to try below one that failed at full length."""
    if not whole:
        return number * (1 - tolerance)
    lower = min(number - 1, int(number * (1 - tolerance)))
    return lower if lower >= 1 else None


def _said(done: Run, search: Search) -> str:
    number = done.target_qps if search.quantity == "target_qps" else done.samples_per_query
    return f"{number:.4g} {search.unit}: {done.bounded_ms:.4g} ms of {done.bound_ms:g}"


def _keep_summaries(place: Path) -> None:
    for file in place.iterdir():
        if file.name not in _SUMMARIES:
            file.unlink()
