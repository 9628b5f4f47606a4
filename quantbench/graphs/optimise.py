"""The graph as ONNX Runtime optimises it, with chosen tensors kept: complete, and the only way past them.

Naming a tensor as a graph output keeps it, but not every fusion then reads it: MatMul scales by what an earlier Mul
computed, say, and the Mul's output is computed for nobody. A value changed there would have no effect. So the optimised
graph is compared with the original, and where such a bypass shows, the graph is optimised again with the tensor cut
apart: its readers read an input of the graph, which no fusion sees behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.graphs.arena import aligned
from quantbench.graphs.executor import TensorSpec, session_options, tensor_specs

__all__ = ["NCHWC", "Optimised", "initializers", "optimise", "reads"]

NCHWC = "com.microsoft.nchwc"
"""Domain of the operators in ONNX Runtime's blocked layout: channels in blocks of 8 or 16, the last one padded."""

_APART = "/apart"
_LARGE = 1 << 12
"""Bytes of a weight from which it is kept out of the file format, in which it would be copied several times."""


@dataclass(frozen=True)
class Optimised:
    """An optimised graph.

    Attributes:
        model: nodes in topological order; may hold operators of `NCHWC`. The kept tensors are outputs of it, too. The
            tensors of `weights` have no data in it.
        weights: the large float32 initializers by name.
        apart: kept tensors that were cut apart; all their readers read them by their own name.
        inputs, outputs: of the graph that was given.
    """

    model: onnx.ModelProto
    weights: dict[str, NDArray[np.float32]]
    apart: frozenset[str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def optimise(model: ir.Model, kept: Collection[str]) -> Optimised:
    """Optimise a graph as a session with default options does, keeping the tensors of `kept`.

    Raises:
        InputError: the graph neither takes nor computes one of them, or ONNX Runtime cannot load the graph.
    """
    apart: set[str] = set()
    while True:
        before = ir.to_proto(model)
        _expose(before, kept, apart)
        after, weights, inputs, outputs = _optimised(before)
        _join(before, apart)
        _join(after, apart)
        bypassed = _bypassed(before, after, kept)
        if bypassed <= apart:
            own = len(model.graph.inputs), len(model.graph.outputs)
            return Optimised(after, weights, frozenset(apart), inputs[: own[0]], outputs[: own[1]])
        apart |= bypassed


def initializers(graph: onnx.GraphProto, weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """The initializers by name of a graph whose tensors have no data where they are among `weights`."""
    return {
        tensor.name: weights[tensor.name] if tensor.name in weights else onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
    }


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads: its inputs, and what its bodies (If, Loop, Scan) take from outside."""
    yield from (name for name in node.input if name)
    for body in _bodies(node):
        inner = {value.name for value in (*body.input, *body.initializer)}
        for inside in body.node:
            yield from (name for name in reads(inside) if name not in inner)
            inner.update(inside.output)
        yield from (value.name for value in body.output if value.name not in inner)


def _expose(model: onnx.ModelProto, kept: Collection[str], apart: Collection[str]) -> None:
    """Put `kept` among the outputs, and let the readers of `apart` read inputs of that name with a suffix."""
    graph = model.graph
    present = {value.name for value in (*graph.input, *graph.output)}
    computed = {name for node in graph.node for name in node.output}
    types = {value.name: value for value in (*graph.value_info, *graph.output)}
    _rename(graph.node, {name: name + _APART for name in apart})
    for name in kept:
        if name not in present and name not in computed:
            raise InputError(f"the graph computes no tensor {name!r} that could be touched while it runs")
        value = types.get(name, onnx.ValueInfoProto(name=name))
        if name not in present:
            graph.output.append(value)
        if name in apart:
            graph.input.append(value)
            graph.input[-1].name = name + _APART


def _optimised(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, dict[str, NDArray[np.float32]], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The graph as a session optimises it, its large weights, its inputs and its outputs."""
    with tempfile.TemporaryDirectory(prefix="quantbench-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = session_options(threads=1)
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", str(_LARGE))
        options.add_session_config_entry("session.disable_prepacking", "1")  # nothing is run
        lent = _lend_weights(model, options)
        try:
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise InputError(f"ONNX Runtime cannot open the graph: {str(error).strip().splitlines()[0]}") from error
        specs = tensor_specs(session.get_inputs()), tensor_specs(session.get_outputs())
        del session, lent
        optimised = onnx.load(path, load_external_data=False)
        return optimised, _take_weights(optimised, Path(folder)), *specs


def _lend_weights(model: onnx.ModelProto, options: ort.SessionOptions) -> list[NDArray[np.float32]]:
    """Hand the large weights of a graph, which loses them, to a session.

    Returns what has to live as long as the session.
    """
    lent = {}
    for tensor in model.graph.initializer:
        data = tensor.raw_data if tensor.data_type == onnx.TensorProto.FLOAT else b""
        if len(data) >= _LARGE:
            lent[tensor.name] = np.frombuffer(data, np.float32).reshape(tensor.dims)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="lent")
            tensor.external_data.add(key="length", value=str(len(data)))
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in lent.values()]
    options.add_external_initializers(list(lent), values)
    return list(lent.values())


def _take_weights(model: onnx.ModelProto, folder: Path) -> dict[str, NDArray[np.float32]]:
    """The float32 initializers that were written beside a graph, which gets what else was."""
    weights = {}
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in [tensor for tensor in outside if tensor.data_type == onnx.TensorProto.FLOAT]:
        place = {entry.key: entry.value for entry in tensor.external_data}
        weights[tensor.name] = array = aligned(tensor.dims)
        with (folder / place["location"]).open("rb") as file:
            file.seek(int(place.get("offset", 0)))
            file.readinto(array.data.cast("B"))
        array.flags.writeable = False  # it may be an output of the graph, too
        tensor.data_location = onnx.TensorProto.DEFAULT  # so that the next step leaves it alone
    onnx.external_data_helper.load_external_data_for_model(model, str(folder))
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.data_location = onnx.TensorProto.EXTERNAL
    return weights


def _bypassed(before: onnx.ModelProto, after: onnx.ModelProto, kept: Collection[str]) -> set[str]:
    """Kept tensors that an output, or another kept tensor, is computed from in `before`, but not in `after`."""
    wanted = _sources(before, {name: {name} for name in kept})
    got = _sources(after, _behind(after, kept))
    targets = [value.name for value in before.graph.output if value.name in wanted]
    changed = [name for name in targets if wanted[name] != got.get(name, set())]
    bypassed = {source for name in changed for source in wanted[name] - got.get(name, set()) or wanted[name]}
    return {name for node in before.graph.node for name in node.output if name in bypassed and name in kept}


def _join(model: onnx.ModelProto, apart: Collection[str]) -> None:
    """Let the readers of the inputs that stand for `apart` read the tensors themselves, in topological order."""
    names = {name + _APART: name for name in apart}
    _rename(model.graph.node, names)
    inputs = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    waiting = list(model.graph.node)
    pending = {name for node in waiting for name in node.output}
    ordered: list[onnx.NodeProto] = []
    while waiting:
        later = []
        for node in waiting:
            if pending.isdisjoint(reads(node)):
                ordered.append(node)
                pending.difference_update(node.output)
            else:
                later.append(node)
        waiting = later
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _rename(nodes: Collection[onnx.NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        for body in _bodies(node):
            _rename(body.node, names)
            for value in body.output:
                value.name = names.get(value.name, value.name)


def _behind(model: onnx.ModelProto, kept: Collection[str]) -> dict[str, set[str]]:
    """For each tensor that carries a kept one, the kept one: itself, or the blocked tensor it is reordered from."""
    carried = {name: {name} for name in kept}
    for node in model.graph.node:
        if (node.domain, node.op_type) == (NCHWC, "ReorderOutput") and node.output[0] in carried:
            carried.setdefault(node.input[0], set()).add(node.output[0])
    return carried


def _sources(model: onnx.ModelProto, carried: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """For each tensor, the nearest kept tensors and graph inputs whose values it is computed from."""
    sources: dict[str, set[str]] = {value.name: set() for value in model.graph.input}
    seen = {value.name: carried.get(value.name, {value.name}) for value in model.graph.input}
    for node in model.graph.node:
        values = () if node.op_type in ("Shape", "Size") else reads(node)
        own = set().union(*(seen.get(name, set()) for name in values))
        if (node.domain, node.op_type) == (NCHWC, "ReorderOutput") and node.output[0] in carried:
            own = sources.get(node.input[0], set())
        for name in node.output:
            sources[name] = own
            seen[name] = carried.get(name, own)
    return sources


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs
