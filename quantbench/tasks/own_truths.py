"""Truths for data that nobody has labelled: what the FP32 model itself predicts. A score is then agreement with it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.datasets import Dataset, open_dataset
from quantbench.datasets.base import LazySamples
from quantbench.graphs.executor import Executor, SessionExecutor
from quantbench.references import Reference, fetch, source_models
from quantbench.support import atomic_file, cache_folder, sha256_file
from quantbench.tasks.base import Task
from quantbench.tasks.batching import max_batch
from quantbench.tasks.registry import make_task

__all__ = ["open_with_truths"]

Array = NDArray[Any]

_CHUNK = 16


def open_with_truths(reference: Reference) -> Dataset:
    """The data set of a reference; where it has no labels, the truths are the FP32 model's predictions.

    The model runs as it came, unprepared, through plain ONNX Runtime. Predictions are made 16 at a time when a truth is
    asked for, and kept in the cache for as long as the reference file, the model, the samples and ONNX Runtime stay.

    Raises:
        MissingError: the model or the data is not there.
        InputError: the model or the data cannot be used; on the first truth asked for.
    """
    dataset = open_dataset(reference)
    if dataset.labelled:
        return dataset
    own = _OwnPredictions(reference, dataset)
    scored = LazySamples(dataset.scored.ids, dataset.scored.input, own.__getitem__)
    return dataclasses.replace(dataset, scored=scored, labelled=True)


class _OwnPredictions:
    """The FP32 model's predictions by sample, opened when the first is asked for that no cache has."""

    def __init__(self, reference: Reference, dataset: Dataset) -> None:
        self._reference = reference
        self._samples = dataset.scored
        self._key = _key(reference, dataset)
        self._task: Task = make_task(reference, dataset)
        self._chunks: dict[int, list[Any]] = {}
        self._executor: Executor | None = None

    def __getitem__(self, index: int) -> Any:
        start = index - index % _CHUNK
        if start not in self._chunks:
            self._chunks[start] = self._chunk(start)
        return self._chunks[start][index - start]

    def _chunk(self, start: int) -> list[Any]:
        file = cache_folder() / "agreement" / f"{self._reference.name}-{self._key}-{start:06d}.npz"
        count = min(_CHUNK, len(self._samples) - start)
        kept = _read(file)
        if kept is None or len(kept) != count:
            kept = self._predict(range(start, start + count))
            with atomic_file(file) as temporary, temporary.open("wb") as target:
                ends = np.cumsum([len(answer) for answer in kept])
                np.savez(target, ends=ends, answers=np.frombuffer(b"".join(kept), np.uint8))
        # Fresh predictions take the way through the cache too, so that they are the same ones the next time.
        return [self._task.from_bytes(answer) for answer in kept]

    def _predict(self, indices: range) -> list[bytes]:
        if self._executor is None:
            models = source_models(self._reference)
            self._executor = SessionExecutor({name: model.SerializeToString() for name, model in models.items()})
        size = max_batch(self._executor) or _CHUNK
        answers: list[bytes] = []
        for first in range(indices.start, indices.stop, size):
            inputs = [self._samples.input(index) for index in range(first, min(first + size, indices.stop))]
            raw = self._task.infer(self._executor, self._task.feeds(self._executor, inputs))
            answers += [
                self._task.to_bytes(prediction, first + k) for k, prediction in enumerate(self._task.predictions(raw))
            ]
        return answers


def _key(reference: Reference, dataset: Dataset) -> str:
    description = json.dumps(asdict(reference) | {"file": ""}, default=str, sort_keys=True)
    # The first input stands for how all of them are drawn and prepared, which their ids do not say.
    first = hashlib.sha256(dataset.scored.input(0).tobytes()).hexdigest()
    parts = (description, sha256_file(fetch(reference)), dataset.scored_sha256, first, ort.__version__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read(file: Path) -> list[bytes] | None:
    """The answers in a cache file, or None when there is none or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return [part.tobytes() for part in np.split(archive["answers"], archive["ends"][:-1])]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
