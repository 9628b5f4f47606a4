"""Walk through a graph one linear operation at a time, with all samples, changing it on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.graphs.arena import share_arena
from quantbench.graphs.edit import reads
from quantbench.graphs.executor import element_type, session_options
from quantbench.graphs.liveness import last_steps, shared
from quantbench.numerics.threads import cores, one_ahead

__all__ = ["walk"]

Array = NDArray[Any]
T = TypeVar("T")


def walk(
    model: ir.Model,
    feeds: Sequence[Mapping[str, Array]],
    stops: Mapping[str, int],
    measure: Callable[[str, Array], T],
    visit: Callable[[str, list[T]], Array | None],
) -> None:
    """Compute the tensors `stops` in the order of the graph, each from what `visit` made of those before it.

    Every piece of the graph is computed once, while the next one is opened; a tensor is let go when nothing reads it
    any more.

    Args:
        model: left as it is.
        feeds: one mapping from graph input to array for each batch.
        stops: tensor name → channel axis.
        measure: called at each stop, from threads, with its name and its values for one batch.
        visit: called at each stop with its name and what was measured of each batch; a shift of shape (channels,) that
            it returns is added to the tensor before the walk goes on.
    """
    names = [value.name or "" for value in model.graph.inputs]
    known = [{name: feed[name] for name in names} for feed in feeds]
    inputs = {name: _declared(name, [values[name] for values in known]) for name in names}
    shifts: dict[str, Array] = {}
    with ThreadPoolExecutor(cores()) as pool:
        for piece in one_ahead(_pieces(model, inputs, stops)):
            measured = list(pool.map(partial(_go_on, piece, measure, stops, shifts), known))
            shift = visit(piece.stop, measured)
            shifts = {} if shift is None else {piece.stop: shift.astype(np.float32)}


def _go_on(
    piece: _Piece,
    measure: Callable[[str, Array], T],
    stops: Mapping[str, int],
    shifts: Mapping[str, Array],
    values: dict[str, Array],
) -> T:
    """Take one batch, its known tensors by name, through a piece, once these are shifted; returns what is measured."""
    for name in values.keys() & shifts.keys():
        _add(shifts[name], stops[name], values[name])
    results = piece.session.run(piece.outputs, {name: values[name] for name in piece.inputs})
    values.update(zip(piece.outputs, results, strict=True))
    measured = measure(piece.stop, values[piece.stop])
    for name in piece.released:
        del values[name]
    return measured


def _add(shift: Array, axis: int, values: Array) -> None:
    along = [1] * values.ndim
    along[axis] = -1
    values += shift.reshape(along)


@dataclass(frozen=True)
class _Piece:
    """What leads to a stop from the tensors that are known by then.

    Attributes:
        inputs: known tensors that it reads.
        outputs: the stop, and what is kept on the way.
        released: tensors that nothing reads any more.
    """

    stop: str
    session: ort.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    released: tuple[str, ...]


def _pieces(model: ir.Model, inputs: Mapping[str, onnx.ValueInfoProto], stops: Collection[str]) -> Iterator[_Piece]:
    """The pieces of the graph, opened one after the other."""
    nodes = list(model.graph)
    position: dict[str | None, int] = {
        output.name or "": index for index, node in enumerate(nodes) for output in node.outputs
    }
    order = sorted(stops, key=position.__getitem__)
    kept = {*order, *shared(nodes)}
    last = last_steps(nodes, order, kept)
    known = dict(inputs)
    for step, stop in enumerate(order):
        piece = _cut(model, nodes, position[stop], known, kept, position)
        session = _open(piece)
        known.update({argument.name: _put_out(argument) for argument in session.get_outputs()})
        released = [name for name in known if last.get(name, -1) <= step]
        for name in released:
            del known[name]
        yield _Piece(
            stop,
            session,
            tuple(value.name for value in piece.graph.input),
            tuple(value.name for value in piece.graph.output),
            tuple(released),
        )


def _cut(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    last: int,
    known: Mapping[str, onnx.ValueInfoProto],
    kept: Collection[str],
    position: Mapping[str | None, int],
) -> onnx.ModelProto:
    """What it takes to reach the node at `last` from known tensors; it puts out those of `kept` on the way.

    Only the piece is written out, not the graph around it: the weights are the largest part of many graphs.
    """
    wanted: list[str] = []
    inputs: dict[str, onnx.ValueInfoProto] = {}
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
                inputs[name] = known[name]
            elif position[name] not in taken:
                taken.add(position[name])
                pending.append(position[name])
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(nodes[index]) for index in sorted(taken)],
        "piece",
        list(inputs.values()),
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [_named(ir.serde.serialize_tensor(tensor), name) for name, tensor in constants.items()],
    )
    return onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()],
        ir_version=model.ir_version,
        functions=[ir.to_proto(function) for function in model.functions.values()],
    )


def _declared(name: str, batches: Sequence[Array]) -> onnx.ValueInfoProto:
    """A piece's input, of the type of the arrays that it is fed; axes along which they differ are open."""
    shapes = zip(*(batch.shape for batch in batches), strict=True)
    shape = [sizes[0] if len(set(sizes)) == 1 else None for sizes in shapes]
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(batches[0].dtype), shape)


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    tensor.name = name
    return tensor


def _open(piece: onnx.ModelProto) -> ort.InferenceSession:
    options = session_options(1)
    share_arena(options)
    return ort.InferenceSession(piece.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _put_out(argument: ort.NodeArg) -> onnx.ValueInfoProto:
    """A session's output as the input of a later piece; of a shape without axes nothing says that it is known."""
    shape = [size if isinstance(size, int) else None for size in argument.shape] or None
    return onnx.helper.make_tensor_value_info(argument.name, element_type(argument), shape)
