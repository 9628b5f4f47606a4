"""gnmt-twin: a checkpoint with the arrays of the official GNMT, names and sizes alike, drawn from a seed.

The scales follow what trained LSTMs have, so that gates neither stick nor idle: embeddings and kernels of variance
1 / inputs, and an attention that looks at few tokens. The output projection alone has learnt something: a translation
of each motif of `_sentences.py`, as the readout of an echo state network does (Jaeger 2001).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.references.builders.gnmt import ENCODER_LAYERS, build, shapes
from quantbench.references.generators._sentences import SHORTEST, SPECIAL, training_sentences
from quantbench.support import progress

__all__ = ["LONGEST", "SUFFIX", "VOCABULARY", "draw", "generate"]

Array = NDArray[Any]

SUFFIX = ".npz"

UNITS = 1024
VOCABULARY = 36548
"""Words of either side: 32,000 merges and the characters, as the official checkpoint's output projection has."""
LONGEST = 16
"""Words of a sentence learnt from, at most."""

_KERNEL_GAIN = 2.0
_ATTENTION_SHARPNESS = 12.0
_CERTAINTY = 20.0
"""The logit of the right word, above the mean of its logits."""
_LOGIT_SPREAD = 0.5
"""Standard deviation of the logits of words that are in no translation."""
_RIDGE = 0.1
_VARIATIONS = 6

_START, _END = SPECIAL.index("<s>"), SPECIAL.index("</s>")


def generate(file: Path, seed: int) -> None:
    """Write the full-size checkpoint, about 0.8 GB."""
    arrays: dict[str, Any] = draw(seed)
    with file.open("wb") as target:
        np.savez(target, **arrays)


def draw(seed: int, *, units: int = UNITS, vocabulary: int = VOCABULARY, longest: int = LONGEST) -> dict[str, Array]:
    """The arrays by name. Smaller sizes are for tests."""
    rng = np.random.Generator(np.random.PCG64(seed))
    arrays = {name: _array(rng, name, shape) for name, shape in shapes(units, vocabulary, vocabulary).items()}
    states, words = _lessons(rng, arrays, vocabulary, longest)
    (projection,) = (name for name in arrays if "output_projection" in name)
    arrays[projection] = _readout(rng, states, words, vocabulary)
    return arrays


