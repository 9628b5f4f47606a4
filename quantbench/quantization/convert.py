"""From a reference and a recipe to a variant on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from quantbench.datasets import Dataset, open_dataset
from quantbench.datasets.hashing import HashedSamples
from quantbench.datasets.keeping import keep_samples
from quantbench.errors import InputError
from quantbench.graphs.arena import shrink_shared_arena
from quantbench.graphs.load import load_graphs
from quantbench.graphs.passes import PREPARE, infer_shapes
from quantbench.metrics import get_metric
from quantbench.numerics import get_format
from quantbench.numerics.threads import begun
from quantbench.quantization.agreement import Agreement
from quantbench.quantization.calibrating import Calibrated, Watched, few_feeds, inputs_of_each_shape
from quantbench.quantization.decider import Decider
from quantbench.quantization.decision import Decision
from quantbench.quantization.harmful import Answers
from quantbench.quantization.manifest import (
    Conversion,
    account,
    provenance,
    up_to_date_manifest,
    write_variant,
)
from quantbench.quantization.mixing import choose_narrow
from quantbench.quantization.plan import Plan
from quantbench.quantization.planning import check_rules
from quantbench.quantization.precision import share_with_least_error
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.rules import within_rules
from quantbench.quantization.transforms import Equalized, equalize, fold_tables
from quantbench.quantization.variant import NATIVE, variant_folder
from quantbench.references import Reference
from quantbench.support import return_memory, settled
from quantbench.tasks import make_task

__all__ = ["convert"]

_BUDGET = 4.0
"""Squared error of the outputs over their variance, in units of 1 − target, that narrow weights may cause at first."""
_HIGHEST_TARGET = 1 - 1e-6
"""What a target of all of FP32's quality is taken as, so that its searches have something to keep to."""
_INPUT_BYTES = 1 << 26
"""Prepared inputs to hold; what does not fit is prepared again."""


@settled()
def convert(
    reference: Reference,
    recipe: Recipe,
    *,
    out: Path = Path("variants"),
    force: bool = False,
    observations: Path | None = None,
) -> Conversion:
    """Make the variant that `recipe` asks for under `out`, unless it stands there already.

    The same reference, calibration samples, recipe and tools give the same bytes. The folder appears whole or not at
    all; what stood there before stays until then.

    Args:
        reference: the FP32 model and its data.
        recipe: what is asked.
        out: where variants stand.
        force: make it anew.
        observations: a folder in which what calibration has seen is kept, and looked for first.

    Raises:
        MissingError: the model or the calibration data is not there.
        InputError: the model, the data, the recipe or the output folder cannot be used.
    """
    started = time.perf_counter()
    recipe = within_rules(reference, recipe)
    dataset = open_dataset(reference)
    count = _calibration_count(recipe, dataset)
    folder = variant_folder(out, reference.name, recipe.dtype)
    anew = force or not folder.exists()
    task = make_task(reference, dataset)
    metric = None if dataset.labelled else get_metric(reference.quality.metric)
    load = partial(_load, reference, recipe)
    loading = begun(load) if anew else None  # while samples are prepared
    watching = None
    if loading and count and not recipe.equalizes:
        inputs = inputs_of_each_shape(dataset.calibration, count)
        watching = begun(lambda: Watched(loading.result()[0], recipe, task, inputs))
    samples = HashedSamples(keep_samples(dataset.calibration, count, "reading calibration samples", _INPUT_BYTES))

    def source() -> dict[str, Any]:
        return _source(reference, recipe, dataset, count, samples.inputs_sha256(count))

    kept = None if anew else up_to_date_manifest(folder, source())
    if kept is not None:
        return account(folder, kept, time.perf_counter() - started, 0.0, kept=True)
    models, folded = load() if loading is None else loading.result()
    return_memory()
    calibrating = time.perf_counter()
    equalized: dict[str, tuple[Equalized, ...]] = {}
    if recipe.equalizes:
        feeds = few_feeds(models, task, samples, count)
        equalized = {name: equalize(model, feeds[name]) for name, model in models.items()}
    calibrated = Calibrated()
    if count:
        if watching is None:
            watched = Watched(models, recipe, task, inputs_of_each_shape(samples, count))
        else:
            watched = watching.result()
        calibrated = watched.calibrate(samples, count, observations, source)
        del watched, watching  # with their sessions
    shrink_shared_arena()
    return_memory()
    calibration_seconds = time.perf_counter() - calibrating
    described = begun(source)
    agreement = Agreement(models, task, samples, count, calibrated.answers, metric)
    decisions = _decisions(reference, recipe, models, calibrated, agreement)
    plan = Plan(
        reference.name,
        recipe.document(),
        _transforms(recipe),
        {
            name: replace(decision.plan, folded=folded[name], equalized=equalized.get(name, ()))
            for name, decision in decisions.items()
        },
    )
    written = {name: decision.written(models[name]) for name, decision in decisions.items()}
    graphs = {name: ir.to_proto(model).SerializeToString(deterministic=True) for name, model in written.items()}
    manifest = write_variant(folder, described.result(), plan.to_json(), graphs, _weight_elements(plan, models))
    return account(folder, manifest, time.perf_counter() - started, calibration_seconds, kept=False)


