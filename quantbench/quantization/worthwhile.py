"""Which operations compute faster in float, the conversions between float and integers counted: a minimum cut.

Every operation that could compute in integers is on one of two sides. A tensor whose maker and reader are on different
sides is converted, once, however many read it. The cheapest division is the minimum cut of a graph whose edges are
these costs (Kolmogorov and Zabih, "What energy functions can be minimized via graph cuts?", 2004: two labels, and
unequal neighbours cost more than equal ones).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, maximum_flow

from quantbench.quantization.costs import cost_of, crossing
from quantbench.quantization.placement import Placement, joins

__all__ = ["slower_in_integers"]

_GAIN = 0.25
"""Share of an island's time that its operations in float have to save, as the costs are rough; else all of it stays in
integers."""
_UNIT = 10.0
"""Nanoseconds; the flow is in whole numbers."""
_NEVER = 1 << 30
_INTEGER, _FLOAT = "<integers>", "<float>"
_GIVE_FLOAT = {"Gemm", "MatMul"}
"""Read codes and give float32: their accumulators are scaled, and not rounded to codes again."""


def slower_in_integers(model: ir.Model, placement: Placement, sizes: Mapping[str, float]) -> tuple[str, ...]:
    """The nodes of a placement that had better stay in float, in the order of the graph.

    Islands, between which only floats go, are judged each by itself: what a small one saves counts, however long the
    large ones take.

    Args:
        model: a prepared graph.
        placement: the nodes that could compute in integers.
        sizes: elements of its tensors for one sample.
    """
    sizes = _sizes(model, placement, sizes)
    sides = _sides(model, set(placement.nodes))
    cut = _Cut()
    integers: list[tuple[str, float]] = []
    for node in model.graph:
        side = sides.get(node.name or "")
        if side is None:
            continue
        cost = cost_of(node, _size(node.inputs[0], sizes), _size(node.outputs[0], sizes))
        cut.edge(_INTEGER, side, cost.in_float)
        cut.edge(side, _FLOAT, cost.in_integers)
        integers.append((side, cost.in_integers))
    for value in [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]:
        maker = value.producer()
        made = _FLOAT if maker is None or maker.op_type in _GIVE_FLOAT else sides.get(maker.name or "", _FLOAT)
        readers = {sides.get(reader.name or "", _FLOAT) for reader, _ in value.uses()}
        if value.is_graph_output():
            readers.add(_FLOAT)
        if readers <= {made}:
            continue
        conversion = crossing(_size(value, sizes))
        codes, reals = f"codes of {value.name}", f"{value.name}"
        cut.edge(codes, made, conversion)
        cut.edge(made, reals, conversion)
        for reader_side in readers:
            cut.edge(reader_side, codes, _NEVER)
            cut.edge(reals, reader_side, _NEVER)
        if readers != {_FLOAT} if made == _FLOAT else _FLOAT in readers:
            integers.append((codes, conversion))
    in_integers = cut.solve()
    islands = cut.islands()
    saved: defaultdict[int, float] = defaultdict(float)
    for place, cost_in_integers in integers:
        saved[islands[place]] += (1 - _GAIN) * cost_in_integers
    for place, spent in cut.spent(in_integers):
        saved[islands[place]] -= spent
    return tuple(
        name for name in placement.nodes if sides[name] not in in_integers and saved[islands[sides[name]]] >= 0
    )


class _Cut:
    """A directed graph between `_INTEGER` and `_FLOAT`, and its minimum cut."""

    def __init__(self) -> None:
        self._vertices = {_INTEGER: 0, _FLOAT: 1}
        self._edges: dict[tuple[int, int], float] = {}

    def edge(self, source: str, target: str, cost: float) -> None:
        """What it costs when `source` is on the side of integers and `target` is not."""
        if source != target and source != _FLOAT and cost:
            pair = (self._vertex(source), self._vertex(target))
            self._edges[pair] = self._edges.get(pair, 0.0) + cost

    def solve(self) -> set[str]:
        """The vertices on the side of integers in the minimum cut: as few as can be."""
        rows, columns = (np.array([pair[k] for pair in self._edges], np.int32) for k in (0, 1))
        costs = np.array([min(round(cost / _UNIT), _NEVER) for cost in self._edges.values()], np.int32)
        size = len(self._vertices)
        capacity = csr_array((costs, (rows, columns)), shape=(size, size))
        left = csr_array(capacity - maximum_flow(capacity, 0, 1).flow)
        left.eliminate_zeros()
        reached = {int(index) for index in breadth_first_order(left, 0, return_predecessors=False)}
        return {name for name, index in self._vertices.items() if index in reached}

    def spent(self, in_integers: Collection[str]) -> Iterator[tuple[str, float]]:
        """What a division costs: (a vertex that is no end, cost) of each edge that it cuts."""
        names = list(self._vertices)
        for (source, target), cost in self._edges.items():
            if names[source] in in_integers and names[target] not in in_integers:
                yield names[target if source == 0 else source], cost

    def islands(self) -> dict[str, int]:
        """For each vertex the number of the part that it is connected with other than through the two ends."""
        inner = [pair for pair in self._edges if not {0, 1} & set(pair)]
        size = len(self._vertices)
        rows, columns = (np.array([pair[k] for pair in inner], np.int32) for k in (0, 1))
        _, labels = connected_components(csr_array((np.ones(len(inner)), (rows, columns)), shape=(size, size)), False)
        return {name: int(labels[index]) for name, index in self._vertices.items()}

    def _vertex(self, name: str) -> int:
        return self._vertices.setdefault(name, len(self._vertices))


def _sides(model: ir.Model, placed: set[str]) -> dict[str, str]:
    """For each placed node the one that decides its side: an activation goes with what it follows."""
    sides: dict[str, str] = {}
    for node in model.graph:
        name = node.name or ""
        if name not in placed:
            continue
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        follows = before is not None and before.name in sides and joins(node, before)
        sides[name] = sides[before.name or ""] if follows and before is not None else name
    return sides


def _sizes(model: ir.Model, placement: Placement, sizes: Mapping[str, float]) -> dict[str, float]:
    """The same of the tensors that are not looked at: what shares another's codes, and what an activation bounds."""
    known = dict(sizes)
    for moved, source in placement.tied.items():
        known.setdefault(moved, known.get(source, 0.0))
    for node in reversed(model.graph):
        before = None if node.inputs[0:1] in ((), (None,)) else node.inputs[0].producer()  # type: ignore[union-attr]
        if before is not None and joins(node, before) and node.outputs[0].name in known:
            known.setdefault(before.outputs[0].name or "", known[node.outputs[0].name])
    return known


def _size(value: ir.Value | None, sizes: Mapping[str, float]) -> float:
    return sizes.get(value.name or "", 0.0) if value is not None else 0.0
