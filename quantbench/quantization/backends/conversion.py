"""From a reference to a variant that a backend quantized."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from quantbench.datasets import Dataset, open_dataset
from quantbench.datasets.hashing import HashedSamples
from quantbench.errors import InputError, QuantbenchError
from quantbench.graphs import SessionExecutor
from quantbench.numerics import get_format
from quantbench.quantization.backends import Backend, PeerRecipe, get_backend
from quantbench.quantization.backends.feeds import CalibrationFeeds
from quantbench.quantization.backends.readying import readied
from quantbench.quantization.manifest import (
    Conversion,
    account,
    provenance,
    up_to_date_manifest,
    write_variant,
)
from quantbench.quantization.rules import check_granularity
from quantbench.quantization.variant import variant_folder
from quantbench.references import Reference, source_models
from quantbench.support import to_json
from quantbench.tasks import make_task

__all__ = ["convert_with"]

_WEIGHTS = ("int4", "uint4", "int8", "uint8", "int16", "uint16")


def convert_with(
    reference: Reference, recipe: PeerRecipe, *, out: Path = Path("variants"), force: bool = False
) -> Conversion:
    """Make the variant that a backend's quantizer gives, `out/reference/dtype@backend`, unless it stands there already.

    The backend gets the graphs as their authors publish them (`readied`, but not prepared as our own quantizer has
    them) and the samples that calibrate our own variants, one a call. Of several graphs each is quantized by itself, on
    what the FP32 model feeds it. The folder appears whole or not at all.

    Raises:
        MissingError: the backend, the model or the calibration data is not there.
        InputError: the backend does not offer what the recipe asks for or fails on the model; the model, the data or
            the output folder cannot be used.
    """
    started = time.perf_counter()
    backend = get_backend(recipe.backend)
    check_granularity(reference, recipe.granularity)
    recipe = replace(recipe, granularity=recipe.granularity or reference.rules.granularity)
    settings = backend.settings(recipe)
    backend.require()
    dataset = open_dataset(reference)
    count = _calibration_count(recipe, dataset)
    name = get_format(recipe.dtype).name
    folder = variant_folder(out, reference.name, f"{name}@{backend.name}")
    source = provenance(
        reference,
        dataset,
        count,
        HashedSamples(dataset.calibration).inputs_sha256(count),
        dtype=name,
        backend=backend.name,
        recipe=recipe.document(),
        calibrator=recipe.calibrator or backend.calibrator,
        seed=0,
        tools=[backend.distribution],
    )
    kept = None if force else up_to_date_manifest(folder, source)
    if kept is not None:
        return account(folder, kept, time.perf_counter() - started, 0.0, kept=True)
    models = {
        graph: readied(model, f"{reference.name}'s graph {graph}") for graph, model in source_models(reference).items()
    }
    calibrating = time.perf_counter()
    quantized = _quantized(backend, reference, models, dataset, count, settings)
    calibration_seconds = time.perf_counter() - calibrating
    plan = {
        "reference": reference.name,
        "recipe": recipe.document(),
        "backend": {"name": backend.name, "version": version(backend.distribution)},
        "settings": settings,
    }
    graphs = {graph: model.SerializeToString(deterministic=True) for graph, model in quantized.items()}
    manifest = write_variant(folder, source, to_json(plan), graphs, _weight_elements(models, quantized))
    return account(folder, manifest, time.perf_counter() - started, calibration_seconds, kept=False)


def _calibration_count(recipe: PeerRecipe, dataset: Dataset) -> int:
    available = len(dataset.calibration)
    count = available if recipe.calibration_samples is None else recipe.calibration_samples
    if count > available:
        raise InputError(f"--calibration-samples asks for {count}, but the reference has {available}")
    return count


def _quantized(
    backend: Backend,
    reference: Reference,
    models: Mapping[str, onnx.ModelProto],
    dataset: Dataset,
    count: int,
    settings: Mapping[str, Any],
) -> dict[str, onnx.ModelProto]:
    """What the backend makes of each graph."""
    executor = SessionExecutor({name: model.SerializeToString() for name, model in models.items()})
    task = make_task(reference, dataset)
    quantized: dict[str, onnx.ModelProto] = {}
    for graph, model in models.items():
        feeds = CalibrationFeeds(executor, task, dataset.calibration, count, graph, loops=len(models) > 1)
        try:
            quantized[graph] = backend.quantize(model, feeds, settings)
        except QuantbenchError:
            raise
        except (Exception, SystemExit) as error:  # neural-compressor exits where it finds nothing to do
            reason = (str(error).strip().splitlines() or [""])[0]
            raise InputError(
                f"--backend {backend.name} cannot quantize {reference.name}'s graph {graph}: "
                f"{type(error).__name__}: {reason}"
            ) from error
    return quantized


def _weight_elements(models: Mapping[str, onnx.ModelProto], quantized: Mapping[str, onnx.ModelProto]) -> dict[str, int]:
    """Elements of the weights by format: what stands in integers of at most 16 bits and at least two axes, and biases
    in int32; the rest of the reference's float constants is in FP32."""
    counts: dict[str, int] = {}
    for model in quantized.values():
        for tensor in model.graph.initializer:
            name = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            if (name in _WEIGHTS and len(tensor.dims) >= 2) or (name == "int32" and len(tensor.dims) == 1):
                counts[name] = counts.get(name, 0) + int(np.prod(tensor.dims, dtype=np.int64))
    floats = sum(
        int(np.prod(tensor.dims, dtype=np.int64))
        for model in models.values()
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )
    left = floats - sum(counts.values())
    return counts | ({"fp32": left} if left > 0 else {})
