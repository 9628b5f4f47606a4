"""Stacking samples for a graph with one input, whatever batch sizes and shapes it and they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Samples
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor, TensorSpec

__all__ = ["Group", "Output", "cast", "fitting_batch", "max_batch", "output_index", "run_groups", "scatter", "stack"]

Array = NDArray[Any]

_CACHED_BYTES = 3 << 20
_GRAPHS = ("model", "encoder", "decoder")


@dataclass(frozen=True)
class Group:
    """Samples of one shape that run together. A graph with a fixed batch gets its rows padded."""

    positions: tuple[int, ...]  # where the samples stood in the list given to `stack`
    feeds: dict[str, Array]


@dataclass(frozen=True)
class Output:
    """One output of a group, without padding: row i belongs to the sample at positions[i]."""

    positions: tuple[int, ...]
    values: Array


def max_batch(executor: Executor) -> int | None:
    """The batch size that the executor's graphs are fixed to; None when any size will do."""
    sizes = []
    for graph in _GRAPHS:
        with suppress(KeyError):  # the executor has no graph of this name
            sizes += [spec.shape[0] for spec in executor.inputs(graph) if spec.shape]
    return min((size for size in sizes if size is not None), default=None)


def fitting_batch(samples: Samples, most: int, memory: int = _CACHED_BYTES) -> int:
    """How many samples, at most `most`, have inputs of at most `memory` bytes together, going by the first one's size.

    The default is for graphs whose tensors are looked at between two stages, and should still be in the processor's
    cache then; what a graph computes on the way is some ten times as large as its inputs.
    """
    return min(max(memory // max(samples.input(0).nbytes, 1), 1), most) if len(samples) else most


def stack(executor: Executor, inputs: Sequence[Array], graph: str = "model") -> list[Group]:
    """Stack samples (each without the batch axis) by shape, at most the graph's fixed batch in a group.

    Raises:
        InputError: the graph has more than one input, or a sample's shape or values do not fit it.
    """
    specs = executor.inputs(graph)
    if len(specs) != 1:
        raise InputError(
            f"graph {graph} has the inputs {', '.join(spec.name for spec in specs) or 'none'}; "
            "this task feeds a graph with one input, so export the model with one"
        )
    spec = specs[0]
    fixed = spec.shape[0] if spec.shape else None
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, sample in enumerate(inputs):
        by_shape.setdefault(sample.shape, []).append(position)
    groups = []
    for shape, positions in by_shape.items():
        _check_shape(spec, shape)
        size = fixed or len(positions)
        for start in range(0, len(positions), size):
            part = tuple(positions[start : start + size])
            padded = part + part[-1:] * (size - len(part) if fixed else 0)
            values = np.stack([inputs[position] for position in padded])
            groups.append(Group(part, {spec.name: cast(values, spec)}))
    return groups


def cast(values: Array, spec: TensorSpec) -> Array:
    """The values in the dtype of a graph input.

    Raises:
        InputError: the input takes integers and the values have fractions or are out of its range.
    """
    dtype = np.dtype(spec.dtype)
    if values.dtype == dtype:
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        converted = values.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(converted, values):
        raise InputError(
            f"input {spec.name} takes {dtype} and the prepared samples do not fit it (they have {values.dtype} values "
            f"from {values.min():g} to {values.max():g}); leave mean and std out of [preprocess]"
        )
    return converted


def run_groups(executor: Executor, groups: Sequence[Group], output: str | None, graph: str = "model") -> list[Output]:
    """Run every group and keep one output, the first where no name is given.

    Raises:
        InputError: the graph has no such output.
    """
    index = output_index(executor, output, graph)
    return [
        Output(group.positions, executor.run(group.feeds, graph)[index][: len(group.positions)]) for group in groups
    ]


def output_index(executor: Executor, output: str | None, graph: str = "model") -> int:
    """Where the named output stands among the graph's outputs; 0 without a name.

    Raises:
        InputError: the graph has no such output.
    """
    names = [spec.name for spec in executor.outputs(graph)]
    if output is None:
        return 0
    if output not in names:
        raise InputError(f"graph {graph} has no output {output}; set `output` under [model] to one of {names}")
    return names.index(output)


def scatter(outputs: Sequence[Output], decode: Callable[[Array], Sequence[Any]]) -> list[Any]:
    """Decode each group's output into one prediction a row, and put them back in the order of the samples."""
    predictions: list[Any] = [None] * sum(len(output.positions) for output in outputs)
    for output in outputs:
        for position, prediction in zip(output.positions, decode(output.values), strict=True):
            predictions[position] = prediction
    return predictions


def _check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    if not spec.shape:  # an input without a shape takes anything
        return
    wanted = spec.shape[1:]
    fits = len(wanted) == len(shape) and all(want in (None, size) for want, size in zip(wanted, shape, strict=True))
    if not fits:
        text = ", ".join("any" if size is None else str(size) for size in wanted)
        raise InputError(
            f"input {spec.name} takes samples of shape ({text}) and a prepared one has {shape}; "
            "set resize and crop under [preprocess], and layout under [model], to match"
        )
