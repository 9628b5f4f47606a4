"""From a reference and a recipe to a variant on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration import Observations, observe, record_feeds
from quantbench.datasets import Dataset, open_dataset
from quantbench.errors import InputError
from quantbench.graphs.load import load_graphs
from quantbench.graphs.passes import PREPARE
from quantbench.numerics import get_format
from quantbench.quantization.decision import decide
from quantbench.quantization.plan import Plan
from quantbench.quantization.planning import check_rules, integer_placement
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.variant import MANIFEST, PLAN, damaged_file, read_manifest, variant_folder
from quantbench.quantization.writing import write_graph
from quantbench.references import Reference, fetch
from quantbench.support import atomic_folder, sha256_file, sha256_lines, to_json
from quantbench.tasks import make_task

__all__ = ["Calibration", "Conversion", "convert"]

Array = NDArray[Any]
_FEED_SAMPLES = 32
"""Samples whose tensors are held in memory while biases are corrected and the outputs' error is measured."""
_TOOLS = ("quantbench", "numpy", "onnx", "onnx_ir", "onnxruntime")


@dataclass(frozen=True)
class Calibration:
    """How a variant was calibrated. Nothing was observed where `samples` is 0."""

    samples: int
    seconds: float
    list_sha256: str
    calibrator: str


@dataclass(frozen=True)
class Conversion:
    """What one conversion did.

    Attributes:
        seconds: wall time of the whole conversion; near 0 where the variant was up to date and kept.
        weight_elements: number of weight elements by format.
        model_bytes: size of the variant's graphs; reference_bytes: of the reference's files.
        kept: whether an up-to-date variant was found and kept.
    """

    reference: str
    dtype: str
    path: Path
    seconds: float
    calibration: Calibration
    weight_elements: dict[str, int]
    model_bytes: int
    reference_bytes: int
    kept: bool

    def document(self) -> dict[str, Any]:
        """The JSON document of the command."""
        return asdict(self) | {"path": str(self.path)}


def convert(reference: Reference, recipe: Recipe, *, out: Path = Path("variants"), force: bool = False) -> Conversion:
    """Make the variant that `recipe` asks for under `out`, unless it stands there already.

    The same reference, calibration samples, recipe and tools give the same bytes. The folder appears whole or not at
    all; what stood there before stays until then.

    Raises:
        MissingError: the model or the calibration data is not there.
        InputError: the model, the data, the recipe or the output folder cannot be used.
    """
    started = time.perf_counter()
    dataset = open_dataset(reference)
    count = _calibration_count(recipe, dataset)
    folder = variant_folder(out, reference.name, recipe.dtype)
    source = _source(reference, recipe, dataset, count)
    kept = None if force else _up_to_date_manifest(folder, source)
    if kept is not None:
        return _conversion(folder, kept, time.perf_counter() - started, 0.0, kept=True)
    models = load_graphs(reference)
    check_rules(models, recipe)
    task = make_task(reference, dataset)
    calibrating = time.perf_counter()
    tensors = {name: integer_placement(model, recipe).tensors for name, model in models.items()}
    observations: Observations = {}
    if any(tensors.values()):
        observations = observe(models, tensors, task, dataset.calibration, count)
    feeds: dict[str, list[dict[str, Array]]] = {}
    if recipe.has_integers:
        feeds = record_feeds(models, task, dataset.calibration, min(count, _FEED_SAMPLES))
    limit = (1 - reference.quality.target_ratio) / 2 if recipe.output_error is None else recipe.output_error
    decisions = {
        name: decide(model, recipe, observations.get(name, {}), feeds.get(name, ()), limit)
        for name, model in models.items()
    }
    calibration_seconds = time.perf_counter() - calibrating
    plan = Plan(
        reference.name,
        recipe.document(),
        _transforms(recipe),
        {name: decision.plan for name, decision in decisions.items()},
    )
    written = {
        name: write_graph(models[name], decision.plan, decision.weights, decision.shifts)
        for name, decision in decisions.items()
    }
    manifest = _write(folder, source, plan, models, written)
    return _conversion(folder, manifest, time.perf_counter() - started, calibration_seconds, kept=False)


