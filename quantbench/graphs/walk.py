"""Walk through a graph one linear operation at a time, with all samples, changing it on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.graphs.executor import session_options
from quantbench.numerics.threads import cores

__all__ = ["walk"]

Array = NDArray[Any]
Visit = Callable[[str, list[Array]], Array | None]
"""Called with a stop's name and its values for each batch; may return what to add to each channel's values."""


def walk(model: ir.Model, feeds: Sequence[Mapping[str, Array]], stops: Mapping[str, int], visit: Visit) -> None:
    """Compute the tensors `stops` in the order of the graph, each from what `visit` made of those before it.

    Every piece of the graph is computed once; a tensor is let go when nothing reads it any more.

    Args:
        model: left as it is.
        feeds: one mapping from graph input to array for each batch.
        stops: tensor name → channel axis.
        visit: called at each stop; a shift of shape (channels,) that it returns is added to the tensor before the
            walk goes on.
    """
    graph = model.graph
    nodes = list(graph)
    position = {output.name: index for index, node in enumerate(nodes) for output in node.outputs}
    order = sorted(stops, key=lambda name: position[name])
    shared = {
        output.name
        for node in nodes
        for output in node.outputs
        if len({id(user) for user, _ in output.uses()}) > 1 or output.name in stops
    }
    known: dict[str, list[Array]] = {
        value.name or "": [feed[value.name or ""] for feed in feeds] for value in graph.inputs
    }
    readers = _last_readers(nodes, position, order)
    scissors = _Scissors(model)
    with ThreadPoolExecutor(cores()) as pool:
        for step, stop in enumerate(order):
            piece, inputs, wanted = scissors.cut(position[stop], known, shared, position)
            known.update(zip(wanted, _run(piece, inputs, known, len(feeds), pool), strict=True))
            shift = visit(stop, known[stop])
            if shift is not None:
                axis = stops[stop]
                for values in known[stop]:
                    along = [1] * values.ndim
                    along[axis] = -1
                    values += shift.reshape(along).astype(np.float32)
            for name in [name for name in known if readers.get(name, -1) <= step]:
                del known[name]


class _Scissors:
    """Cuts pieces out of a graph that does not change."""

    def __init__(self, model: ir.Model) -> None:
        self._nodes = list(model.graph)
        self._proto = ir.to_proto(model)
        self._tensors = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        graph = self._proto.graph
        self._types = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}

    def cut(
        self, last: int, known: Collection[str], shared: set[str | None], position: Mapping[str | None, int]
    ) -> tuple[onnx.ModelProto, list[str], list[str]]:
        """What it takes to reach the node at `last`: (a model, the known tensors it starts from, its outputs: those of
        the node and the shared tensors on the way)."""
        wanted: list[str] = []
        inputs: dict[str, None] = {}
        constants: dict[str, None] = {}
        pending, taken = [last], {last}
        while pending:
            current = self._nodes[pending.pop()]
            wanted += [output.name or "" for output in current.outputs if output.name in shared]
            for value in _reads(current):
                name = value.name or ""
                if value.is_initializer():
                    constants[name] = None
                elif name in known:
                    inputs[name] = None
                elif position[name] not in taken:
                    taken.add(position[name])
                    pending.append(position[name])
        graph = onnx.helper.make_graph(
            [self._proto.graph.node[index] for index in sorted(taken)],
            "piece",
            [self._types.get(name, onnx.ValueInfoProto(name=name)) for name in inputs],
            [onnx.ValueInfoProto(name=name) for name in wanted],
            [self._tensors[name] for name in constants],
        )
        proto = self._proto
        piece = onnx.helper.make_model(
            graph, opset_imports=proto.opset_import, ir_version=proto.ir_version, functions=proto.functions
        )
        return piece, list(inputs), wanted


def _last_readers(nodes: Sequence[ir.Node], position: Mapping[str | None, int], order: Sequence[str]) -> dict[str, int]:
    """For each tensor the last step of the walk that can read it."""
    step_of = {position[stop]: step for step, stop in enumerate(order)}
    last: dict[str, int] = {}
    for index in range(len(nodes) - 1, -1, -1):
        step = step_of.get(index, max(last.get(output.name or "", -1) for output in nodes[index].outputs))
        for value in _reads(nodes[index]):
            last[value.name or ""] = max(last.get(value.name or "", -1), step)
    return last


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads: its inputs, and what its bodies (If, Loop, Scan) take from outside."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            inside = ir.traversal.RecursiveGraphIterator(body)
            values = [*body.outputs, *(value for inner in inside for value in inner.inputs)]
            yield from (value for value in values if value is not None and value.graph is node.graph)


def _run(
    piece: onnx.ModelProto,
    inputs: Sequence[str],
    known: Mapping[str, list[Array]],
    batches: int,
    pool: ThreadPoolExecutor,
) -> list[list[Array]]:
    """The outputs of a piece, each as a list over the batches, which run side by side."""
    session = ort.InferenceSession(piece.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"])

    def run(batch: int) -> list[Array]:
        results: list[Array] = session.run(None, {name: known[name][batch] for name in inputs})
        return results

    return [list(column) for column in zip(*pool.map(run, range(batches)), strict=True)]
