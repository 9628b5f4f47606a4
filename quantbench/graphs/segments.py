"""A graph in pieces, each of which can be run in another version of it, and the rest from there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.graphs.arena import share_arena
from quantbench.graphs.executor import element_type, session_options
from quantbench.graphs.optimise import reads

__all__ = ["Segments"]

Array = NDArray[Any]


class Segments:
    """Pieces of consecutive nodes, each opened once, with one thread and the shared arena (`graphs.arena`).

    Args:
        model: the graph, with types where it takes tensors.
        firsts: names of nodes, in the order of the graph, that begin a piece. Before the first of them there is a piece
            of its own, whatever it holds.
        outputs: the tensors that are wanted.
        change: makes the other version of a piece, with the same inputs and outputs.

    Attributes:
        taken: for each piece, the tensors that it and those after it take from before; at last `outputs`.
    """

    def __init__(
        self, model: ir.Model, firsts: Sequence[str], outputs: Sequence[str], change: Callable[[ir.Model], ir.Model]
    ) -> None:
        proto = ir.to_proto(model)
        pieces = _pieces(proto.graph.node, firsts)
        made = [{name for node in piece for name in node.output} for piece in pieces]
        read = [{name for node in piece for name in reads(node)} for piece in pieces]
        there = {value.name for value in proto.graph.input}
        self.taken: list[tuple[str, ...]] = []
        for index, names in enumerate(made):
            wanted = set(outputs).union(*read[index:])
            self.taken.append(tuple(sorted(wanted & there)))
            there |= names
        self.taken.append(tuple(outputs))
        typed = (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        types = {value.name: _without_shape(value.type) for value in typed}
        self._pieces: list[_Piece | None] = []  # None where nothing is wanted of the nodes
        for index, nodes in enumerate(pieces):
            takes = [name for name in self.taken[index] if name in read[index]]
            gives = sorted(made[index].intersection(self.taken[index + 1]))
            if not gives:
                self._pieces.append(None)
                continue
            own = _model(proto, nodes, takes, gives, types, read[index])
            piece = _Piece(takes, gives, _opened(own), _opened(_changed(own, change)))
            for argument in piece.session.get_outputs():
                types.setdefault(argument.name, onnx.helper.make_tensor_type_proto(element_type(argument), None))
            self._pieces.append(piece)

    def step(self, tensors: Mapping[str, Array], index: int, *, changed: bool = False) -> dict[str, Array]:
        """What is taken behind a piece, from what it and those after it take. Safe from threads."""
        values = dict(tensors)
        piece = self._pieces[index]
        if piece is not None:
            session = piece.changed if changed else piece.session
            fed = {name: values[name] for name in piece.takes}
            values.update(zip(piece.gives, session.run(piece.gives, fed), strict=True))
        return {name: values[name] for name in self.taken[index + 1]}

    def rest(self, tensors: Mapping[str, Array], first: int) -> list[Array]:
        """The wanted tensors, from those that the piece `first` and those after it take. Safe from threads."""
        for index in range(first, len(self._pieces)):
            tensors = self.step(tensors, index)
        return [tensors[name] for name in self.taken[-1]]


@dataclass(frozen=True)
class _Piece:
    """Nodes in two versions."""

    takes: Sequence[str]
    gives: Sequence[str]
    session: ort.InferenceSession
    changed: ort.InferenceSession


def _pieces(nodes: Sequence[onnx.NodeProto], firsts: Sequence[str]) -> list[list[onnx.NodeProto]]:
    pieces: list[list[onnx.NodeProto]] = [[]]
    for node in nodes:
        if node.name in firsts:
            pieces.append([])
        pieces[-1].append(node)
    return pieces


def _model(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    takes: Sequence[str],
    gives: Sequence[str],
    types: Mapping[str, onnx.TypeProto],
    read: Collection[str],
) -> onnx.ModelProto:
    """These nodes with what they read of the constants.

    Args:
        types: by name, without shapes: what a file says of the shape of a tensor within may be wrong, and an input is
            refused for it.
    """
    graph = onnx.helper.make_graph(
        list(nodes),
        "piece",
        [onnx.helper.make_value_info(name, types[name]) for name in takes],
        [onnx.ValueInfoProto(name=name) for name in gives],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )


def _changed(piece: onnx.ModelProto, change: Callable[[ir.Model], ir.Model]) -> onnx.ModelProto:
    return ir.to_proto(change(ir.from_proto(piece)))


def _opened(piece: onnx.ModelProto) -> ort.InferenceSession:
    options = session_options(1)
    share_arena(options)
    return ort.InferenceSession(piece.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _without_shape(kind: onnx.TypeProto) -> onnx.TypeProto:
    if not kind.HasField("tensor_type"):
        return kind
    return onnx.helper.make_tensor_type_proto(kind.tensor_type.elem_type, None)
