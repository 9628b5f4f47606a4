"""Round the weights of a graph one operation after the other, each for the inputs that the rounding before it leaves.

The bias of each operation then takes up what rounding did to the means of its output channels (Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2). These means follow
from those of its inputs, so no operation has to be run for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.graphs.qdq import QuantizedTensor, write_activations
from quantbench.numerics.threads import cores, in_order
from quantbench.quantization.affine import dequantize
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.plan import GraphPlan
from quantbench.quantization.rounding.moments import Batch, MomentsSum
from quantbench.quantization.rounding.nearest import round_weight_to_nearest
from quantbench.quantization.rounding.patches import Patches, patches_of
from quantbench.quantization.rounding.replay import Replay
from quantbench.quantization.rounding.shift import bias_shift, has_its_own_bias
from quantbench.quantization.rounding.weight import Method, aims, round_weight
from quantbench.quantization.writing import activation_affines, array_of, is_integer, replace_array
from quantbench.support import progress, return_memory

__all__ = ["round_in_order"]

Array = NDArray[Any]

_BUDGET = 3 << 27
"""Bytes of intermediate tensors that are kept while the exact and the rounded graph are followed, for both together: a
quarter for the rounded one, which keeps codes of a byte."""
_POSITIONS = 1 << 10, 1 << 13
"""Output positions at least and at most that second moments are taken at; means are taken over all."""
_POSITIONS_PER_COLUMN = 64
"""As many, in between: the moments of few columns, as in depthwise convolutions, are known after few positions."""
_ELEMENTS = 1 << 21
"""Numbers at most that the columns of one batch may hold."""


def round_in_order(
    model: ir.Model,
    plan: GraphPlan,
    feeds: Sequence[Mapping[str, Array]],
    method: Method,
    *,
    shift: bool = True,
    alone: bool = False,
    seed: int = 0,
) -> tuple[dict[str, QuantizedTensor], dict[str, Array]]:
    """Round every weight that the plan puts into integers, and correct the biases.

    The result depends neither on the number of threads nor on the order in which they finish. Lookups, and operations
    whose weights make no matrices (`patches_of`), get the nearest codes and keep their biases.

    Args:
        model: a prepared graph; left as it is.
        plan: of this graph.
        feeds: inputs of the graph from calibration samples, one mapping a batch.
        method: how to round.
        shift: whether to correct biases; without, weights are rounded for the outputs as they are.
        alone: round each weight as if it were the only thing that is rounded, for the exact inputs.
        seed: of every random choice.

    Returns:
        (the integer weights by initializer, what to add to each bias, float64 of shape (channels,), by initializer).

    Raises:
        InputError: there are no feeds.
    """
    if not feeds:
        raise InputError("weights are rounded for the inputs they meet: at least one calibration sample is needed")
    seed %= 1 << 32  # generators take no negative numbers
    rounded = model.clone()
    if not alone:
        write_activations(rounded, activation_affines(plan), plan.integer_nodes)
    reading = {node.name: node.inputs[0].name or "" for node in rounded.graph if node.inputs and node.inputs[0]}
    nodes = {node.name: node for node in model.graph}
    integers = {name for name, tensor in plan.of_role("weight").items() if is_integer(tensor)}
    uses = {name: use for name, use in weight_uses(model).items() if name in integers}
    weights: dict[str, QuantizedTensor] = {}
    shifts: dict[str, Array] = {}
    patches: dict[str, Patches] = {}
    stops: dict[tuple[str, str], list[str]] = {}
    for name, use in uses.items():
        each = patches_of(nodes[use.node], array_of(model, name).shape)
        if each is None:
            weights[name] = round_weight_to_nearest(model, plan, name, use)
            replace_array(rounded, name, dequantize(weights[name]))
        else:
            patches[name] = each
            stops.setdefault((use.source, reading[use.node]), []).append(name)
    order = _in_order(rounded, stops)
    replays = [Replay(model, feeds, [stop for stop, _ in order], _BUDGET * 3 // 4)]
    if not alone:
        replays.append(Replay(rounded, feeds, [stop for _, stop in order], _BUDGET // 4))
    for step, stop in enumerate(progress(order, len(order), "rounding weights")):
        alike = _alike(stops[stop], patches, {name for name in uses if shift and has_its_own_bias(model, uses[name])})
        sums = {key: MomentsSum(key[0], method.reads_inputs, len(feeds)) for key in alike}
        _add_up(replays, len(feeds), sums, (seed, step))
        return_memory()
        for (way, corrected), names in alike.items():
            moments = sums.pop((way, corrected)).result(centred=corrected)
            wanted, moments = aims(model, {name: uses[name] for name in names}, moments)
            for name in names:
                use, bias = uses[name], uses[name].added
                weights[name] = round_weight(model, plan, name, use, method, wanted.pop(name), moments, seed)
                replace_array(rounded, name, dequantize(weights[name]))
                if corrected and bias is not None:
                    means = moments.mean_exact, moments.mean_rounded
                    shifts[bias] = bias_shift(model, nodes[use.node], name, weights[name], use, *means)
                    replace_array(rounded, bias, (array_of(model, bias) + shifts[bias]).astype(np.float32))
            del moments  # before the next ones are added up
    return weights, shifts


def _alike(
    names: Collection[str], patches: Mapping[str, Patches], corrected: Collection[str]
) -> dict[tuple[Patches, bool], list[str]]:
    """Weights with the same moments: by how they read their input, and whether a bias is corrected."""
    groups: dict[tuple[Patches, bool], list[str]] = {}
    for name in names:
        groups.setdefault((patches[name], name in corrected), []).append(name)
    return groups


def _add_up(
    replays: Sequence[Replay],
    batches: int,
    sums: Mapping[tuple[Patches, bool], MomentsSum],
    seed: tuple[int, int],
) -> None:
    """Go on to the next stop with all batches, in threads, and add up the moments in the order of the batches: of what
    the first replay, of the exact graph, computes with what the last computes."""
    pieces = [replay.open() for replay in replays]

    def look(batch: int) -> list[Batch]:
        results = [piece.run(batch)[0] for piece in pieces]
        seen = []
        for (patches, _), each in sums.items():
            images = patches.images(results[0])
            height, width = patches.positions(images)
            generator = np.random.default_rng((*seed, batch))
            columns = images.shape[1] * patches.kernel[0] * patches.kernel[1]
            wanted = int(np.clip(columns // patches.groups * _POSITIONS_PER_COLUMN, *_POSITIONS))
            few = min(-(-wanted // batches), max(_ELEMENTS // columns, 64))
            seen.append(each.look(results[0], results[-1], _some(len(images) * height * width, few, generator)))
        return seen

    for seen in in_order(look, range(batches), cores(), ahead=0):
        for each, batch in zip(sums.values(), seen, strict=True):
            each.add(batch)
    for replay, piece in zip(replays, pieces, strict=True):
        replay.close(piece)


def _some(total: int, quota: int, generator: np.random.Generator) -> Array:
    """At most `quota` of the numbers below `total`, in ascending order."""
    if total <= quota:
        return np.arange(total)
    return np.sort(generator.choice(total, quota, replace=False, shuffle=False))


def _in_order(rounded: ir.Model, stops: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """The stops by where the rounded graph makes them; its inputs come first."""
    position = {output.name: index for index, node in enumerate(rounded.graph) for output in node.outputs}
    return sorted(stops, key=lambda stop: position.get(stop[1], -1))