def _load(reference: Reference, recipe: Recipe) -> tuple[dict[str, ir.Model], dict[str, tuple[str, ...]]]:
    """The reference's graphs, checked and ready to be observed, and what became part of a table in each."""
    models = load_graphs(reference)
    check_rules(models, recipe)
    return models, {name: fold_tables(model) if recipe.tables else () for name, model in models.items()}


def _decisions(
    reference: Reference,
    recipe: Recipe,
    models: Mapping[str, ir.Model],
    calibrated: Calibrated,
    agreement: Agreement,
) -> dict[str, Decision]:
    """Decide every graph; of the weights that could be narrow, as many as the recipe asks or the answers bear."""
    target = reference.quality.target_ratio if recipe.target_ratio is None else recipe.target_ratio
    target = min(target, _HIGHEST_TARGET)
    limit = (1 - target) / 2 if recipe.output_error is None else recipe.output_error

    def lost(changed: Mapping[str, ir.Model]) -> float:
        """What is lost with these graphs in place of the exact ones, in units of what may be."""
        return agreement.lost({**models, **changed}) / (1 - target)

    def stay(name: str, model: ir.Model) -> bool:
        return lost({name: model}) <= (1 / len(models) if agreement.is_score else 1)  # the score will be of all graphs

    @cache
    def hopeless() -> bool:
        return lost({name: each.weights_alone.written(models[name]) for name, each in deciders.items()}) > 1

    tell = any(calibrated.observations.values()) and recipe.output_error is None and agreement.tells
    deciders = {
        name: Decider(
            model,
            recipe,
            calibrated.observations.get(name, {}),
            calibrated.sizes.get(name, {}),
            calibrated.feeds.get(name, []),
            limit,
            Answers(partial(stay, name), agreement.is_score, hopeless) if tell else None,
        )
        for name, model in models.items()
    }
    narrow = {name: decider.narrow for name, decider in deciders.items()}
    if not any(narrow.values()) or recipe.narrow_share == 1:
        return {name: decider.decide(narrow[name]) for name, decider in deciders.items()}
    known: dict[tuple[str, frozenset[str]], Decision] = {}

    def decided(chosen: Mapping[str, frozenset[str]]) -> dict[str, Decision]:
        for name, weights in chosen.items():
            if (name, weights) not in known:
                known[name, weights] = deciders[name].decide(weights)
        return {name: known[name, weights] for name, weights in chosen.items()}

    def excess(chosen: Mapping[str, frozenset[str]]) -> float:
        decisions = decided(chosen)
        if agreement.tells:  # they change in proportion to the error, and budgets are of its square
            return lost({name: each.written(models[name]) for name, each in decisions.items()}) ** 2
        return max(deciders[name].error_of(each) for name, each in decisions.items()) / limit

    weights = {name: decider.candidates for name, decider in deciders.items()}
    if recipe.narrow_share:
        share = recipe.narrow_share
        return {name: deciders[name].final(share_with_least_error(each, share)) for name, each in weights.items()}
    return decided(choose_narrow(weights, _BUDGET * (1 - target), excess))


def _transforms(recipe: Recipe) -> tuple[str, ...]:
    names = [*dict.fromkeys(rewrite.__name__ for rewrite in PREPARE if rewrite is not infer_shapes)]
    if recipe.tables:
        names.append("fold_tables")
    if recipe.equalizes:
        names.append("equalization")
    if recipe.has_integers and recipe.bias_correction:
        names.append("bias_correction")
    return tuple(names)


def _calibration_count(recipe: Recipe, dataset: Dataset) -> int:
    """How many samples the conversion looks at: none where no tensor becomes an integer."""
    available = len(dataset.calibration)
    count = available if recipe.calibration_samples is None else recipe.calibration_samples
    if count > available:
        raise InputError(f"--calibration-samples asks for {count}, but the reference has {available}")
    return count if recipe.has_integers else 0


def _source(reference: Reference, recipe: Recipe, dataset: Dataset, count: int, inputs: str) -> dict[str, Any]:
    """Everything the variant depends on; the first part of its manifest."""
    return provenance(
        reference,
        dataset,
        count,
        inputs,
        dtype=get_format(recipe.dtype).name,
        backend=NATIVE,
        recipe=recipe.document(),
        calibrator=recipe.calibrator if recipe.has_integers else "none",
        seed=recipe.seed,
    )


def _weight_elements(plan: Plan, models: Mapping[str, ir.Model]) -> dict[str, int]:
    """Elements of the float constants of the prepared graphs, by the format the plan gives them."""
    counts: dict[str, int] = {}
    for name, model in models.items():
        tensors = plan.graphs[name].tensors
        for key, value in model.graph.initializers.items():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
                label = tensors[key].format if key in tensors else "fp32"
                counts[label] = counts.get(label, 0) + int(np.prod(value.const_value.shape.numpy(), dtype=np.int64))
    return counts