def _transforms(recipe: Recipe) -> tuple[str, ...]:
    names = [*dict.fromkeys(rewrite.__name__ for rewrite in PREPARE)]
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


def _source(reference: Reference, recipe: Recipe, dataset: Dataset, count: int) -> dict[str, Any]:
    """Everything a variant depends on; the first part of its manifest."""
    file = fetch(reference)
    description = json.dumps(asdict(reference) | {"file": ""}, default=str, sort_keys=True)
    return {
        "reference": reference.name,
        "dtype": get_format(recipe.dtype).name,
        "reference_sha256": hashlib.sha256(f"{description}\n{sha256_file(file)}\n".encode()).hexdigest(),
        "reference_bytes": file.stat().st_size,
        "recipe": recipe.document(),
        "calibration": {
            "samples": count,
            "list_sha256": sha256_lines(dataset.calibration.ids[:count]),
            "inputs_sha256": _inputs_sha256(dataset, count),
            "calibrator": recipe.calibrator if recipe.has_integers else "none",
        },
        "seed": recipe.seed,
        "tools": {name: version(name) for name in _TOOLS},
    }


def _inputs_sha256(dataset: Dataset, count: int) -> str:
    """sha256 of the prepared calibration inputs, so that changed data under the same names counts as changed."""
    digest = hashlib.sha256()
    for index in range(count):
        digest.update(dataset.calibration.input(index).tobytes())
    return digest.hexdigest()


def _up_to_date_manifest(folder: Path, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the variant that stands there, if it was made from `source` and is whole; else None."""
    manifest = read_manifest(folder)
    if manifest is None or any(manifest.get(key) != value for key, value in source.items()):
        return None
    return None if damaged_file(folder, manifest) else manifest


def _write(
    folder: Path,
    source: Mapping[str, Any],
    plan: Plan,
    models: Mapping[str, ir.Model],
    written: Mapping[str, ir.Model],
) -> dict[str, Any]:
    """Write the variant's folder in one step; returns its manifest."""
    with atomic_folder(folder) as temporary:
        for name, model in written.items():
            (temporary / f"{name}.onnx").write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
        (temporary / PLAN).write_text(plan.to_json(), encoding="utf-8")
        files = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        manifest = {
            **source,
            "weight_elements": _weight_elements(plan, models),
            "model_bytes": sum((temporary / f"{name}.onnx").stat().st_size for name in written),
            "files": files,
        }
        (temporary / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    return manifest


def _weight_elements(plan: Plan, models: Mapping[str, ir.Model]) -> dict[str, int]:
    """Elements of the float constants of the prepared graphs, by the format the plan gives them."""
    counts: dict[str, int] = {}
    for name, model in models.items():
        tensors = plan.graphs[name].tensors
        for key, value in model.graph.initializers.items():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
                label = tensors[key].format if key in tensors else "fp32"
                counts[label] = counts.get(label, 0) + int(np.prod(value.const_value.shape.numpy(), dtype=np.int64))
    return dict(sorted(counts.items()))


def _conversion(
    folder: Path, manifest: Mapping[str, Any], seconds: float, calibration_seconds: float, *, kept: bool
) -> Conversion:
    calibration = manifest["calibration"]
    return Conversion(
        reference=manifest["reference"],
        dtype=manifest["dtype"],
        path=folder,
        seconds=seconds,
        calibration=Calibration(
            calibration["samples"], calibration_seconds, calibration["list_sha256"], calibration["calibrator"]
        ),
        weight_elements=manifest["weight_elements"],
        model_bytes=manifest["model_bytes"],
        reference_bytes=manifest["reference_bytes"],
        kept=kept,
    )
