"""The graphs of GNMT, four LSTM layers over the source and four over the translation, made of its checkpoint's arrays.

Names, shapes and architecture are those of the TensorFlow checkpoint `gnmt_v2` of the reference implementation: the
first encoder layer reads in both directions, the first decoder layer's output asks a normed Bahdanau attention, whose
answer all decoder layers read, and from the third layer on (of either side) a layer adds its input to its output.

The LSTMs are lowered to MatMul, Add, Sigmoid, Tanh and Mul, so that each of their steps can be quantized or rounded.
Sources: Wu et al. 2016, "Google's neural machine translation system"; TensorFlow's BasicLSTMCell, gates in the order
input, new, forget, output, forget bias 1:

    i, j, f, o = split([x, h] W + b)
    c' = sigmoid(f + 1) * c + sigmoid(i) * tanh(j)
    h' = sigmoid(o) * tanh(c')

and BahdanauAttention with normalize (Bahdanau et al. 2015; Salimans and Kingma 2016), of query q and memory m_t:

    score_t = sum(g v / |v| * tanh(m_t W_m + q W_q + b)); the attention is the sum of m_t softmax(score)_t
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["DECODER_LAYERS", "ENCODER_LAYERS", "build", "shapes"]

Array = NDArray[Any]

ENCODER_LAYERS = 3
"""Layers of the encoder above the one that reads in both directions."""
DECODER_LAYERS = 4

OPSET = 21
IR_VERSION = 10

_FORGET_BIAS = 1.0
_FIRST_RESIDUAL_ENCODER = 1
_FIRST_RESIDUAL_DECODER = 2
_MASKED = -10000.0
"""The score of positions behind a sentence's end; every float format with five exponent bits holds it."""

_ENCODER = "dynamic_seq2seq/encoder"
_DECODER = "dynamic_seq2seq/decoder"
_ATTENTION = f"{_DECODER}/multi_rnn_cell/cell_0_attention/attention"
_EMBEDDINGS = {"encoder": "embeddings/encoder/embedding_encoder", "decoder": "embeddings/decoder/embedding_decoder"}
_CELLS = {
    **{side: f"{_ENCODER}/bidirectional_rnn/{side}/basic_lstm_cell" for side in ("fw", "bw")},
    **{f"enc{k}": f"{_ENCODER}/rnn/multi_rnn_cell/cell_{k}/basic_lstm_cell" for k in range(ENCODER_LAYERS)},
    "dec0": f"{_ATTENTION}/basic_lstm_cell",
    **{f"dec{k}": f"{_DECODER}/multi_rnn_cell/cell_{k}/basic_lstm_cell" for k in range(1, DECODER_LAYERS)},
}
_QUERY = f"{_ATTENTION}/bahdanau_attention/query_layer/kernel"
_ATTENTION_V, _ATTENTION_G, _ATTENTION_B = (f"{_ATTENTION}/bahdanau_attention/attention_{name}" for name in "vgb")
_MEMORY = f"{_DECODER}/memory_layer/kernel"
_PROJECTION = f"{_DECODER}/output_projection/kernel"


