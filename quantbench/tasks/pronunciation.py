"""Pronunciation: a GRU encoder over letters and a greedy decoder over phonemes, one graph for a step of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor, TensorSpec
from quantbench.references import Reference
from quantbench.tasks.batching import cast

__all__ = ["PronunciationTask"]

Array = NDArray[Any]

_START, _STOP = 2, 3
_MAX_STEPS = 20


@dataclass(frozen=True)
class Words:
    """Words of one call, the longest first, so that those still being read are always the first rows."""

    positions: Array  # (n,) int64: where each row stood in the list of inputs
    tokens: Array  # (longest, n) grapheme ids, ended by </s>, then zeros
    active: tuple[int, ...]  # how many words have a letter at each step


@dataclass(frozen=True)
class PronunciationTask:
    """Graphs `encoder` (token (n), state (n, units) → next_state) and `decoder` (the same → logits, next_state).

    A sample is a vector of grapheme ids ended by </s>; a prediction is the phonemes joined by spaces.
    """

    phonemes: tuple[str, ...]
    name: str = "pronunciation"

    @classmethod
    def of(cls, reference: Reference, dataset: Dataset) -> PronunciationTask:
        """
        Raises:
            InputError: the data set does not say which phoneme each class is.
        """
        if not dataset.prediction_space:
            raise InputError(
                f'reference {reference.name}: its data set names no phonemes; use kind = "pronunciation" in [dataset]'
            )
        return cls(tuple(dataset.prediction_space))

    def feeds(self, executor: Executor, inputs: Sequence[Array]) -> Words:
        lengths = np.array([len(word) for word in inputs])
        positions = np.argsort(-lengths, kind="stable")
        tokens = np.zeros((int(lengths.max(initial=0)), len(inputs)), np.int64)
        for row, position in enumerate(positions):
            tokens[: lengths[position], row] = inputs[position]
        token = _spec(executor, "encoder", "token")
        return Words(positions, cast(tokens, token), tuple(int((lengths > step).sum()) for step in range(len(tokens))))

    def infer(self, executor: Executor, feeds: Words) -> Array:
        """Greedy decoding, at most 20 phonemes a word.

        Returns (n, 21) phoneme ids in the order of the inputs; what follows a word's end is </s>.

        Words that are read, or spoken, to their end leave the batch: their rows are not computed again.
        """
        decoded = self._speak(executor, self._read(executor, feeds))
        ordered = np.empty_like(decoded)
        ordered[feeds.positions] = decoded
        return ordered

    def predictions(self, raw: Array) -> list[str]:
        ends = (raw == _STOP).argmax(axis=1)  # the last column is always _STOP
        return [" ".join(self.phonemes[k] for k in row[:end]) for row, end in zip(raw, ends, strict=True)]

    def classes(self, raw: Array) -> int | None:
        return None

    def to_bytes(self, prediction: str, index: int) -> bytes:
        """The phonemes in UTF-8, joined by spaces."""
        return prediction.encode()

    def from_bytes(self, data: bytes) -> str:
        return data.decode()

    def _read(self, executor: Executor, words: Words) -> Array:
        """The encoder's state (n, units) after the last letter of each word."""
        spec = _spec(executor, "encoder", "state")
        state = np.zeros((len(words.positions), _units(spec)), spec.dtype)
        for tokens, active in zip(words.tokens, words.active, strict=True):
            feeds = {"token": tokens[:active], "state": state[:active]}
            state[:active] = _step(executor, "encoder", feeds, ("next_state",))[0]
        return state

    def _speak(self, executor: Executor, state: Array) -> Array:
        """(n, 21) phoneme ids; what follows a word's </s>, and the last column, is </s>."""
        spec = _spec(executor, "decoder", "token")
        spoken = np.full((len(state), _MAX_STEPS + 1), _STOP, np.int64)
        rows = np.arange(len(state))
        token = np.full(len(state), _START, spec.dtype)
        for step in range(_MAX_STEPS):
            logits, state = _step(executor, "decoder", {"token": token, "state": state}, ("logits", "next_state"))
            token = logits.argmax(axis=1).astype(spec.dtype)
            spoken[rows, step] = token
            going = token != _STOP
            if not going.any():
                break
            if not going.all():
                rows, token, state = rows[going], token[going], state[going]
        return spoken


def _step(executor: Executor, graph: str, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """One step of a graph: in slices of its batch, the last padded, where that is fixed."""
    names = [spec.name for spec in executor.outputs(graph)]
    order = [names.index(name) for name in outputs]
    fixed = _spec(executor, graph, "token").shape[0]
    count = len(feeds["token"])
    if fixed is None or fixed == count:
        results = executor.run(feeds, graph)
        return [results[k] for k in order]
    parts = []
    for start in range(0, count, fixed):
        part = {name: values[start : start + fixed] for name, values in feeds.items()}
        size = len(part["token"])
        padded = {name: np.concatenate([values, values[-1:].repeat(fixed - size, 0)]) for name, values in part.items()}
        parts.append([result[:size] for result in executor.run(padded, graph)])
    return [np.concatenate([part[k] for part in parts]) for k in order]


def _spec(executor: Executor, graph: str, name: str) -> TensorSpec:
    for spec in executor.inputs(graph):
        if spec.name == name:
            return spec
    raise InputError(f"graph {graph} has no input {name}; a pronunciation model has the inputs token and state")


def _units(spec: TensorSpec) -> int:
    units = spec.shape[-1] if spec.shape else None
    if units is None:
        raise InputError(f"input {spec.name} does not say how wide the state is; export it with a fixed last size")
    return units
