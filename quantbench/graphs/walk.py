"""Walk through a graph one linear operation at a time, with all samples, changing it on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.graphs.edit import reads
from quantbench.graphs.executor import session_options
from quantbench.graphs.liveness import last_steps, shared
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
    kept = {*stops, *shared(nodes)}
    known: dict[str, list[Array]] = {
        value.name or "": [feed[value.name or ""] for feed in feeds] for value in graph.inputs
    }
    last = last_steps(nodes, order, kept)
    with ThreadPoolExecutor(cores()) as pool:
        for step, stop in enumerate(order):
            piece, wanted = _cut(model, nodes, position[stop], known, kept, position)
            known.update(zip(wanted, _run(piece, known, len(feeds), pool), strict=True))
            del piece
            shift = visit(stop, known[stop])
            if shift is not None:
                list(pool.map(partial(_add, shift.astype(np.float32), stops[stop]), known[stop]))
            for name in [name for name in known if last.get(name, -1) <= step]:
                del known[name]


def _add(shift: Array, axis: int, values: Array) -> None:
    along = [1] * values.ndim
    along[axis] = -1
    values += shift.reshape(along)


def _cut(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    last: int,
    known: Mapping[str, list[Array]],
    kept: Collection[str],
    position: Mapping[str | None, int],
) -> tuple[onnx.ModelProto, list[str]]:
    """What it takes to reach the node at `last` from known tensors: (a model, its outputs: those of `kept` on the way).

    Only the piece is written out, not the graph around it: the weights are the largest part of many graphs.
    """
    wanted: list[str] = []
    inputs: dict[str, None] = {}
    constants: dict[str, ir.TensorProtocol] = {}
    pending, taken = [last], {last}
    while pending:
        current = nodes[pending.pop()]
        wanted += [output.name or "" for output in current.outputs if output.name in kept]
        for value in reads(current):
            name = value.name or ""
            if value.const_value is not None and value.is_initializer():
                constants[name] = value.const_value
            elif name in known:
                inputs[name] = None
            elif position[name] not in taken:
                taken.add(position[name])
                pending.append(position[name])
    graph = onnx.helper.make_graph(
        [ir.to_proto(nodes[index]) for index in sorted(taken)],
        "piece",
        [_declared(name, known[name]) for name in inputs],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [_named(ir.to_proto(tensor), name) for name, tensor in constants.items()],
    )
    piece = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()],
        ir_version=model.ir_version,
        functions=[ir.to_proto(function) for function in model.functions.values()],
    )
    return piece, wanted


def _declared(name: str, batches: Sequence[Array]) -> onnx.ValueInfoProto:
    """A piece's input, of the type of the arrays that it is fed; axes along which they differ are open."""
    shapes = zip(*(batch.shape for batch in batches), strict=True)
    shape = [sizes[0] if len(set(sizes)) == 1 else None for sizes in shapes]
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(batches[0].dtype), shape)


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    tensor.name = name
    return tensor


def _run(
    piece: onnx.ModelProto, known: Mapping[str, list[Array]], batches: int, pool: ThreadPoolExecutor
) -> list[list[Array]]:
    """The outputs of a piece, each as a list over the batches, which run side by side."""
    session = ort.InferenceSession(piece.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"])
    inputs = [value.name for value in piece.graph.input]

    def run(batch: int) -> list[Array]:
        results: list[Array] = session.run(None, {name: known[name][batch] for name in inputs})
        return results

    return [list(column) for column in zip(*pool.map(run, range(batches)), strict=True)]
