"""The lowered GRU against ONNX Runtime's own GRU operator, on weights drawn here."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantbench.references.builders.g2p_gru import GRAPHEMES, PHONEMES, build

UNITS = 256


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = {"fc_w": (74, UNITS), "fc_b": (74,)}
    for side, tokens in (("enc", 29), ("dec", 74)):
        shapes |= {f"{side}_emb": (tokens, UNITS), f"{side}_w_ih": (768, UNITS), f"{side}_w_hh": (768, UNITS)}
        shapes |= {f"{side}_b_ih": (768,), f"{side}_b_hh": (768,)}
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def onnx_gru(arrays: dict[str, np.ndarray], side: str) -> ort.InferenceSession:
    """ONNX orders the gates update, reset, hidden; `linear_before_reset` is PyTorch's form."""

    def reorder(weight: np.ndarray) -> np.ndarray:
        reset, update, new = np.split(weight, 3)
        return np.concatenate([update, reset, new])[None]

    bias = np.concatenate([reorder(arrays[f"{side}_b_ih"]), reorder(arrays[f"{side}_b_hh"])], axis=1)
    weights = {"w": reorder(arrays[f"{side}_w_ih"]), "r": reorder(arrays[f"{side}_w_hh"]), "b": bias}
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "w", "r", "b", "", "h"], ["", "y"], hidden_size=UNITS, linear_before_reset=1)],
        "gru",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", "n", UNITS]),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, "n", UNITS]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "n", UNITS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize(("side", "graph", "tokens"), [("enc", "encoder", 29), ("dec", "decoder", 74)])
def test_four_steps_agree_with_onnx_gru(arrays: dict[str, np.ndarray], side: str, graph: str, tokens: int) -> None:
    rng = np.random.default_rng(6)
    words = rng.integers(0, tokens, (4, 7))
    state = start = rng.normal(0, 1, (7, UNITS)).astype(np.float32)
    step = session(build(arrays)[graph])
    for token in words:
        results = dict(
            zip(
                [output.name for output in step.get_outputs()],
                step.run(None, {"token": token, "state": state}),
                strict=True,
            )
        )
        state = results["next_state"]
    (expected,) = onnx_gru(arrays, side).run(None, {"x": arrays[f"{side}_emb"][words], "h": start[None]})
    np.testing.assert_allclose(state, expected[0], atol=2e-5)
    if graph == "decoder":
        logits = expected[0].astype(np.float64) @ arrays["fc_w"].T.astype(np.float64) + arrays["fc_b"]
        np.testing.assert_allclose(results["logits"], logits, atol=1e-3)


def test_graphs_are_valid_and_ask_for_standard_operators_only(arrays: dict[str, np.ndarray]) -> None:
    models = build(arrays)
    assert list(models) == ["encoder", "decoder"]
    for model in models.values():
        onnx.checker.check_model(model, full_check=True)
        assert not {node.op_type for node in model.graph.node} & {"GRU", "LSTM", "RNN", "Loop", "Scan"}
        assert [entry.version for entry in model.opset_import] == [21] and model.ir_version == 10
    assert build(arrays)["decoder"].SerializeToString() == models["decoder"].SerializeToString()


def test_tokens() -> None:
    """29 graphemes; 15 vowels in 3 stresses, UW without one, 24 consonants, 4 marks."""
    assert len(GRAPHEMES) == 29 and GRAPHEMES[2] == "</s>" and GRAPHEMES[3] == "a" and GRAPHEMES[28] == "z"
    assert len(PHONEMES) == len(set(PHONEMES)) == 74
    assert PHONEMES[:4] == ("<pad>", "<unk>", "<s>", "</s>")
    stressed = [phoneme for phoneme in PHONEMES[4:] if phoneme[-1].isdigit()]
    assert len(stressed) == 45 and len({phoneme[:-1] for phoneme in stressed}) == 15
    assert list(PHONEMES[4:]) == sorted(PHONEMES[4:])


@pytest.mark.parametrize("name", ["enc_w_ih", "dec_emb", "fc_b"])
def test_a_checkpoint_that_does_not_fit(arrays: dict[str, np.ndarray], name: str) -> None:
    with pytest.raises(KeyError, match=name):
        build({key: value for key, value in arrays.items() if key != name})
    with pytest.raises(ValueError, match=name):
        build({**arrays, name: arrays[name][:-1]})
    with pytest.raises(ValueError, match="float64"):
        build({**arrays, name: arrays[name].astype(np.float64)})
