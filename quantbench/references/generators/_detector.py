"""What drawn detectors share: heads that have learnt where the motifs' objects are, and reading columns of boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.references.generators._network import Network, Tensor
from quantbench.support import progress

__all__ = ["ClassHead", "class_heads", "columns"]

Array = NDArray[Any]

_OBJECTS = 8
"""Objects in each motif; COCO's images have seven on average."""
_REST, _CERTAINTY = -8.0, 8.0
"""The mean logit of a class anywhere, and of an object's own in the pictures learnt from; in others it is lower."""
_SPREAD = 0.5
"""Standard deviation of the logits of classes without an object."""
_RIDGE = 0.5


@dataclass(frozen=True)
class ClassHead:
    """A convolution over one feature map whose channels are the classes' logits of each box shape.

    `channel` says which channel a shape (0 …) and a class (0 is the background) have.
    """

    feature: Tensor
    name: str
    shapes: int
    channel: Callable[[int, int], int]
    kernel: int = 1
    stride: int = 1
    pad: int = 0

    @property
    def grid(self) -> int:
        """Height and width of what the head puts out."""
        return int((self.feature.sample.shape[2] + 2 * self.pad - self.kernel) // self.stride + 1)


@dataclass(frozen=True, eq=False)
class _Object:
    head: int
    place: int  # row · grid + column
    channel: int
    views: list[Array] = field(default_factory=list)  # what the head sees there, one for each picture


def class_heads(
    net: Network, heads: Sequence[ClassHead], classes: int, motifs: int, pictures: Callable[[int], Iterable[Array]]
) -> list[Tensor]:
    """The heads' outputs, with weights that find the objects of the motifs and hardly anything else.

    Each motif has objects at places, of shapes and classes drawn at random. A channel's weights are Fisher's
    discriminant (Fisher 1936) between what the head sees at its objects, in the mean of a motif's pictures, and what it
    sees anywhere; a channel without an object has random ones. So scores are high or low, as a trained detector's are,
    and few lie near the threshold that decides what is found.

    Args:
        classes: with the background, whose logits lie around 0.
        motifs: how many have objects.
        pictures: a motif's pictures, each as the network's input for one image.
    """
    lessons = [_Lesson(head) for head in heads]
    compute = net.computing([head.feature for head in heads])
    objects: list[_Object] = []
    for motif in progress(range(motifs), motifs, "drawing a detector"):
        present = [_draw_object(net.rng, heads, classes) for _ in range(_OBJECTS)]
        for picture in pictures(motif):
            views = [lesson.take(feature[0]) for lesson, feature in zip(lessons, compute(picture), strict=True)]
            for each in present:
                each.views.append(views[each.head][each.place].copy())
        objects += present
    return [
        lesson.head_on(net, classes, [each for each in objects if each.head == number])
        for number, lesson in enumerate(lessons)
    ]


def columns(net: Network, x: Tensor, start: int, end: int, name: str) -> Tensor:
    """x[:, :, start:end]."""
    bounds = [
        net.constant(f"{name}/{key}", np.array([value], np.int64))
        for key, value in (("starts", start), ("ends", end), ("axes", 2))
    ]
    return net.add("Slice", [x, *bounds], name)


def _draw_object(rng: np.random.Generator, heads: Sequence[ClassHead], classes: int) -> _Object:
    """Any default box is as likely as any other, so most objects are small, as in photographs."""
    boxes = np.array([head.grid**2 * head.shapes for head in heads])
    number = int(rng.choice(len(heads), p=boxes / boxes.sum()))
    head = heads[number]
    channel = head.channel(int(rng.integers(head.shapes)), int(rng.integers(1, classes)))
    return _Object(number, int(rng.integers(head.grid**2)), channel)


class _Lesson:
    """The moments of all that one head sees: patches of its feature map, (channels · kernel · kernel,) each."""

    def __init__(self, head: ClassHead) -> None:
        self._head = head
        size = head.feature.sample.shape[1] * head.kernel**2
        self._count = 0
        self._sum = np.zeros(size)
        self._products = np.zeros((size, size))

    def take(self, feature: Array) -> Array:
        """Count one image's feature map (channels, height, width) in; returns its patches, (grid · grid, size)."""
        head = self._head
        padded = np.pad(feature, ((0, 0), (head.pad, head.pad), (head.pad, head.pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (head.kernel, head.kernel), axis=(1, 2))
        patches = windows[:, :: head.stride, :: head.stride].transpose(1, 2, 0, 3, 4).reshape(head.grid**2, -1)
        self._count += len(patches)
        self._sum += patches.sum(axis=0, dtype=np.float64)
        self._products += patches.T @ patches
        return patches

    def head_on(self, net: Network, classes: int, objects: Sequence[_Object]) -> Tensor:
        """The convolution; its logits' means and spreads are those over all that was seen."""
        head, mean = self._head, self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        weights = net.rng.standard_normal((head.shapes * classes, len(mean)))
        weights *= _SPREAD / np.sqrt(np.einsum("ij,ij->i", weights @ covariance, weights))[:, None]
        rest = np.full(len(weights), _REST)
        rest[[head.channel(shape, 0) for shape in range(head.shapes)]] = 0.0
        weights[[each.channel for each in objects]] = 0.0
        ridge = _RIDGE * np.trace(covariance) / len(mean)
        covariance[np.diag_indices_from(covariance)] += ridge
        for each in objects:
            difference = np.mean(each.views, axis=0) - mean
            direction = np.linalg.solve(covariance, difference)
            weights[each.channel] += (_CERTAINTY - _REST) * direction / (difference @ direction)
        biases = rest - weights @ mean
        shape = (len(weights), -1, head.kernel, head.kernel)
        return net.conv(
            *(head.feature, len(weights), head.kernel, head.name),
            stride=head.stride,
            pads=[head.pad] * 4,
            weights=weights.astype(np.float32).reshape(shape),
            bias=biases.astype(np.float32),
        )
