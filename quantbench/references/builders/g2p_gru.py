"""The graphs of g2p-gru, a GRU encoder and decoder from letters to phonemes, made of its checkpoint's arrays.

The GRU is lowered to MatMul, Add, Sigmoid, Tanh and Mul, so that each of its steps can be quantized or rounded.
Source of the equations: `torch.nn.GRU`, gates in the order reset, update, new:

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
    h' = (1 - z) * n + z * h
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["GRAPHEMES", "PHONEMES", "build"]

GRAPHEMES = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
"""The 29 input tokens, by id. A word is its letters and then `</s>`; the encoder starts from a state of zeros."""

PHONEMES = (
    *("<pad>", "<unk>", "<s>", "</s>"),
    *("AA0", "AA1", "AA2", "AE0", "AE1", "AE2", "AH0", "AH1", "AH2", "AO0", "AO1", "AO2", "AW0", "AW1", "AW2"),
    *("AY0", "AY1", "AY2", "B", "CH", "D", "DH", "EH0", "EH1", "EH2", "ER0", "ER1", "ER2", "EY0", "EY1", "EY2"),
    *("F", "G", "HH", "IH0", "IH1", "IH2", "IY0", "IY1", "IY2", "JH", "K", "L", "M", "N", "NG"),
    *("OW0", "OW1", "OW2", "OY0", "OY1", "OY2", "P", "R", "S", "SH", "T", "TH"),
    *("UH0", "UH1", "UH2", "UW", "UW0", "UW1", "UW2", "V", "W", "Y", "Z", "ZH"),
)
"""The 74 output tokens, by id. The decoder starts from `<s>` and the encoder's last state and ends at `</s>`."""

UNITS = 256
OPSET = 21
IR_VERSION = 10

Array = NDArray[Any]


def build(arrays: Mapping[str, Array]) -> dict[str, onnx.ModelProto]:
    """The two step graphs; `n` is the dynamic batch.

    encoder: token (n) int64, state (n, 256) float32 → next_state (n, 256) float32.
    decoder: token (n) int64, state (n, 256) float32 → logits (n, 74) float32, next_state (n, 256) float32.

    Raises:
        KeyError: an array is absent.
        ValueError: an array has a wrong shape or is not float32.
    """
    encoder_weights = _gru_weights("enc", len(GRAPHEMES), arrays)
    decoder_weights = {
        **_gru_weights("dec", len(PHONEMES), arrays),
        "fc_w": _array(arrays, "fc_w", (len(PHONEMES), UNITS)),
        "fc_b": _array(arrays, "fc_b", (len(PHONEMES),)),
    }
    logits = helper.make_node("Gemm", ["next_state", "fc_w", "fc_b"], ["logits"], "fc", transB=1)
    return {
        "encoder": _model("encoder", _gru_step("enc"), encoder_weights, {"next_state": UNITS}),
        "decoder": _model(
            "decoder", [*_gru_step("dec"), logits], decoder_weights, {"logits": len(PHONEMES), "next_state": UNITS}
        ),
    }


def _gru_weights(side: str, tokens: int, arrays: Mapping[str, Array]) -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{side}_emb": (tokens, UNITS),
        f"{side}_w_ih": (3 * UNITS, UNITS),
        f"{side}_w_hh": (3 * UNITS, UNITS),
        f"{side}_b_ih": (3 * UNITS,),
        f"{side}_b_hh": (3 * UNITS,),
    }
    return {"one": np.ones((), np.float32), **{name: _array(arrays, name, shape) for name, shape in shapes.items()}}


def _array(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    if name not in arrays:
        raise KeyError(f"it has no array {name!r}")
    array = arrays[name]
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"its array {name!r} is {array.dtype} {array.shape}, not float32 {shape}")
    return array


def _gru_step(side: str) -> list[onnx.NodeProto]:
    """token, state → next_state, by the equations above; tensors carry the names of the equations."""
    gates = ["r", "z", "n"]
    return [
        helper.make_node("Gather", [f"{side}_emb", "token"], ["x"], "embed", axis=0),
        helper.make_node("Gemm", ["x", f"{side}_w_ih", f"{side}_b_ih"], ["wx"], "input_gates", transB=1),
        helper.make_node("Gemm", ["state", f"{side}_w_hh", f"{side}_b_hh"], ["wh"], "state_gates", transB=1),
        helper.make_node("Split", ["wx"], [f"wx_{gate}" for gate in gates], "split_wx", axis=1, num_outputs=3),
        helper.make_node("Split", ["wh"], [f"wh_{gate}" for gate in gates], "split_wh", axis=1, num_outputs=3),
        helper.make_node("Add", ["wx_r", "wh_r"], ["r_sum"], "r_sum"),
        helper.make_node("Sigmoid", ["r_sum"], ["r"], "r"),
        helper.make_node("Add", ["wx_z", "wh_z"], ["z_sum"], "z_sum"),
        helper.make_node("Sigmoid", ["z_sum"], ["z"], "z"),
        helper.make_node("Mul", ["r", "wh_n"], ["reset"], "reset"),
        helper.make_node("Add", ["wx_n", "reset"], ["n_sum"], "n_sum"),
        helper.make_node("Tanh", ["n_sum"], ["new"], "new"),
        helper.make_node("Sub", ["one", "z"], ["one_minus_z"], "one_minus_z"),
        helper.make_node("Mul", ["one_minus_z", "new"], ["renewed"], "renewed"),
        helper.make_node("Mul", ["z", "state"], ["kept"], "kept"),
        helper.make_node("Add", ["renewed", "kept"], ["next_state"], "next_state"),
    ]


def _model(
    name: str, nodes: list[onnx.NodeProto], weights: Mapping[str, Array], outputs: Mapping[str, int]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [
            helper.make_tensor_value_info("token", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", UNITS]),
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", size]) for output, size in outputs.items()],
        [numpy_helper.from_array(weight, weight_name) for weight_name, weight in weights.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, producer_name="quantbench", opset_imports=opsets, ir_version=IR_VERSION)
