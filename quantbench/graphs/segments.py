"""A graph in pieces, to be run from one of several nodes to its end, again and again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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

    Attributes:
        taken: for each piece, the tensors that it and those after it take from before.
    """

    def __init__(self, model: ir.Model, firsts: Sequence[str], outputs: Sequence[str]) -> None:
        proto = ir.to_proto(model)
        self._outputs = tuple(outputs)
        pieces = _pieces(proto.graph.node, firsts)
        made = [{name for node in piece for name in node.output} for piece in pieces]
        read = [{name for node in piece for name in reads(node)} for piece in pieces]
        there = {value.name for value in proto.graph.input}
        self.taken: list[tuple[str, ...]] = []
        for index, names in enumerate(made):
            wanted = set(outputs).union(*read[index:])
            self.taken.append(tuple(sorted(wanted & there)))
            there |= names
        typed = (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        types = {value.name: _without_shape(value.type) for value in typed}
        self._pieces = []
        for index, piece in enumerate(pieces):
            takes = [name for name in self.taken[index] if name in read[index]]
            after = self.taken[index + 1] if index + 1 < len(pieces) else self._outputs
            gives = sorted(made[index].intersection(after))
            session = _opened(proto, piece, takes, gives, types, read[index])
            self._pieces.append((session, takes, gives))

    def run(self, tensors: Mapping[str, Array], first: int) -> list[Array]:
        """The wanted tensors, from those that the piece `first` and those after it take. Safe from threads."""
        values = dict(tensors)
        for session, takes, gives in self._pieces[first:]:
            if session is not None:
                values.update(zip(gives, session.run(gives, {name: values[name] for name in takes}), strict=True))
        return [values[name] for name in self._outputs]


def _pieces(nodes: Sequence[onnx.NodeProto], firsts: Sequence[str]) -> list[list[onnx.NodeProto]]:
    pieces: list[list[onnx.NodeProto]] = [[]]
    for node in nodes:
        if node.name in firsts:
            pieces.append([])
        pieces[-1].append(node)
    return pieces


def _opened(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    takes: Sequence[str],
    gives: Sequence[str],
    types: dict[str, onnx.TypeProto],
    read: Collection[str],
) -> ort.InferenceSession | None:
    """A session over these nodes; None where nothing is wanted of them.

    Args:
        types: by name, without shapes: what a file says of the shape of a tensor within may be wrong, and an input is
            refused for it. What is unknown of `gives` is put in.
    """
    if not gives:
        return None
    graph = onnx.helper.make_graph(
        list(nodes),
        "piece",
        [onnx.helper.make_value_info(name, types[name]) for name in takes],
        [onnx.ValueInfoProto(name=name) for name in gives],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    piece = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )
    options = session_options(1)
    share_arena(options)
    session = ort.InferenceSession(piece.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for argument in session.get_outputs():
        if argument.name not in types:
            types[argument.name] = onnx.helper.make_tensor_type_proto(element_type(argument), None)
    return session


def _without_shape(kind: onnx.TypeProto) -> onnx.TypeProto:
    if not kind.HasField("tensor_type"):
        return kind
    return onnx.helper.make_tensor_type_proto(kind.tensor_type.elem_type, None)
