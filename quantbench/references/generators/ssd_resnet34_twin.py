"""ssd-resnet34-twin: the graph of SSD-ResNet34 at 1200x1200 as the official ONNX file has it, with drawn weights.

Structure: SSD (Liu et al. 2016) on the first three stages of ResNet-34 (He et al. 2016), the third without its stride.
Feature maps of 150, 75, 38, 19, 9 and 7 are read by 3x3 convolutions of stride 3, so the default boxes stand on grids
of 50, 25, 13, 7, 3 and 3. Names of inputs and outputs are those of resnet34-ssd1200.onnx. NonMaxSuppression begins with
opset 10, so this graph has no opset-8 form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from quantbench.references.generators._detector import ClassHead, class_heads, columns
from quantbench.references.generators._network import Network, Tensor
from quantbench.references.generators._scenes import motif_batch, training_batch

__all__ = ["SUFFIX", "default_boxes", "draw", "generate"]

Array = NDArray[Any]

SUFFIX = ".onnx"

_MOTIFS = 8
"""An image costs seconds, so few are learnt from; a data set for this network varies these."""

_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 1))  # blocks, channels, stride
_EXTRAS = ((256, 512, 2, 1), (256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 2, 0), (128, 256, 1, 0))
"""Channels of the 1x1 and of the 3x3 convolution, the latter's stride and padding."""
_HEAD_STRIDE = 3
_ASPECTS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
_SCALES = (21, 45, 99, 153, 207, 261, 315)  # of 300, the smallest box of each grid and what follows the last
_CLASSES = 81
_XY_SCALE, _WH_SCALE = 0.1, 0.2
_MIN_SCORE, _MAX_IOU, _MAX_BOXES = 0.05, 0.5, 200

_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
_LIFT = 1.0
_BRANCH_GAIN = 0.4
_VARIATIONS = 2


def generate(file: Path, seed: int) -> None:
    """Write the full-size file."""
    onnx.save(draw(seed), file)


def draw(
    seed: int, *, width: float = 1.0, size: int = 1200, samples: int = 2, motifs: int = _MOTIFS
) -> onnx.ModelProto:
    """The graph, opset 11, for one image.

    Args:
        width: share of the channels; below 1 for tests.
        size: height and width of the input; 1200, or at least 480 for tests.
        samples: motifs on which the statistics are measured.
        motifs: how many have objects that the detector finds.
    """
    net = Network(11, np.random.Generator(np.random.PCG64(seed)), width)
    features = _features(net, net.input("image", _prepare(motif_batch(samples, size)), [1, 3, size, size]))
    counts = [2 + 2 * len(aspects) for aspects in _ASPECTS]
    heads = [
        # The channels are read as (classes, boxes): those of the background come first.
        ClassHead(feature, f"conf.{number}", count, _channel(count), kernel=3, stride=_HEAD_STRIDE, pad=1)
        for number, (feature, count) in enumerate(zip(features, counts, strict=True))
    ]
    scored = class_heads(net, heads, _CLASSES, motifs, lambda motif: _pictures(motif, size))
    placed = [
        net.measured_conv(feature, count * 4, 3, f"loc.{number}", stride=_HEAD_STRIDE, pads=[1] * 4)
        for number, (feature, count) in enumerate(zip(features, counts, strict=True))
    ]
    locations = _join(net, [_flatten(net, location, 4) for location in placed], "locs")
    boxes = _decode(net, locations, default_boxes(tuple(head.grid for head in heads), size))
    confidences = _join(net, [_flatten(net, confidence, _CLASSES) for confidence in scored], "confs")
    scores = net.add("Softmax", [confidences], "probabilities", axis=2)
    _suppress(net, boxes, scores)
    return net.model(
        {
            "bboxes": (TensorProto.FLOAT, [1, "nbox", 4]),
            "labels": (TensorProto.INT64, [1, "nbox"]),
            "scores": (TensorProto.FLOAT, [1, "nbox"]),
        }
    )


