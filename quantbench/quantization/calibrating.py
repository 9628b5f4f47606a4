"""What a conversion learns from its calibration samples before it decides anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration import (
    Feeds,
    Observations,
    Observer,
    Sizes,
    load_kernels,
    load_observations,
    record_feeds,
    save_observations,
)
from quantbench.datasets.base import Samples
from quantbench.numerics.threads import begun
from quantbench.quantization.planning import fast_placement, integer_placement
from quantbench.quantization.recipe import Recipe
from quantbench.support import to_json
from quantbench.tasks import Task

__all__ = ["Calibrated", "Watched", "few_feeds", "inputs_of_each_shape"]

Array = NDArray[Any]
_SAMPLES, _BYTES = 64, 12 << 20
"""Samples that biases are corrected and the outputs' error is measured on, and what their inputs may take: for images
of 224×224, where every channel has thousands of positions, some 20 samples."""
_ROUNDING_BYTES = 64 << 20
"""The same where the method of rounding reads the inputs of weights; it takes all samples."""
_SIZED = 4
"""Samples that say how large tensors are, where not all have the same shape."""


@dataclass(frozen=True)
class Calibrated:
    """Attributes:
    observations: of the tensors that may carry codes.
    sizes: how large the tensors are that could, were nothing faster in float.
    feeds: what the task feeds its graphs for some of the samples.
    answers: the task's answers to all of them; none where they did not all run.
    """

    observations: Observations = field(default_factory=dict)
    sizes: Sizes = field(default_factory=dict)
    feeds: Feeds = field(default_factory=dict)
    answers: Sequence[Any] = ()


class Watched:
    """Graphs, opened to be watched where the recipe puts integers, which takes a while.

    Args:
        models: the prepared graphs by name.
        recipe: what is asked.
        task: what is done with them.
        inputs: of `inputs_of_each_shape`. What is faster in float for them is not watched.
    """

    def __init__(self, models: Mapping[str, ir.Model], recipe: Recipe, task: Task, inputs: Sequence[Array]) -> None:
        self._models, self._recipe, self._task = models, recipe, task
        could = {name: integer_placement(model, recipe).tensors for name, model in models.items()}
        if any(could.values()):
            begun(load_kernels)  # which a process does once
        self._observer = Observer(models, could)
        self._sizes = self._observer.sizes(task, inputs)
        placed = {name: fast_placement(model, recipe, self._sizes[name])[0] for name, model in models.items()}
        self._observer.watch({name: placement.tensors for name, placement in placed.items()})

    def calibrate(
        self, samples: Samples, count: int, folder: Path | None, source: Callable[[], Mapping[str, Any]]
    ) -> Calibrated:
        """Run the first `count` samples.

        Args:
            folder: where observations are kept, and looked for first.
            source: everything that the variant depends on.

        Raises:
            InputError: a tensor becomes NaN or infinite, or the folder cannot be written to.
        """
        recorded = (_SAMPLES, _BYTES) if self._recipe.weight_rounding == "nearest" else (count, _ROUNDING_BYTES)
        if folder is None or not self._watches:
            seen, feeds, answers = self._observer.observe(self._task, samples, count, *recorded)
            return Calibrated(seen, self._sizes, feeds, answers)
        made_of = source()
        key = self._key(made_of)
        file = folder / f"{made_of['reference']}-{key[:16]}.npz"
        known = load_observations(file, key)
        seen, feeds, answers = self._observer.observe(self._task, samples, count, *recorded, known)
        if known is None:
            save_observations(file, seen, key)
        return Calibrated(seen, self._sizes, feeds, answers)

    @property
    def _watches(self) -> bool:
        return any(self._observer.tensors.values())

    def _key(self, source: Mapping[str, Any]) -> str:
        """What observations depend on: the graphs as they are run, the tensors, the samples, the tools."""
        calibration, tensors = source["calibration"], self._observer.tensors
        digest = hashlib.sha256(to_json([calibration["samples"], calibration["inputs_sha256"]]).encode())
        digest.update(to_json([source["tools"], {name: list(names) for name, names in tensors.items()}]).encode())
        for model in self._models.values():
            digest.update(ir.to_proto(model).SerializeToString(deterministic=True))
        return digest.hexdigest()


def few_feeds(models: Mapping[str, ir.Model], task: Task, samples: Samples, count: int) -> Feeds:
    """What the task feeds the graphs for some of the first `count` samples, without watching anything."""
    return record_feeds(models, task, samples, count, _SAMPLES, _BYTES)


def inputs_of_each_shape(samples: Samples, count: int) -> list[Array]:
    """Inputs of a few of the first `count` samples, one of each shape that they have."""
    few = min(_SIZED, count)
    inputs = (samples.input(index * count // few) for index in range(few))
    return list({array.shape: array for array in inputs}.values())
