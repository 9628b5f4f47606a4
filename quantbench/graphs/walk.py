"""Walk through a graph one linear operation at a time, with all samples, changing it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.graphs.executor import session_options

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
    for step, stop in enumerate(order):
        wanted, inputs = _piece(nodes[position[stop]], known, shared)
        piece = ir.Model(ir.convenience.extract(graph, sorted(inputs), wanted), ir_version=model.ir_version)
        known.update(zip(wanted, _run(piece, sorted(inputs), known, len(feeds)), strict=True))
        shift = visit(stop, known[stop])
        if shift is not None:
            axis = stops[stop]
            for values in known[stop]:
                along = [1] * values.ndim
                along[axis] = -1
                values += shift.reshape(along).astype(np.float32)
        for name in [name for name in known if readers.get(name, -1) <= step]:
            del known[name]


def _piece(node: ir.Node, known: Mapping[str, Any], shared: set[str | None]) -> tuple[list[str], set[str]]:
    """What it takes to reach a node: (its outputs and shared tensors on the way, the known tensors to start from)."""
    wanted: list[str] = []
    inputs: set[str] = set()
    pending, seen = [node], {id(node)}
    while pending:
        current = pending.pop()
        wanted += [output.name or "" for output in current.outputs if output.name in shared]
        for value in _reads(current):
            if value.is_initializer():
                continue
            if value.name in known:
                inputs.add(value.name or "")
                continue
            producer = value.producer()
            if producer is not None and id(producer) not in seen:
                seen.add(id(producer))
                pending.append(producer)
    return wanted, inputs


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


def _run(piece: ir.Model, inputs: Sequence[str], known: Mapping[str, list[Array]], batches: int) -> list[list[Array]]:
    """The outputs of a piece, each as a list over the batches."""
    session = ort.InferenceSession(
        ir.to_proto(piece).SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    present = {argument.name for argument in session.get_inputs()}
    rows = [
        session.run(None, {name: known[name][batch] for name in inputs if name in present}) for batch in range(batches)
    ]
    return [list(column) for column in zip(*rows, strict=True)]
