"""Translation beside ONNX Runtime's own LSTM over whole sentences and the formulas of the attention's papers."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantbench.errors import InputError
from quantbench.graphs.executor import SessionExecutor
from quantbench.references.builders import gnmt
from quantbench.tasks import translation
from quantbench.tasks.translation import TranslationTask, join_subwords

UNITS, WORDS = 8, 30
ENCODER = "dynamic_seq2seq/encoder"
DECODER = "dynamic_seq2seq/decoder"
ATTENTION = f"{DECODER}/multi_rnn_cell/cell_0_attention/attention"
VOCABULARY = ("<unk>", "<s>", "</s>", *(f"w{number}" for number in range(3, WORDS)))


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(3)
    shapes = gnmt.shapes(UNITS, WORDS, WORDS)
    return {name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def executor(arrays):
    return SessionExecutor({name: model.SerializeToString() for name, model in gnmt.build(arrays).items()})


@pytest.fixture
def task():
    return TranslationTask(VOCABULARY, 1, 2)


def sentences(count, seed=4):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, WORDS, rng.integers(1, 9)) for _ in range(count)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(arrays, scopes, x, lengths):
    """ONNX's LSTM over whole sentences: x (t, n, size) → outputs (t, n, directions · units), last h and c.

    Its gates are input, output, forget, new; TensorFlow's input, new, forget, output, with 1 added to forget.
    """

    def reorder(matrix):
        i, j, f, o = np.split(matrix, 4, axis=-1)
        return np.concatenate([i, o, f, j], axis=-1)

    size = x.shape[2]
    kernels = [reorder(arrays[f"{scope}/kernel"]) for scope in scopes]
    biases = []
    for scope in scopes:
        bias = arrays[f"{scope}/bias"].copy()
        bias[2 * UNITS : 3 * UNITS] += 1
        biases.append(np.concatenate([reorder(bias), np.zeros(4 * UNITS, np.float32)]))
    weights = {
        "w": np.stack([kernel[:size].T for kernel in kernels]),
        "r": np.stack([kernel[size:].T for kernel in kernels]),
        "b": np.stack(biases),
    }
    direction = "bidirectional" if len(scopes) == 2 else "forward"
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r", "b", "n"], ["y", "h", "c"], hidden_size=UNITS, direction=direction)],
        "lstm",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape)),
            helper.make_tensor_value_info("n", TensorProto.INT32, [x.shape[1]]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yhc"],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString())
    y, h, c = session.run(None, {"x": x, "n": np.asarray(lengths, np.int32)})
    return y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1), h, c


def test_reading_agrees_with_onnx_lstm(arrays, executor, task):
    inputs = sentences(7)
    feeds = task.feeds(executor, inputs)
    memory = translation._read(executor, feeds)
    lengths = [len(inputs[position]) for position in feeds.positions]
    tokens = np.zeros((max(lengths), len(inputs)), np.int64)
    for row, position in enumerate(feeds.positions):
        tokens[: lengths[row], row] = inputs[position]
    x = arrays["embeddings/encoder/embedding_encoder"][tokens]
    scope = f"{ENCODER}/bidirectional_rnn"
    x, h, c = lstm(arrays, [f"{scope}/fw/basic_lstm_cell", f"{scope}/bw/basic_lstm_cell"], x, lengths)
    states = {"h_0": h[1], "c_0": c[1]}
    for layer in range(3):
        y, h, c = lstm(arrays, [f"{ENCODER}/rnn/multi_rnn_cell/cell_{layer}/basic_lstm_cell"], x, lengths)
        states |= {f"h_{layer + 1}": h[0], f"c_{layer + 1}": c[0]}
        x = x + y if layer else y
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(memory.rows["memory"][row, :length], x[:length, row], atol=1e-5)
        keys = x[:length, row] @ arrays[f"{DECODER}/memory_layer/kernel"]
        np.testing.assert_allclose(memory.rows["keys"][row, :length], keys, atol=1e-5)
        assert memory.rows["mask"][row].tolist() == [True] * length + [False] * (max(lengths) - length)
    assert set(memory.states) == set(states)
    for name, value in states.items():
        np.testing.assert_allclose(memory.states[name], value, atol=1e-5)


def test_a_step_of_the_decoder_agrees_with_the_papers(arrays, executor):
    rng = np.random.default_rng(5)
    n, k, t = 2, 3, 4
    token = rng.integers(0, WORDS, (n, k))
    state = {
        f"{kind}_{layer}": rng.normal(0, 1, (n, k, UNITS)).astype(np.float32) for kind in "ch" for layer in range(4)
    }
    before = rng.normal(0, 1, (n, k, UNITS)).astype(np.float32)
    memory, keys = rng.normal(0, 1, (2, n, t, UNITS)).astype(np.float32)
    mask = np.array([[True] * 4, [True, True, False, False]])
    feeds = {"token": token, "attention": before, "memory": memory, "keys": keys, "mask": mask, **state}
    found = dict(zip((spec.name for spec in executor.outputs("decoder")), executor.run(feeds, "decoder"), strict=True))

    def cell(scope, parts, layer):
        x = np.concatenate([*parts, state[f"h_{layer}"]], axis=-1)
        i, j, f, o = np.split(x @ arrays[f"{scope}/kernel"] + arrays[f"{scope}/bias"], 4, axis=-1)
        c = sigmoid(f + 1) * state[f"c_{layer}"] + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(found[f"next_c_{layer}"], c, atol=1e-5)
        np.testing.assert_allclose(found[f"next_h_{layer}"], h, atol=1e-5)
        return h

    embedded = arrays["embeddings/decoder/embedding_decoder"][token]
    x = cell(f"{ATTENTION}/basic_lstm_cell", [embedded, before], 0)
    v, g, b = (arrays[f"{ATTENTION}/bahdanau_attention/attention_{name}"] for name in "vgb")
    query = x @ arrays[f"{ATTENTION}/bahdanau_attention/query_layer/kernel"]
    score = np.tanh(keys[:, None] + query[:, :, None] + b) @ (g * v / np.linalg.norm(v))
    share = np.where(mask[:, None], np.exp(score), 0)
    attention = (share / share.sum(axis=-1, keepdims=True)) @ memory
    np.testing.assert_allclose(found["next_attention"], attention, atol=1e-5)
    for layer in (1, 2, 3):
        y = cell(f"{DECODER}/multi_rnn_cell/cell_{layer}/basic_lstm_cell", [x, attention], layer)
        x = x + y if layer >= 2 else y
    np.testing.assert_allclose(found["logits"], x @ arrays[f"{DECODER}/output_projection/kernel"], atol=1e-4)


def test_a_translation_does_not_depend_on_the_batch_it_sits_in(executor, task):
    inputs = sentences(9, seed=6)
    together = task.predictions(task.infer(executor, task.feeds(executor, inputs)))
    alone = [task.predictions(task.infer(executor, task.feeds(executor, [each])))[0] for each in inputs]
    assert together == alone
    assert len(set(alone)) > 1


def test_a_translation_is_at_most_twice_as_long_as_its_source(executor, task):
    inputs = sentences(9, seed=7)
    raw = task.infer(executor, task.feeds(executor, inputs))
    assert all(len(ids) <= 2 * len(source) for ids, source in zip(raw, inputs, strict=True))
    assert any(len(ids) == 2 * len(source) for ids, source in zip(raw, inputs, strict=True))


def test_one_beam_is_greedy_search(executor):
    """The likeliest word at each step, by hand."""
    task = TranslationTask(VOCABULARY, 1, 2, beams=1)
    (source,) = sentences(1, seed=8)
    memory = translation._read(executor, task.feeds(executor, [source]))
    state = {name: value[:, None] for name, value in memory.states.items()}
    state["attention"] = np.zeros((1, 1, UNITS), np.float32)
    token, wanted = 1, []
    names = [spec.name for spec in executor.outputs("decoder")]
    for _ in range(2 * len(source)):
        feeds = {"token": np.array([[token]]), **state, **memory.rows}
        values = dict(zip(names, executor.run(feeds, "decoder"), strict=True))
        token = int(values["logits"].argmax())
        if token == 2:
            break
        wanted.append(token)
        state = {name: values[f"next_{name}"] for name in state}
    (found,) = task.infer(executor, task.feeds(executor, [source]))
    assert found.tolist() == wanted


def test_subwords_are_joined():
    assert join_subwords(["ein@@", "ige", "W@@", "ört@@", "er"]) == "einige Wörter"
    assert join_subwords(["offen@@"]) == "offen"
    assert join_subwords([]) == ""


def test_bytes_come_back(task):
    assert task.from_bytes(task.to_bytes("größere Wörter", 3)) == "größere Wörter"


@pytest.mark.parametrize("sample", [np.zeros(0, np.int64), np.zeros((2, 2), np.int64), np.zeros(3, np.float32)])
def test_what_is_no_sentence_is_refused(executor, task, sample):
    with pytest.raises(InputError, match="vectors of one or more word ids"):
        task.feeds(executor, [sample])