def shapes(units: int, source_vocabulary: int, target_vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array that `build` reads; all are float32."""
    inputs = {"fw": 1, "bw": 1, "enc0": 2, "enc1": 1, "enc2": 1, **{f"dec{k}": 2 for k in range(DECODER_LAYERS)}}
    cells: dict[str, tuple[int, ...]] = {}
    for cell, scope in _CELLS.items():
        cells[f"{scope}/kernel"] = ((inputs[cell] + 1) * units, 4 * units)
        cells[f"{scope}/bias"] = (4 * units,)
    return {
        _EMBEDDINGS["encoder"]: (source_vocabulary, units),
        _EMBEDDINGS["decoder"]: (target_vocabulary, units),
        **cells,
        _MEMORY: (units, units),
        _QUERY: (units, units),
        _ATTENTION_V: (units,),
        _ATTENTION_G: (),
        _ATTENTION_B: (units,),
        _PROJECTION: (units, target_vocabulary),
    }


def build(arrays: Mapping[str, Array]) -> dict[str, onnx.ModelProto]:
    """The step graphs; n sentences and, in the decoder, k beams each; u units, t source tokens; all float32 but tokens.

    bidirectional: token_fw, token_bw (n) int64 and the states c_fw, h_fw, c_bw, h_bw (n, u) → next_ of each state.
        The outputs h are the first layer's outputs.
    encoder: forward, backward (n, u) and the states c_0, h_0 … c_2, h_2 (n, u) → output, keys (n, u), next_ of each.
        `output` of every token is the decoder's memory, `keys` what the attention makes of it.
    decoder: token (n, k) int64, attention (n, k, u), the states c_0, h_0 … c_3, h_3 (n, k, u), memory and keys
        (n, t, u), mask (n, t) bool, false behind a sentence's end → logits (n, k, words), next_attention, next_ of each
        state.

    Raises:
        KeyError: an array is absent.
        ValueError: an array has a wrong shape or is not float32.
    """
    weights = _checked(arrays)
    units = weights[_MEMORY].shape[0]
    return {
        "bidirectional": _bidirectional(weights, units),
        "encoder": _encoder(weights, units),
        "decoder": _decoder(weights, units),
    }


def _checked(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Every array that the graphs need, of the shape that the others call for."""

    def size(name: str, axis: int) -> int:
        if name not in arrays:
            raise KeyError(f"it has no array {name!r}")
        shape = arrays[name].shape
        if len(shape) != 2:
            raise ValueError(f"its array {name!r} has the shape {shape}, which is no matrix")
        return int(shape[axis])

    wanted = shapes(size(_MEMORY, 0), size(_EMBEDDINGS["encoder"], 0), size(_EMBEDDINGS["decoder"], 0))
    for name, shape in wanted.items():
        if name not in arrays:
            raise KeyError(f"it has no array {name!r}")
        if arrays[name].shape != shape or arrays[name].dtype != np.float32:
            raise ValueError(f"its array {name!r} is {arrays[name].dtype} {arrays[name].shape}, not float32 {shape}")
    return {name: arrays[name] for name in wanted}


class _Graph:
    """Nodes and initializers of one step graph, as they are added."""

    def __init__(self, weights: Mapping[str, Array], rows: Sequence[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._weights = weights
        self._rows = rows
        self._initializers: dict[str, Array] = {}

    def node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, array: Array | None = None) -> str:
        """An initializer: an array of the checkpoint, or the one given."""
        self._initializers[name] = self._weights[name] if array is None else array
        return name

    def input(
        self, name: str, *sizes: str | int, kind: int = TensorProto.FLOAT, rows: Sequence[str] | None = None
    ) -> str:
        shape = [*(self._rows if rows is None else rows), *sizes]
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, size: int) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [*self._rows, size]))

    def embed(self, side: str, token: str, output: str) -> str:
        return self.node("Gather", [self.constant(_EMBEDDINGS[side]), token], output, axis=0)

    def cell(self, cell: str, parts: Sequence[str], state: str, units: int) -> str:
        """One LSTM step over the concatenated `parts`; `state` names its c and h. Returns the output, next_h."""
        c, h = self.input(f"c_{state}", units), self.input(f"h_{state}", units)
        bias = self._weights[f"{_CELLS[cell]}/bias"].copy()
        bias[2 * units : 3 * units] += _FORGET_BIAS
        x = self.node("Concat", [*parts, h], f"{cell}/x", axis=-1)
        x = self.node("MatMul", [x, self.constant(f"{_CELLS[cell]}/kernel")], f"{cell}/matmul")
        x = self.node("Add", [x, self.constant(f"{_CELLS[cell]}/bias", bias)], f"{cell}/gates")
        gates = [f"{cell}/{gate}" for gate in ("input", "new", "forget", "output")]
        self.nodes.append(helper.make_node("Split", [x], gates, f"{cell}/split", axis=-1, num_outputs=4))
        opened = {
            gate: self.node("Tanh" if gate.endswith("/new") else "Sigmoid", [gate], f"{gate}_opened") for gate in gates
        }
        i, j, f, o = opened.values()
        kept = self.node("Mul", [f, c], f"{cell}/kept")
        fresh = self.node("Mul", [i, j], f"{cell}/fresh")
        next_c = self.node("Add", [kept, fresh], f"next_c_{state}")
        next_h = self.node("Mul", [o, self.node("Tanh", [next_c], f"{cell}/squashed")], f"next_h_{state}")
        self.output(next_c, units)
        self.output(next_h, units)
        return next_h

    def model(self, name: str) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="quantbench", opset_imports=opsets, ir_version=IR_VERSION)
        for key, array in self._initializers.items():  # last, and one by one: they are large, and each step copies
            model.graph.initializer.add().CopyFrom(numpy_helper.from_array(array, key))
        return model


