"""Translation: an LSTM encoder over the source, and beam search with an attending decoder, a graph for each step.

The graphs and their inputs are those of `references/builders/gnmt.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor, TensorSpec
from quantbench.references import Reference
from quantbench.tasks.batching import cast
from quantbench.tasks.beam_search import Beams

__all__ = ["TranslationTask", "join_subwords"]

Array = NDArray[Any]

_BEAMS = 10
_LENGTH_PENALTY = 1.0
_LENGTH_FACTOR = 2
"""A translation is at most so many times as long as its source."""


@dataclass(frozen=True)
class Sentences:
    """Source sentences of one call, the longest first, so that those still being read are always the first rows."""

    positions: Array  # (n,) int64: where each row stood in the list of inputs
    lengths: Array  # (n,) int64
    tokens: Array  # (longest, n) ids as the reader goes forward, then zeros
    reversed_tokens: Array  # (longest, n): each sentence from its end, then zeros


@dataclass(frozen=True)
class Memory:
    """What the encoder makes of n sentences: what the decoder reads at each step, and the states it starts from."""

    rows: dict[str, Array]  # memory, keys (n, t, units), mask (n, t)
    states: dict[str, Array]  # c_k, h_k (n, units)


@dataclass(frozen=True)
class TranslationTask:
    """A sample is a vector of source ids; a prediction is the translation's text, subwords joined."""

    words: tuple[str, ...]
    start: int
    end: int
    beams: int = _BEAMS
    name: str = "translation"

    @classmethod
    def of(cls, reference: Reference, dataset: Dataset) -> TranslationTask:
        """
        Raises:
            InputError: the data set has no vocabulary, or one without <s> and </s>.
        """
        words = tuple(dataset.prediction_space or ())
        if "<s>" not in words or "</s>" not in words:
            raise InputError(
                f"reference {reference.name}: its data set has no vocabulary with <s> and </s>; "
                'use kind = "parallel-text" in [dataset]'
            )
        return cls(words, words.index("<s>"), words.index("</s>"))

    def feeds(self, executor: Executor, inputs: Sequence[Array]) -> Sentences:
        for sample in inputs:
            if sample.ndim != 1 or sample.size == 0 or sample.dtype.kind not in "iu":
                raise InputError(
                    f"translation reads vectors of one or more word ids, but a sample is {sample.dtype} {sample.shape}"
                )
        lengths = np.array([len(sentence) for sentence in inputs])
        positions = np.argsort(-lengths, kind="stable")
        tokens = np.zeros((int(lengths.max(initial=0)), len(inputs)), np.int64)
        backwards = np.zeros_like(tokens)
        for row, position in enumerate(positions):
            tokens[: lengths[position], row] = inputs[position]
            backwards[: lengths[position], row] = inputs[position][::-1]
        spec = _spec(executor, "bidirectional", "token_fw")
        return Sentences(positions, lengths[positions], cast(tokens, spec), cast(backwards, spec))

    def infer(self, executor: Executor, feeds: Sentences) -> list[Array]:
        """The ids of each translation, without its end token, in the order of the inputs.

        Sentences that are read, or translated, to their end leave the batch.
        """
        translated = self._write(executor, _read(executor, feeds), feeds.lengths * _LENGTH_FACTOR)
        ordered: list[Array] = [np.empty(0, np.int64)] * len(translated)
        for position, sentence in zip(feeds.positions, translated, strict=True):
            ordered[position] = sentence
        return ordered

    def predictions(self, raw: list[Array]) -> list[str]:
        """
        Raises:
            InputError: the decoder knows more words than the vocabulary.
        """
        if any(ids.max(initial=0) >= len(self.words) for ids in raw):
            raise InputError(f"the decoder puts out words beyond the vocabulary's {len(self.words)}; check the files")
        return [join_subwords(self.words[word] for word in ids) for ids in raw]

    def classes(self, raw: list[Array]) -> int | None:
        return None

    def to_bytes(self, prediction: str, index: int) -> bytes:
        """The text in UTF-8."""
        return prediction.encode()

    def from_bytes(self, data: bytes) -> str:
        return data.decode()

    def _write(self, executor: Executor, memory: Memory, limits: Array) -> list[Array]:
        """The best hypothesis of each sentence, at most `limits` tokens with its end token."""
        count = len(limits)
        done: list[Array] = [np.empty(0, np.int64)] * count
        rows = np.arange(count)
        read = memory.rows
        units = next(iter(memory.states.values())).shape[-1]
        states = {name: value[:, None].repeat(self.beams, 1) for name, value in memory.states.items()}
        states["attention"] = np.zeros((count, self.beams, units), read["memory"].dtype)
        beams = Beams.start(count, self.beams)
        token = np.full((count, self.beams), self.start, _spec(executor, "decoder", "token").dtype)
        while len(rows):
            values = _step(executor, "decoder", {"token": token, **states, **read})
            beams = beams.step(values["logits"], self.end, _LENGTH_PENALTY)
            going = ~beams.ended.all(axis=1) & (beams.tokens.shape[2] < limits[rows])
            for row in np.flatnonzero(~going):
                best = beams.tokens[row, 0]
                done[rows[row]] = best[: int((best == self.end).argmax())] if self.end in best else best
            if not going.all():
                beams, rows = beams.rows(going), rows[going]
                read = {name: value[going] for name, value in read.items()}
            parents = beams.parents
            lines = np.flatnonzero(going)[:, None]
            states = {name: values[f"next_{name}"][lines, parents] for name in states}
            token = beams.tokens[:, :, -1].astype(token.dtype)
        return done


