"""What each weight of a linear operation is multiplied by, gathered from the operation's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.quantization.rounding.threads import compiled

__all__ = ["Patches", "patches_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Patches:
    """How a linear operation reads its input.

    A matrix product counts as a convolution whose rows are samples of one position. A transposed convolution is a
    convolution over its output positions, each of which meets only some positions of the kernel.

    Attributes:
        groups: of the channels.
        kernel, strides, dilations, begins: height and width; `begins` is the padding before the first row and column.
        ends: the padding behind; for a transposed convolution with its output padding taken off.
        same: "SAME_UPPER" or "SAME_LOWER" where the padding follows from the size of the input.
        transposed: whether it is a transposed convolution.
        last: whether channels run along the last axis (Gemm, MatMul).
    """

    groups: int = 1
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    begins: tuple[int, int] = (0, 0)
    ends: tuple[int, int] = (0, 0)
    same: str = ""
    transposed: bool = False
    last: bool = False

    def images(self, values: Array) -> Array:
        """An input of the operation as (samples, channels, height, width)."""
        if self.last:
            return values.reshape(-1, values.shape[-1], 1, 1)
        return values if values.ndim == 4 else values[:, :, np.newaxis, :]

    def positions(self, images: Array) -> tuple[int, int]:
        """Height and width of what the operation makes of `images`."""
        sizes = []
        for axis in (0, 1):
            size, stride = images.shape[2 + axis], self.strides[axis]
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            padding = self.begins[axis] + self.ends[axis]
            if self.transposed:
                sizes.append((size - 1) * stride + reach - padding)
            elif self.same:
                sizes.append(-(-size // stride))
            else:
                sizes.append((size + padding - reach) // stride + 1)
        return sizes[0], sizes[1]

    def gather(self, images: Array, chosen: Array) -> Array:
        """The columns at some output positions: (groups, len(chosen), columns) float32.

        Args:
            images: of `images`.
            chosen: positions counted through samples, rows and columns of the output, in this order.
        """
        height, width = self.positions(images)
        channels = images.shape[1] // self.groups
        taps = self.kernel[0] * self.kernel[1]
        out = np.zeros((self.groups, len(chosen), channels * taps), np.float32)
        _gather(images, chosen, height, width, *self._geometry(images), self.transposed, out)
        return out

    def sums(self, images: Array) -> Array:
        """The sum of each column over all output positions: (groups, columns) float64."""
        height, width = self.positions(images)
        taps = self.kernel[0] * self.kernel[1]
        out = np.zeros((images.shape[1], taps))
        _sum(images, height, width, *self._geometry(images), self.transposed, out)
        return out.reshape(self.groups, -1)

    def _geometry(self, images: Array) -> tuple[int, ...]:
        """Kernel, strides, dilations and first paddings, as the kernels take them."""
        begins = list(self.begins)
        if self.same:
            for axis in (0, 1):
                reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
                size, stride = images.shape[2 + axis], self.strides[axis]
                total = max((-(-size // stride) - 1) * stride + reach - size, 0)
                begins[axis] = total // 2 if self.same == "SAME_UPPER" else total - total // 2
        return (*self.kernel, *self.strides, *self.dilations, *begins)


def patches_of(node: ir.Node, weight_shape: tuple[int, ...]) -> Patches | None:
    """How a node with a constant weight reads its input; None where the layout has no matrices here.

    That is: lookups, more than two spatial axes, weights of batched products, transposed inputs of Gemm, transposed
    convolutions in groups or with their padding left to the runtime.
    """
    attributes = node.attributes
    if node.op_type in ("Gemm", "MatMul"):
        plain = len(weight_shape) == 2 and not attributes.get_int("transA", 0)
        return Patches(last=True) if plain else None
    spatial = len(weight_shape) - 2
    if node.op_type not in ("Conv", "ConvTranspose") or spatial not in (1, 2):
        return None
    transposed = node.op_type == "ConvTranspose"
    groups = attributes.get_int("group", 1) or 1
    automatic = attributes.get_string("auto_pad", "NOTSET") or "NOTSET"
    shaped = "output_shape" in attributes or automatic not in ("NOTSET", "VALID")
    if transposed and (groups != 1 or shaped):
        return None
    ones, zeros = (1,) * spatial, (0,) * 2 * spatial
    pads = zeros if automatic == "VALID" else tuple(attributes.get_ints("pads", zeros) or zeros)
    extra = tuple(attributes.get_ints("output_padding", zeros[:spatial]) or zeros[:spatial])
    ends = tuple(end - more for end, more in zip(pads[spatial:], extra, strict=True)) if transposed else pads[spatial:]
    return Patches(
        groups=groups,
        kernel=_two(weight_shape[2:], 1),
        strides=_two(attributes.get_ints("strides", ones) or ones, 1),
        dilations=_two(attributes.get_ints("dilations", ones) or ones, 1),
        begins=_two(pads[:spatial], 0),
        ends=_two(ends, 0),
        same=automatic if automatic.startswith("SAME") else "",
        transposed=transposed,
    )


def _two(sizes: Any, missing: int) -> tuple[int, int]:
    """Height and width; a sequence has a width alone."""
    first, *second = (int(size) for size in sizes)
    return (first, second[0]) if second else (missing, first)


@compiled
def _gather(
    images: Any, chosen: Any, height: int, width: int, kernel_h: int, kernel_w: int, stride_h: int, stride_w: int,
    dilation_h: int, dilation_w: int, begin_h: int, begin_w: int, transposed: bool, out: Any,
) -> None:  # fmt: skip
    channels = images.shape[1] // out.shape[0]
    for index in range(len(chosen)):
        position = chosen[index]
        sample, place = position // (height * width), position % (height * width)
        y, x = place // width, place % width
        for i in range(kernel_h):
            row = _source(y, i, stride_h, dilation_h, begin_h, transposed)
            for j in range(kernel_w):
                column = _source(x, j, stride_w, dilation_w, begin_w, transposed)
                if row < 0 or column < 0 or row >= images.shape[2] or column >= images.shape[3]:
                    continue
                tap = i * kernel_w + j
                for channel in range(images.shape[1]):
                    value = images[sample, channel, row, column]
                    out[channel // channels, index, channel % channels * kernel_h * kernel_w + tap] = value


@compiled
def _source(place: int, tap: int, stride: int, dilation: int, begin: int, transposed: bool) -> int:
    """Where an output position meets the input through a position of the kernel; −1 where it does not."""
    if not transposed:
        return place * stride - begin + tap * dilation
    shifted = place + begin - tap * dilation
    return shifted // stride if shifted % stride == 0 else -1


@compiled
def _sum(
    images: Any, height: int, width: int, kernel_h: int, kernel_w: int, stride_h: int, stride_w: int,
    dilation_h: int, dilation_w: int, begin_h: int, begin_w: int, transposed: bool, out: Any,
) -> None:  # fmt: skip
    for sample in range(images.shape[0]):
        for channel in range(images.shape[1]):
            for i in range(kernel_h):
                for j in range(kernel_w):
                    total = 0.0
                    if transposed:
                        for row in range(images.shape[2]):
                            y = row * stride_h - begin_h + i * dilation_h
                            if y < 0 or y >= height:
                                continue
                            for column in range(images.shape[3]):
                                x = column * stride_w - begin_w + j * dilation_w
                                if x >= 0 and x < width:
                                    total += images[sample, channel, row, column]
                    else:
                        for y in range(height):
                            row = y * stride_h - begin_h + i * dilation_h
                            if row < 0 or row >= images.shape[2]:
                                continue
                            for x in range(width):
                                column = x * stride_w - begin_w + j * dilation_w
                                if column >= 0 and column < images.shape[3]:
                                    total += images[sample, channel, row, column]
                    out[channel, i * kernel_w + j] += total
