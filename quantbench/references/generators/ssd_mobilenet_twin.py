"""ssd-mobilenet-twin: the graph of SSD-MobileNet-v1 as the official ONNX file has it, with drawn weights.

Structure: SSD (Liu et al. 2016) on MobileNet-v1 with six grids of 19 to 1, 1,917 anchors and 1x1 heads, as the
TensorFlow object detection API configures ssd_mobilenet_v1_coco. Names of inputs and outputs are those of
ssd_mobilenet_v1_coco_2018_01_28.onnx. NonMaxSuppression begins with opset 10, ScatterND with 11, so this graph has no
opset-8 form.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from quantbench.references.generators._detector import ClassHead, class_heads, columns
from quantbench.references.generators._mobilenet import conv_bn_relu6, mobilenet_body
from quantbench.references.generators._network import Network, Tensor
from quantbench.references.generators._scenes import MOTIFS, motif_batch, training_batch

__all__ = ["SUFFIX", "anchors", "draw", "generate"]

Array = NDArray[Any]

SUFFIX = ".onnx"

_SIZE = 300
_EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))  # channels of the 1x1 and of the 3x3 convolution
_MIN_SCALE, _MAX_SCALE = 0.2, 0.95
_ASPECTS = (1.0, 2.0, 0.5, 3.0, 1 / 3)
_FIRST_GRID = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))  # scale and aspect
_CLASSES = 91  # background in front
_XY_SCALE, _WH_SCALE = 0.1, 0.2
_MIN_SCORE, _MAX_IOU, _MAX_BOXES = 0.3, 0.6, 100

_VARIATIONS = 3


def generate(file: Path, seed: int) -> None:
    """Write the full-size file."""
    onnx.save(draw(seed), file)


def draw(seed: int, *, width: float = 1.0, samples: int = 8, motifs: int = MOTIFS) -> onnx.ModelProto:
    """The graph, opset 11, for any number of images of any one size.

    Args:
        width: share of the channels; below 1 for tests.
        samples: motifs on which the statistics are measured.
        motifs: how many have objects that the detector finds.
    """
    net = Network(11, np.random.Generator(np.random.PCG64(seed)), width)
    image = net.input("image_tensor:0", _to_pixels(motif_batch(samples, _SIZE)), ["n", "height", "width", 3])
    features = _features(net, _preprocess(net, image))
    shapes = [len(_FIRST_GRID), *[len(_ASPECTS) + 1] * (len(features) - 1)]
    heads = [
        ClassHead(feature, f"BoxPredictor_{number}/ClassPredictor", count, lambda shape, k: shape * _CLASSES + k)
        for number, (feature, count) in enumerate(zip(features, shapes, strict=True))
    ]
    scored = class_heads(net, heads, _CLASSES, motifs, _pictures)
    placed = [
        net.measured_conv(feature, count * 4, 1, f"BoxPredictor_{number}/BoxEncodingPredictor")
        for number, (feature, count) in enumerate(zip(features, shapes, strict=True))
    ]
    offsets = net.add("Concat", [_flatten(net, box, 4) for box in placed], "box_encodings", axis=1)
    logits = net.add("Concat", [_flatten(net, score, _CLASSES) for score in scored], "class_predictions", axis=1)
    boxes = _decode(net, offsets, anchors(tuple(head.grid for head in heads)))
    scores = net.add("Sigmoid", [logits], "Postprocessor/scores")
    _suppress(net, boxes, scores)
    return net.model(
        {
            "num_detections:0": (TensorProto.FLOAT, ["n"]),
            "detection_boxes:0": (TensorProto.FLOAT, ["n", _MAX_BOXES, 4]),
            "detection_scores:0": (TensorProto.FLOAT, ["n", _MAX_BOXES]),
            "detection_classes:0": (TensorProto.FLOAT, ["n", _MAX_BOXES]),
        }
    )


def anchors(grids: tuple[int, ...]) -> Array:
    """Centre y, x, height and width of every anchor, fractions of the image, float32 (anchors, 4).

    In the order of the heads' values: for each grid by row, column, then shape. SSD (Liu et al. 2016, equation 4); the
    first grid has three shapes only.
    """
    scales = [*np.linspace(_MIN_SCALE, _MAX_SCALE, len(grids)), 1.0]
    boxes = []
    for number, grid in enumerate(grids):
        shapes: tuple[tuple[float, float], ...] = _FIRST_GRID
        if number:
            between = (float(np.sqrt(scales[number] * scales[number + 1])), 1.0)
            shapes = (*((float(scales[number]), aspect) for aspect in _ASPECTS), between)
        extents = np.array([(scale / np.sqrt(aspect), scale * np.sqrt(aspect)) for scale, aspect in shapes])
        y, x = np.mgrid[:grid, :grid]
        centres = (np.stack([y.ravel(), x.ravel()], axis=1) + 0.5) / grid
        boxes.append(np.hstack([centres.repeat(len(shapes), 0), np.tile(extents, (grid * grid, 1))]))
    return np.concatenate(boxes).astype(np.float32)


def _to_pixels(pictures: Array) -> Array:
    return np.ascontiguousarray(pictures.transpose(0, 2, 3, 1)).astype(np.uint8)


def _pictures(motif: int) -> Iterator[Array]:
    """One at a time."""
    for picture in _to_pixels(training_batch(motif, _VARIATIONS, _SIZE)):
        yield picture[None]


def _preprocess(net: Network, image: Tensor) -> Tensor:
    """uint8 (n, height, width, 3) → float (n, 3, 300, 300) in -1..1."""
    x = net.add("Cast", [image], "ToFloat", to=TensorProto.FLOAT)
    x = net.add("Transpose", [x], "ToNCHW", perm=[0, 3, 1, 2])
    bounds = [
        net.constant(f"Preprocessor/{key}", np.array([value], np.int64)) for key, value in (("from", 0), ("to", 2))
    ]
    kept = net.add("Slice", [net.add("Shape", [x], "Preprocessor/shape"), *bounds], "Preprocessor/kept")
    size = net.constant("Preprocessor/size", np.array([_SIZE, _SIZE], np.int64))
    sizes = net.add("Concat", [kept, size], "Preprocessor/sizes", axis=0)
    nothing = [net.constant(f"Preprocessor/{key}", np.zeros(0, np.float32)) for key in ("roi", "scales")]
    x = net.add(
        *("Resize", [x, *nothing, sizes], "Preprocessor/resized"),
        mode="linear",
        coordinate_transformation_mode="asymmetric",
    )
    x = net.add("Mul", [x, net.constant("Preprocessor/scale", np.float32(2 / 255))], "Preprocessor/mul")
    return net.add("Sub", [x, net.constant("Preprocessor/one", np.float32(1))], "Preprocessor/sub")


def _features(net: Network, x: Tensor) -> list[Tensor]:
    """The six feature maps: of 19, 10, 5, 3, 2 and 1."""
    scope = "FeatureExtractor/MobilenetV1"
    layers = mobilenet_body(net, x, scope)
    features = [layers[10], layers[12]]
    for number, (middle, channels) in enumerate(_EXTRAS, 2):
        name = f"{scope}/Conv2d_13_pointwise"
        y = conv_bn_relu6(net, features[-1], middle, 1, 1, f"{name}_1_Conv2d_{number}_1x1")
        features.append(conv_bn_relu6(net, y, channels, 3, 2, f"{name}_2_Conv2d_{number}_3x3_s2"))
    return features


def _flatten(net: Network, x: Tensor, values: int) -> Tensor:
    """(n, shapes · values, grid, grid) → (n, grid · grid · shapes, values)."""
    x = net.add("Transpose", [x], f"{x.name}/NHWC", perm=[0, 2, 3, 1])
    boxes = x.sample.shape[1] * x.sample.shape[2] * x.sample.shape[3] // values
    return net.add(
        "Reshape", [x, net.constant(f"{x.name}/shape", np.array([-1, boxes, values], np.int64))], f"{x.name}/boxes"
    )


def _decode(net: Network, offsets: Tensor, boxes: Array) -> Tensor:
    """Top, left, bottom, right of each box, within the image, from its offsets (Liu et al. 2016, equation 2)."""
    centres = net.constant("anchors/centres", boxes[None, :, :2])
    extents = net.constant("anchors/extents", boxes[None, :, 2:])
    scale = net.constant("Decode/xy_scale", np.float32(_XY_SCALE))
    shift = net.add("Mul", [columns(net, offsets, 0, 2, "Decode/tyx"), scale], "Decode/dyx")
    centre = net.add("Add", [net.add("Mul", [shift, extents], "Decode/shift"), centres], "Decode/centre")
    scale = net.constant("Decode/wh_scale", np.float32(_WH_SCALE))
    growth = net.add("Mul", [columns(net, offsets, 2, 4, "Decode/thw"), scale], "Decode/dhw")
    extent = net.add("Mul", [net.add("Exp", [growth], "Decode/exp"), extents], "Decode/extent")
    half = net.add("Mul", [extent, net.constant("Decode/half", np.float32(0.5))], "Decode/half_extent")
    corners = [net.add("Sub", [centre, half], "Decode/top_left"), net.add("Add", [centre, half], "Decode/bottom_right")]
    decoded = net.add("Concat", corners, "Decode/boxes", axis=2)
    bounds = [net.constant(f"Decode/{key}", np.float32(value)) for key, value in (("zero", 0), ("one", 1))]
    return net.add("Clip", [decoded, *bounds], "Decode/clipped")


def _suppress(net: Network, boxes: Tensor, scores: Tensor) -> None:
    """The best 100 boxes of each image; rows behind the last detection have the score 0.

    What NonMaxSuppression lets through is put back into a table of all (class, box) pairs, so that one TopK serves all
    images.
    """
    count = boxes.sample.shape[1]
    by_class = columns(net, scores, 1, _CLASSES, "Postprocessor/foreground")
    by_class = net.add("Transpose", [by_class], "Postprocessor/by_class", perm=[0, 2, 1])
    settings = [
        net.constant("Postprocessor/max_boxes", np.array([_MAX_BOXES], np.int64)),
        net.constant("Postprocessor/iou_threshold", np.array([_MAX_IOU], np.float32)),
        net.constant("Postprocessor/score_threshold", np.array([_MIN_SCORE], np.float32)),
    ]
    chosen = net.add("NonMaxSuppression", [boxes, by_class, *settings], "Postprocessor/selected")
    kept = net.add("GatherND", [by_class, chosen], "Postprocessor/kept")
    nothing = net.add("ConstantOfShape", [net.add("Shape", [by_class], "Postprocessor/shape")], "Postprocessor/nothing")
    table = net.add("ScatterND", [nothing, chosen, kept], "Postprocessor/table")
    flat = net.constant("Postprocessor/flat", np.array([-1, (_CLASSES - 1) * count], np.int64))
    table = net.add("Reshape", [table, flat], "Postprocessor/rows")
    k = net.constant("Postprocessor/k", np.array([_MAX_BOXES], np.int64))
    best, place = net.add_many("TopK", [table, k], ["detection_scores:0", "Postprocessor/place"], axis=1)
    size = net.constant("Postprocessor/count", np.array(count, np.int64))
    category = net.add("Div", [place, size], "Postprocessor/category")
    named = net.add("Add", [category, net.constant("Postprocessor/one", np.array(1, np.int64))], "Postprocessor/named")
    net.add("Cast", [named], "detection_classes:0", to=TensorProto.FLOAT)
    box = net.add("Sub", [place, net.add("Mul", [category, size], "Postprocessor/start")], "Postprocessor/box")
    box = net.add("Unsqueeze", [box], "Postprocessor/box_rows", axes=[2])
    corners = net.constant("Postprocessor/corners", np.array([1, 1, 4], np.int64))
    box = net.add("Expand", [box, corners], "Postprocessor/box_corners")
    net.add("GatherElements", [boxes, box], "detection_boxes:0", axis=1)
    found = net.add("Greater", [best, net.constant("Postprocessor/zero", np.float32(0))], "Postprocessor/found")
    found = net.add("Cast", [found], "Postprocessor/found_float", to=TensorProto.FLOAT)
    net.add("ReduceSum", [found], "num_detections:0", axes=[1], keepdims=0)