def join_subwords(words: Iterable[str]) -> str:
    """Words of a byte pair encoding (Sennrich et al. 2016), where `@@` ends a part that goes on, as text."""
    return " ".join(words).replace("@@ ", "").removesuffix("@@")


def _read(executor: Executor, sentences: Sentences) -> Memory:
    """Run the encoder over every sentence."""
    lengths = sentences.lengths
    steps, count = sentences.tokens.shape
    states = _zeros(executor, "bidirectional", count)
    units = states["h_fw"].shape[1]
    layers = np.zeros((2, steps, count, units), states["h_fw"].dtype)
    for step in range(steps):
        active = int((lengths > step).sum())
        tokens = {"token_fw": sentences.tokens[step, :active], "token_bw": sentences.reversed_tokens[step, :active]}
        _advance(executor, "bidirectional", tokens, states, active)
        layers[0, step, :active] = states["h_fw"][:active]
        backward = lengths[:active] - 1 - step  # where the reader from the end stands
        layers[1, backward, np.arange(active)] = states["h_bw"][:active]
    above = _zeros(executor, "encoder", count)
    memory = np.zeros((count, steps, units), layers.dtype)
    keys = np.zeros_like(memory)
    for step in range(steps):
        active = int((lengths > step).sum())
        inputs = {"forward": layers[0, step, :active], "backward": layers[1, step, :active]}
        values = _advance(executor, "encoder", inputs, above, active)
        memory[:active, step], keys[:active, step] = values["output"], values["keys"]
    # The decoder's layers start where the encoder's ended; the first one's from the layer that reads backwards.
    start = {"c_0": states["c_bw"], "h_0": states["h_bw"]}
    for name, value in above.items():
        kind, _, layer = name.partition("_")
        start[f"{kind}_{int(layer) + 1}"] = value
    mask = np.arange(steps) < lengths[:, None]
    return Memory({"memory": memory, "keys": keys, "mask": mask}, start)


def _advance(
    executor: Executor, graph: str, inputs: Mapping[str, Array], states: dict[str, Array], active: int
) -> dict[str, Array]:
    """One step of the first `active` rows; their states are changed in place. Returns every output by name."""
    values = _step(executor, graph, {**inputs, **{name: state[:active] for name, state in states.items()}})
    for name, state in states.items():
        state[:active] = values[f"next_{name}"]
    return values


def _step(executor: Executor, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [spec.name for spec in executor.outputs(graph)]
    return dict(zip(names, executor.run(feeds, graph), strict=True))


def _zeros(executor: Executor, graph: str, count: int) -> dict[str, Array]:
    """The states of a graph before its first step, by name."""
    specs = [spec for spec in executor.inputs(graph) if spec.name.startswith(("c_", "h_"))]
    return {spec.name: np.zeros((count, _units(spec)), spec.dtype) for spec in specs}


def _units(spec: TensorSpec) -> int:
    units = spec.shape[-1] if spec.shape else None
    if units is None:
        raise InputError(f"input {spec.name} does not say how wide the state is; export it with a fixed last size")
    return units


def _spec(executor: Executor, graph: str, name: str) -> TensorSpec:
    try:
        for spec in executor.inputs(graph):
            if spec.name == name:
                return spec
    except KeyError as error:
        raise InputError(
            f"a translation model has the graphs bidirectional, encoder and decoder, not {graph}"
        ) from error
    raise InputError(f"graph {graph} has no input {name}; a translation model's graphs are those of the builder gnmt")