def _array(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    kind = name.rsplit("/", 1)[-1]
    if "output_projection" in name:
        return np.zeros(shape, np.float32)
    if kind == "attention_g":
        return np.array(_ATTENTION_SHARPNESS, np.float32)
    array = rng.standard_normal(shape, np.float32)
    if kind == "bias" or kind == "attention_b":
        return array * np.float32(0.1)
    if len(shape) == 2 and not kind.startswith("embedding"):
        return array * np.float32(_KERNEL_GAIN / np.sqrt(shape[0]))
    return array


def _lessons(rng: np.random.Generator, arrays: dict[str, Array], vocabulary: int, longest: int) -> tuple[Array, Array]:
    """What the last layer sees before each word of the translations, (rows, units), and those words, (rows,).

    Each motif has a translation of words drawn at random, which the decoder is told word by word.
    """
    steps = _steps(arrays)
    states, words = [], []
    motifs = training_sentences(_VARIATIONS, vocabulary, longest)
    for sentences in progress(motifs, len(motifs), "drawing a translator"):
        length = int(rng.integers(SHORTEST, longest, endpoint=True))
        translation = [*rng.integers(len(SPECIAL), vocabulary, length), _END]
        memory, values = _read(steps, sentences)
        values["attention"] = np.zeros((len(sentences), 1, memory["memory"].shape[2]), np.float32)
        for before, word in zip([_START, *translation], translation, strict=False):
            values["token"] = np.full((len(sentences), 1), before)
            values = steps["decoder"](values | memory)
            states.append(values["top"][:, 0])
            words.append(np.full(len(sentences), word))
    return np.concatenate(states), np.concatenate(words)


def _readout(rng: np.random.Generator, states: Array, words: Array, vocabulary: int) -> Array:
    """Weights (units, vocabulary) that make logits of states: a ridge regression (Hoerl and Kennard 1970).

    The projection has no bias, so the mean state is taken out of the weights instead, or one word would always win.
    """
    mean = states.mean(axis=0, dtype=np.float64)
    centred = states - mean
    common = mean / np.linalg.norm(mean)
    weights = rng.standard_normal((len(mean), vocabulary), np.float32)
    weights -= np.outer(common, common @ weights).astype(np.float32)
    weights *= _LOGIT_SPREAD / np.sqrt(np.einsum("ij,ij->j", centred @ weights, centred @ weights) / len(states))
    learnt, numbers = np.unique(words, return_inverse=True)
    centred -= np.outer(centred @ common, common)
    likeness = centred @ centred.T
    ridge = _RIDGE * np.trace(likeness) / len(likeness) * np.eye(len(likeness))
    right = np.eye(len(learnt))[numbers]
    weights[:, learnt] = _CERTAINTY * centred.T @ np.linalg.solve(likeness + ridge, right - right.mean(axis=0))
    return weights.astype(np.float32)


def _steps(arrays: dict[str, Array]) -> dict[str, _Step]:
    """The step graphs to call; the decoder puts out `top`, what the projection would read, and no logits."""
    models = build(arrays)
    decoder = models["decoder"].graph
    (projection,) = (node for node in decoder.node if node.output[0] == "logits")
    (logits,) = (output for output in decoder.output if output.name == "logits")
    decoder.node.append(onnx.helper.make_node("Identity", [projection.input[0]], ["top"]))
    decoder.node.remove(projection)
    logits.CopyFrom(onnx.ValueInfoProto(name="top"))
    return {name: _Step(model) for name, model in models.items()}


class _Step:
    """A step graph, opened."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.states = {
            each.name: each.shape[-1] for each in self._session.get_inputs() if each.name[:2] in ("c_", "h_")
        }

    def __call__(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """Outputs by name, those of states as the inputs that they are for."""
        wanted = (each.name for each in self._session.get_inputs())
        values = self._session.run(None, {name: feeds[name] for name in wanted})
        return {name.removeprefix("next_"): value for name, value in zip(self._outputs, values, strict=True)}


def _read(steps: dict[str, _Step], sentences: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """What the encoder makes of sentences of one length, (n, length): the decoder's memory and its first states."""
    backwards = sentences[:, ::-1]
    states: dict[str, Array] = {}
    layers: dict[str, list[Array]] = {"fw": [], "bw": []}
    for forward_token, backward_token in zip(sentences.T, backwards.T, strict=True):
        states = _advance(steps["bidirectional"], {"token_fw": forward_token, "token_bw": backward_token}, states)
        for side, outputs in layers.items():
            outputs.append(states[f"h_{side}"])
    first = {"c_0": states["c_bw"][:, None], "h_0": states["h_bw"][:, None]}
    states, rows = {}, []
    for forward, backward in zip(layers["fw"], layers["bw"][::-1], strict=True):
        states = _advance(steps["encoder"], {"forward": forward, "backward": backward}, states)
        rows.append((states["output"], states["keys"]))
    memory = {
        name: np.stack(each, axis=1) for name, each in zip(("memory", "keys"), zip(*rows, strict=True), strict=True)
    }
    above = {
        f"{kind}_{layer + 1}": states[f"{kind}_{layer}"][:, None] for kind in "ch" for layer in range(ENCODER_LAYERS)
    }
    return {**memory, "mask": np.ones(sentences.shape, bool)}, first | above


def _advance(step: _Step, inputs: dict[str, Array], states: dict[str, Array]) -> dict[str, Array]:
    """One step, from states of zeros where there are none yet."""
    count = len(next(iter(inputs.values())))
    zeros = {name: np.zeros((count, units), np.float32) for name, units in step.states.items()}
    return step({**zeros, **states, **inputs})