def default_boxes(grids: tuple[int, ...], size: int) -> Array:
    """Centre x, y, width and height of every default box, fractions of the image, float32 (boxes, 4).

    In the order of the heads' values: for each grid by shape, then row, then column. SSD (Liu et al. 2016, section
    2.2), with the scales of the reference implementation.
    """
    boxes = []
    scales = [scale * size // 300 / size for scale in _SCALES]
    for grid, (smaller, larger), aspects in zip(grids, pairwise(scales), _ASPECTS, strict=True):
        between = np.sqrt(smaller * larger)
        shapes = [(smaller, smaller), (between, between)]
        for aspect in aspects:
            wide, high = smaller * np.sqrt(aspect), smaller / np.sqrt(aspect)
            shapes += [(wide, high), (high, wide)]
        step = (size // grid) / size
        y, x = np.mgrid[:grid, :grid]
        centres = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1) * step
        boxes += [np.hstack([centres, np.full_like(centres, 1) * shape]) for shape in shapes]
    return np.concatenate(boxes).clip(0, 1).astype(np.float32)


def _prepare(pictures: Array) -> Array:
    return np.asarray((pictures / 255 - _MEAN) / _STD, np.float32)


def _pictures(motif: int, size: int) -> Iterator[Array]:
    """One at a time."""
    for picture in training_batch(motif, _VARIATIONS, size):
        yield _prepare(picture[None])


def _channel(boxes: int) -> Callable[[int, int], int]:
    return lambda shape, category: category * boxes + shape


def _features(net: Network, x: Tensor) -> list[Tensor]:
    """The six feature maps."""
    x = net.conv(x, net.channels(64), 7, "conv1", stride=2, pads=[3, 3, 3, 3])
    x = net.add("Relu", [net.batch_norm(x, "bn1")], "relu1")
    x = net.add("MaxPool", [x], "maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, (blocks, channels, stride) in enumerate(_STAGES, 1):
        for block in range(blocks):
            x = _basic_block(net, x, net.channels(channels), stride if block == 0 else 1, f"layer{stage}.{block}")
    features = [x]
    for number, (middle, channels, stride, padding) in enumerate(_EXTRAS):
        name = f"additional_blocks.{number}"
        y = net.measured_conv(x, net.channels(middle), 1, f"{name}.0", shift=_lift)
        y = net.add("Relu", [y], f"{name}.1")
        y = net.measured_conv(y, net.channels(channels), 3, f"{name}.2", stride=stride, pads=[padding] * 4, shift=_lift)
        x = net.add("Relu", [y], f"{name}.3")
        features.append(x)
    return features


def _lift(values: Array) -> Array:
    return np.full(values.shape[1], _LIFT, np.float32)


def _basic_block(net: Network, x: Tensor, channels: int, stride: int, name: str) -> Tensor:
    """Two 3x3 convolutions with a shortcut around them; a projection where size or depth change."""
    shortcut = x
    if stride != 1 or x.sample.shape[1] != channels:
        shortcut = net.conv(x, channels, 1, f"{name}.downsample.0", stride=stride, pads=[0] * 4)
        shortcut = net.batch_norm(shortcut, f"{name}.downsample.1")
    y = net.conv(x, channels, 3, f"{name}.conv1", stride=stride, pads=[1] * 4)
    y = net.add("Relu", [net.batch_norm(y, f"{name}.bn1", lift=_LIFT)], f"{name}.relu1")
    y = net.conv(y, channels, 3, f"{name}.conv2", pads=[1] * 4)
    y = net.batch_norm(y, f"{name}.bn2", gain=_BRANCH_GAIN)
    return net.add("Relu", [net.add("Add", [y, shortcut], f"{name}.add")], f"{name}.relu2")


def _flatten(net: Network, x: Tensor, rows: int) -> Tensor:
    """(n, rows · boxes, height, width) → (n, rows, boxes · height · width). From here on one sample image will do."""
    x = dataclasses.replace(x, sample=x.sample[:1])
    shape = net.constant(f"{x.name}.view", np.array([1, rows, -1], np.int64))
    return net.add("Reshape", [x, shape], f"{x.name}.flat")


def _join(net: Network, parts: list[Tensor], name: str) -> Tensor:
    """All grids' values as (1, boxes, rows)."""
    return net.add("Transpose", [net.add("Concat", parts, f"{name}.all", axis=2)], name, perm=[0, 2, 1])


def _decode(net: Network, locations: Tensor, defaults: Array) -> Tensor:
    """Left, top, right, bottom of each box from its offsets (Liu et al. 2016, equation 2)."""
    xy = net.constant("dboxes_xy", defaults[None, :, :2])
    wh = net.constant("dboxes_wh", defaults[None, :, 2:])
    shift = net.add("Mul", [columns(net, locations, 0, 2, "loc_xy"), net.constant("xy", np.float32(_XY_SCALE))], "dxy")
    centre = net.add("Add", [net.add("Mul", [shift, wh], "dxy_wh"), xy], "centre")
    growth = net.add("Mul", [columns(net, locations, 2, 4, "loc_wh"), net.constant("wh", np.float32(_WH_SCALE))], "dwh")
    extent = net.add("Mul", [net.add("Exp", [growth], "growth"), wh], "extent")
    half = net.add("Mul", [extent, net.constant("half", np.float32(0.5))], "half_extent")
    corners = [net.add("Sub", [centre, half], "left_top"), net.add("Add", [centre, half], "right_bottom")]
    return net.add("Concat", corners, "boxes", axis=2)


def _suppress(net: Network, boxes: Tensor, scores: Tensor) -> None:
    """The best boxes of all classes: bboxes (1, nbox, 4), labels and scores (1, nbox)."""
    by_class = net.add("Transpose", [columns(net, scores, 1, _CLASSES, "foreground")], "by_class", perm=[0, 2, 1])
    settings = [
        net.constant("max_boxes", np.array([_MAX_BOXES], np.int64)),
        net.constant("iou_threshold", np.array([_MAX_IOU], np.float32)),
        net.constant("score_threshold", np.array([_MIN_SCORE], np.float32)),
    ]
    chosen = net.add("NonMaxSuppression", [boxes, by_class, *settings], "selected")
    category, box = (
        net.add("Gather", [chosen, net.constant(f"{name}/column", np.array(column, np.int64))], name, axis=1)
        for name, column in (("category", 1), ("box", 2))
    )
    count = net.constant("count", np.array(boxes.sample.shape[1], np.int64))
    place = net.add("Add", [net.add("Mul", [category, count], "class_start"), box], "place")
    flat = net.add("Reshape", [by_class, net.constant("all", np.array([-1], np.int64))], "flat_scores")
    found = net.add("Gather", [flat, place], "found", axis=0)
    wanted = net.add("Concat", [net.add("Shape", [found], "found_count"), settings[0]], "counts", axis=0)
    k = net.add("ReduceMin", [net.add("Cast", [wanted], "counts32", to=TensorProto.INT32)], "k32", axes=[0])
    k = net.add("Cast", [k], "k", to=TensorProto.INT64)
    best, order = net.add_many("TopK", [found, k], ["best", "order"], axis=0)
    net.add("Gather", [boxes, net.add("Gather", [box, order], "best_box", axis=0)], "bboxes", axis=1)
    best_class = net.add("Gather", [category, order], "best_class", axis=0)
    label = net.add("Add", [best_class, net.constant("one", np.array(1, np.int64))], "label")
    net.add("Unsqueeze", [label], "labels", axes=[0])
    net.add("Unsqueeze", [best], "scores", axes=[0])
