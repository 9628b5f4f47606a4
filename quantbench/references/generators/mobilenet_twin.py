"""mobilenet-twin: the graph of MobileNet-v1 1.0 224 as the official ONNX files have it, with drawn weights.

Structure: Howard et al. 2017, table 1. Names and shapes of input and output are those of mobilenet_v1_1.0_224.onnx. The
opset-8 file clips by attributes, the opset-11 file by inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from quantbench.references.generators._classifier import CLASSES, class_layer
from quantbench.references.generators._mobilenet import mobilenet_body
from quantbench.references.generators._network import Network
from quantbench.references.generators._scenes import MOTIFS, motif_batch

__all__ = ["SUFFIX", "draw", "generate"]

Array = NDArray[Any]

SUFFIX = ".onnx"


def generate(file: Path, seed: int) -> None:
    """Write the full-size opset-11 file."""
    onnx.save(draw(seed), file)


def draw(seed: int, *, opset: int = 11, width: float = 1.0, size: int = 224, samples: int = MOTIFS) -> onnx.ModelProto:
    """The graph.

    Args:
        opset: 8 or 11; the weights are the same.
        width: share of the channels; below 1 for tests.
        size: height and width of the input; a multiple of 32.
        samples: motifs on which the statistics are measured, and that have a class.
    """
    net = Network(opset, np.random.Generator(np.random.PCG64(seed)), width)
    x = net.input("input:0", _prepare(motif_batch(samples, size)), ["unk__224", 3, size, size])
    x = mobilenet_body(net, x, "MobilenetV1")[-1]
    x = net.add("AveragePool", [x], "MobilenetV1/Logits/AvgPool_1a", kernel_shape=[size // 32] * 2)
    weights, biases = class_layer(net, x, samples, size, _prepare)
    x = net.conv(x, CLASSES, 1, "MobilenetV1/Logits/Conv2d_1c_1x1", weights=weights.T[:, :, None, None], bias=biases)
    x = net.add("Squeeze", [x], "MobilenetV1/Logits/SpatialSqueeze", axes=[2, 3])
    x = net.add("Softmax", [x], "MobilenetV1/Predictions/Softmax", axis=1)
    shape = net.constant("MobilenetV1/Predictions/Shape", np.array([-1, CLASSES], np.int64))
    net.add("Reshape", [x, shape], "MobilenetV1/Predictions/Reshape_1:0")
    return net.model({"MobilenetV1/Predictions/Reshape_1:0": (TensorProto.FLOAT, ["unk__225", CLASSES])})


def _prepare(pictures: Array) -> Array:
    return np.asarray(pictures / 127.5 - 1, np.float32)