def _bidirectional(weights: Mapping[str, Array], units: int) -> onnx.ModelProto:
    graph = _Graph(weights, ["n"])
    for side in ("fw", "bw"):
        token = graph.input(f"token_{side}", kind=TensorProto.INT64)
        graph.cell(side, [graph.embed("encoder", token, f"{side}/embedded")], side, units)
    return graph.model("bidirectional")


def _encoder(weights: Mapping[str, Array], units: int) -> onnx.ModelProto:
    graph = _Graph(weights, ["n"])
    x = graph.cell("enc0", [graph.input("forward", units), graph.input("backward", units)], "0", units)
    for layer in range(1, ENCODER_LAYERS):
        y = graph.cell(f"enc{layer}", [x], str(layer), units)
        last = layer == ENCODER_LAYERS - 1
        if layer >= _FIRST_RESIDUAL_ENCODER:
            y = graph.node("Add", [x, y], "output" if last else f"enc{layer}/residual")
        x = y
    keys = graph.node("MatMul", [x, graph.constant(_MEMORY)], "keys")
    graph.output(x, units)
    graph.output(keys, units)
    return graph.model("encoder")


def _decoder(weights: Mapping[str, Array], units: int) -> onnx.ModelProto:
    graph = _Graph(weights, ["n", "k"])
    token = graph.input("token", kind=TensorProto.INT64)
    before = graph.input("attention", units)
    x = graph.cell("dec0", [graph.embed("decoder", token, "embedded"), before], "0", units)
    attention = _attention(graph, weights, x, units)
    for layer in range(1, DECODER_LAYERS):
        y = graph.cell(f"dec{layer}", [x, attention], str(layer), units)
        x = graph.node("Add", [x, y], f"dec{layer}/residual") if layer >= _FIRST_RESIDUAL_DECODER else y
    graph.output(graph.node("MatMul", [x, graph.constant(_PROJECTION)], "logits"), weights[_PROJECTION].shape[1])
    graph.output(attention, units)
    return graph.model("decoder")


def _attention(graph: _Graph, weights: Mapping[str, Array], query: str, units: int) -> str:
    """What the memory answers to `query` (n, k, u)."""
    memory = graph.input("memory", "t", units, rows=["n"])
    keys = graph.input("keys", "t", units, rows=["n"])
    mask = graph.input("mask", "t", kind=TensorProto.BOOL, rows=["n"])
    v = weights[_ATTENTION_V].astype(np.float64)
    direction = (weights[_ATTENTION_G] * v / np.sqrt(np.square(v).sum())).astype(np.float32)
    beams, tokens = graph.constant("beam_axis", np.array([2])), graph.constant("token_axis", np.array([1]))
    asked = graph.node("MatMul", [query, graph.constant(_QUERY)], "attention/query")
    asked = graph.node("Add", [asked, graph.constant(_ATTENTION_B)], "attention/shifted")
    pairs = (
        graph.node("Unsqueeze", [asked, beams], "attention/queries"),
        graph.node("Unsqueeze", [keys, tokens], "attention/keys"),
    )
    fit = graph.node("Tanh", [graph.node("Add", pairs, "attention/sum")], "attention/fit")
    score = graph.node("MatMul", [fit, graph.constant(_ATTENTION_V, direction[:, None])], "attention/score_column")
    score = graph.node("Squeeze", [score, graph.constant("column_axis", np.array([3]))], "attention/score")
    masked = graph.constant("masked", np.array(_MASKED, np.float32))
    score = graph.node(
        "Where", [graph.node("Unsqueeze", [mask, tokens], "attention/mask"), score, masked], "attention/masked"
    )
    share = graph.node("Softmax", [score], "attention/share", axis=-1)
    return graph.node("MatMul", [share, memory], "next_attention")
