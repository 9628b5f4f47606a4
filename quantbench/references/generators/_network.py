"""Draws a convolutional network layer by layer and computes it on sample images as it grows.

So each batch norm gets the statistics that its input really has, as training would have given it, and activations
neither vanish nor explode through fifty layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["Network", "Tensor"]

Array = NDArray[Any]

_IR_VERSIONS = {8: 3, 11: 6}  # what exporters of the time wrote beside each opset


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the network and what it holds for the sample images."""

    name: str
    sample: Array


class Network:
    """A graph under construction.

    Args:
        opset: 8 or 11.
        rng: the weights are drawn from it in the order in which layers are added.
        width: the share of each layer's channels that is kept: 1 is full size, less is for tests.
    """

    def __init__(self, opset: int, rng: np.random.Generator, width: float = 1.0) -> None:
        if opset not in _IR_VERSIONS:
            raise ValueError(f"opset {opset} is not one of {', '.join(map(str, _IR_VERSIONS))}")
        self.opset = opset
        self.rng = rng
        self._width = width
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, Array] = {}
        self._inputs: list[onnx.ValueInfoProto] = []

    def channels(self, full: int) -> int:
        """How many channels a layer has that has `full` at full width."""
        return max(4, round(full * self._width))

    def input(self, name: str, sample: Array, shape: Sequence[int | str]) -> Tensor:
        """A graph input of the sample's dtype."""
        kind = helper.np_dtype_to_tensor_dtype(sample.dtype)
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return Tensor(name, sample)

    def constant(self, name: str, values: Array | np.generic) -> Tensor:
        """An initializer."""
        assert name not in self._initializers, name
        self._initializers[name] = np.asarray(values)
        return Tensor(name, self._initializers[name])

    def add(self, op_type: str, inputs: Sequence[Tensor], name: str, **attributes: Any) -> Tensor:
        """One node with one output called `name`."""
        return self.add_many(op_type, inputs, [name], **attributes)[0]

    def add_many(
        self, op_type: str, inputs: Sequence[Tensor], names: Sequence[str], **attributes: Any
    ) -> tuple[Tensor, ...]:
        """One node with the outputs `names`."""
        node = helper.make_node(op_type, [tensor.name for tensor in inputs], list(names), names[0], **attributes)
        self._nodes.append(node)
        samples = _run(node, [tensor.sample for tensor in inputs], self.opset)
        return tuple(Tensor(name, sample) for name, sample in zip(names, samples, strict=True))

    def conv(
        self,
        x: Tensor,
        channels: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        pads: Sequence[int] | None = None,
        depthwise: bool = False,
        weights: Array | None = None,
        bias: Array | None = None,
    ) -> Tensor:
        """A convolution, without bias unless one is given; weights of variance 2 / fan-in (He et al. 2015).

        Args:
            pads: top, left, bottom, right; those of TensorFlow's SAME where they are left out.
        """
        groups = x.sample.shape[1] if depthwise else 1
        if weights is None:
            weights = _he_weights(self.rng, (channels, x.sample.shape[1] // groups, kernel, kernel))
        inputs = [x, self.constant(f"{name}/weights", weights)]
        if bias is not None:
            inputs.append(self.constant(f"{name}/biases", bias.astype(np.float32)))
        return self.add("Conv", inputs, name, group=groups, **_conv_attributes(x.sample, kernel, stride, pads))

    def measured_conv(
        self,
        x: Tensor,
        channels: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        pads: Sequence[int] | None = None,
        shift: Callable[[Array], Array] | None = None,
    ) -> Tensor:
        """A convolution with a bias, of which each output channel has the mean 0 and the standard deviation 1.

        Args:
            shift: what to add to each channel's bias, (channels,), from the output (n, channels, height, width) so far.
        """
        weights = _he_weights(self.rng, (channels, x.sample.shape[1], kernel, kernel))
        node = helper.make_node("Conv", ["x", "w"], ["y"], **_conv_attributes(x.sample, kernel, stride, pads))
        raw = _run(node, [x.sample, weights], self.opset)[0]
        mean, deviation = raw.mean(axis=(0, 2, 3)), raw.std(axis=(0, 2, 3))
        scale = 1 / deviation
        bias = -mean * scale
        if shift is not None:
            bias += shift(raw * scale[:, None, None] + bias[:, None, None])
        weights *= scale[:, None, None, None]
        return self.conv(x, channels, kernel, name, stride=stride, pads=pads, weights=weights, bias=bias)

    def batch_norm(self, x: Tensor, name: str, *, gain: float = 1.0, lift: float = 0.0) -> Tensor:
        """Batch norm whose mean and variance are those of `x` on the sample images.

        Args:
            gain: what the scales lie around.
            lift: what the shifts lie around, in scales. A rectifier behind it then passes most of what it gets. In a
                batch-normalised network of random weights and open-and-shut rectifiers every layer amplifies an error
                by a fifth (Yang et al. 2019, "A mean field theory of batch normalization"), which trained ones do not.
        """
        count = x.sample.shape[1]
        parameters = {
            "gamma": gain * self.rng.uniform(0.5, 1.5, count),
            "beta": gain * self.rng.normal(lift, 0.3, count),
            "moving_mean": x.sample.mean(axis=(0, 2, 3)),
            "moving_variance": x.sample.var(axis=(0, 2, 3)) + 1e-3,
        }
        tensors = [self.constant(f"{name}/{key}", value.astype(np.float32)) for key, value in parameters.items()]
        return self.add("BatchNormalization", [x, *tensors], name, epsilon=1e-5)

    def relu6(self, x: Tensor, name: str) -> Tensor:
        """Clip to 0..6; its bounds are attributes before opset 11 and inputs from it on."""
        if self.opset < 11:
            return self.add("Clip", [x], name, min=0.0, max=6.0)
        bounds = [self.constant(f"{name}/{key}", np.float32(value)) for key, value in (("min", 0), ("max", 6))]
        return self.add("Clip", [x, *bounds], name)

    def computing(self, tensors: Sequence[Tensor]) -> Callable[[Array], list[Array]]:
        """A function that says what `tensors` hold for other images, given to the only input; any number at once."""
        shapes = {
            each.name: (helper.np_dtype_to_tensor_dtype(each.sample.dtype), each.sample.shape) for each in tensors
        }
        session = _session(self.model(shapes))
        (given,) = self._inputs
        return lambda images: list(session.run(None, {given.name: images}))

    def model(self, outputs: Mapping[str, tuple[int, Sequence[int | str]]]) -> onnx.ModelProto:
        """The graph as it is; `outputs` are (element type, shape) by name."""
        inputs = list(self._inputs)
        if _IR_VERSIONS[self.opset] < 4:  # IR version 3 lists initializers among the inputs
            inputs += [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in self._initializers.items()
            ]
        graph = helper.make_graph(
            self._nodes,
            "tf2onnx",
            inputs,
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in self._initializers.items()],
        )
        return helper.make_model(
            graph,
            producer_name="quantbench",
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=_IR_VERSIONS[self.opset],
        )


def _he_weights(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    weights: Array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
    return weights


def _conv_attributes(x: Array, kernel: int, stride: int, pads: Sequence[int] | None) -> dict[str, Any]:
    if pads is None:
        size = x.shape[2]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads = (total // 2, total // 2, total - total // 2, total - total // 2)
    return {"kernel_shape": [kernel] * 2, "pads": list(pads), "strides": [stride] * 2}


def _run(node: onnx.NodeProto, feeds: Sequence[Array], opset: int) -> list[Array]:
    """The outputs of one node."""
    arrays = dict(zip(node.input, feeds, strict=True))
    graph = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in arrays.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    results: list[Array] = _session(model).run(None, arrays)
    return results


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
