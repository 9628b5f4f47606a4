"""resnet50-twin: the graph of ResNet-50 v1.5 as the official ONNX files have it, with drawn weights.

Structure: He et al. 2016, table 1, 50 layers; v1.5 has each stage's stride in the 3x3 convolution. Names and shapes of
inputs and outputs are those of resnet50_v1.onnx. The opset-8 file pools by GlobalAveragePool, the opset-11 file by
ReduceMean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from quantbench.references.generators._classifier import CLASSES, class_layer
from quantbench.references.generators._network import Network, Tensor
from quantbench.references.generators._scenes import MOTIFS, motif_batch

__all__ = ["SUFFIX", "draw", "generate"]

Array = NDArray[Any]

SUFFIX = ".onnx"

_BLOCKS = (3, 4, 6, 3)
_MEAN = np.array([123.68, 116.78, 103.94], np.float32).reshape(3, 1, 1)
_LIFT = 1.0
_BRANCH_GAIN = 0.4
"""Scale of what a block adds to its shortcut; trained networks also keep it well below the shortcut's."""


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
    x = net.input("input_tensor:0", _prepare(motif_batch(samples, size)), ["unk__616", 3, size, size])
    x = net.conv(x, net.channels(64), 7, "conv1", stride=2, pads=[3, 3, 3, 3])
    x = net.add("Relu", [net.batch_norm(x, "conv1/bn")], "conv1/relu")
    x = net.add("MaxPool", [x], "pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    for stage, blocks in enumerate(_BLOCKS, 1):
        for block in range(1, blocks + 1):
            x = _bottleneck(
                net, x, 64 << (stage - 1), 2 if stage > 1 and block == 1 else 1, f"stage{stage}/block{block}"
            )
    if opset < 11:
        x = net.add("GlobalAveragePool", [x], "mean")
    else:
        x = net.add("ReduceMean", [x], "mean", axes=[2, 3], keepdims=1)
    x = net.add("Squeeze", [x], "squeeze", axes=[2, 3])
    weights, biases = class_layer(net, x, samples, size, _prepare)
    x = net.add("MatMul", [x, net.constant("dense/kernel", weights)], "dense/MatMul")
    logits = net.add("Add", [x, net.constant("dense/bias", biases)], "dense/BiasAdd")
    net.add("ArgMax", [logits], "ArgMax:0", axis=1, keepdims=0)
    net.add("Softmax", [logits], "softmax_tensor:0", axis=1)
    return net.model(
        {
            "ArgMax:0": (TensorProto.INT64, ["unk__617"]),
            "softmax_tensor:0": (TensorProto.FLOAT, ["unk__618", CLASSES]),
        }
    )


def _prepare(pictures: Array) -> Array:
    return np.asarray(pictures - _MEAN, np.float32)


def _bottleneck(net: Network, x: Tensor, full: int, stride: int, name: str) -> Tensor:
    """1x1, 3x3, 1x1 with a shortcut around them; a projection where size or depth change."""
    inner, outer = net.channels(full), net.channels(4 * full)
    shortcut = x
    if x.sample.shape[1] != outer:
        shortcut = net.conv(x, outer, 1, f"{name}/shortcut", stride=stride)
        shortcut = net.batch_norm(shortcut, f"{name}/shortcut/bn")
    y = net.conv(x, inner, 1, f"{name}/a")
    y = net.add("Relu", [net.batch_norm(y, f"{name}/a/bn", lift=_LIFT)], f"{name}/a/relu")
    y = net.conv(y, inner, 3, f"{name}/b", stride=stride, pads=[1, 1, 1, 1])
    y = net.add("Relu", [net.batch_norm(y, f"{name}/b/bn", lift=_LIFT)], f"{name}/b/relu")
    y = net.batch_norm(net.conv(y, outer, 1, f"{name}/c"), f"{name}/c/bn", gain=_BRANCH_GAIN)
    return net.add("Relu", [net.add("Add", [y, shortcut], f"{name}/add")], f"{name}/out")
