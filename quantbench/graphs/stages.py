"""Cutting a graph into stages: where a tensor can be touched between two pieces, and which nodes each piece holds.

The graph is optimised by ONNX Runtime first, with the tensors of interest among its outputs so that no fusion hides
one. On x86 and ARM that graph computes in a blocked layout (`com.microsoft.nchwc`: channels in blocks of 8 or 16, the
last block padded), and a tensor of interest hangs off the blocked one by a ReorderOutput. Touching the blocked tensor
itself spares the reordering.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import onnxruntime as ort

from quantbench.errors import InputError
from quantbench.graphs.executor import TensorSpec, session_options, tensor_specs

__all__ = ["Cut", "Layout", "Stage", "cut"]

Layout = Literal["any", "values", "plain"]
"""How a tensor may look when it is touched.

any: in whatever order it lies, maybe padded with further channels. values: exactly its values in any order, and they
may not be changed. plain: the tensor as the graph says it, in its own shape.
"""

_NCHWC = "com.microsoft.nchwc"
_LARGEST_BLOCK = 16
_REORDERED = 4


@dataclass(frozen=True)
class Stage:
    """Consecutive nodes that run as one session.

    Attributes:
        model: the nodes with the initializers they use. Types are those of `inputs` as far as known; see `cut`.
        inputs: tensors taken from the feeds or from earlier stages.
        outputs: tensors that later stages, the caller or a tap need.
        released: tensors that nothing needs once this stage has run.
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    released: tuple[str, ...]


@dataclass(frozen=True)
class Cut:
    """A graph in stages.

    Attributes:
        stages: in the order in which they run.
        touched: tensor of the stages, or graph input, that is touched as soon as it is there → the names asked for.
        shared: initializers that several stages use; their tensors are in each of these stages' models.
        constants: graph outputs that are initializers.
        inputs, outputs: of the graph.
    """

    stages: tuple[Stage, ...]
    touched: dict[str, tuple[str, ...]]
    shared: frozenset[str]
    constants: dict[str, onnx.TensorProto]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def cut(model: ir.Model, layouts: Mapping[str, Layout]) -> Cut:
    """Cut a graph so that each tensor of `layouts` is complete after some stage, and read by later stages only.

    There are as few stages as the longest chain of such tensors allows: what lies on parallel branches shares one.
    The element type of a stage's input is missing in its model where only the stage that puts it out knows it.

    Raises:
        InputError: a name is no tensor that the graph computes or takes, or ONNX Runtime cannot load the graph.
    """
    optimised, inputs, outputs = _optimise(model, list(layouts))
    wanted = [spec.name for spec in outputs]
    graph = _Layout(optimised, layouts, wanted)
    levels = _levels(graph.nodes, graph.borders)
    return Cut(
        stages=tuple(_stages(optimised, graph, levels, wanted)),
        touched={tensor: tuple(names) for tensor, names in graph.touched.items()},
        shared=_shared(levels, optimised),
        constants={tensor.name: tensor for tensor in optimised.graph.initializer if tensor.name in wanted},
        inputs=inputs,
        outputs=outputs,
    )


def _optimise(
    model: ir.Model, names: list[str]
) -> tuple[onnx.ModelProto, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The graph as ONNX Runtime runs it, with `names` as further outputs, and the specs of its own interface."""
    exposed = model.clone()
    own = len(exposed.graph.outputs)
    present = {value.name for value in (*exposed.graph.inputs, *exposed.graph.outputs)}
    values = {value.name: value for node in exposed.graph for value in node.outputs}
    for name in names:
        if name not in present and name not in values:
            raise InputError(f"the graph computes no tensor {name!r} that could be touched between its stages")
        if name not in present:
            exposed.graph.outputs.append(values[name])
    with tempfile.TemporaryDirectory(prefix="quantbench-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = session_options(threads=1)
        options.optimized_model_filepath = str(path)
        serialized = ir.to_proto(exposed).SerializeToString()
        try:
            session = ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise InputError(f"ONNX Runtime cannot open the graph: {str(error).strip().splitlines()[0]}") from error
        interface = tensor_specs(session.get_inputs()), tensor_specs(session.get_outputs())[:own]
        del session
        return onnx.load(path), *interface


class _Layout:
    """Which nodes remain and where they are touched, once the layouts are decided.

    Attributes:
        nodes: in topological order, without reorderings that nothing needs.
        borders: tensor → the reordering that still belongs to the stage before it ("" for none).
        touched: tensor → names asked for.
    """

    def __init__(self, model: onnx.ModelProto, layouts: Mapping[str, Layout], wanted: list[str]) -> None:
        producers = {name: node for node in model.graph.node for name in node.output}
        readers = Counter(name for node in model.graph.node for name in _reads(node))
        nodes = list(model.graph.node)
        self.borders: dict[str, str] = {}
        self.touched: dict[str, list[str]] = {}
        dropped: set[str] = set()
        for name, layout in layouts.items():
            reorder = producers.get(name)
            if reorder is None or (reorder.domain, reorder.op_type) != (_NCHWC, "ReorderOutput"):
                self._touch(name, name, "")
                continue
            blocked = reorder.input[0]
            if layout == "any" or (layout == "values" and _attribute(reorder, "channels") % _LARGEST_BLOCK == 0):
                self._touch(blocked, name, "")
                if not readers[name] and name not in wanted:
                    dropped.add(name)
            elif layout == "values":
                self._touch(name, name, "")
                self.borders[blocked] = name
            else:
                self._touch(name, name, "")
                nodes = _read_back(model, nodes, reorder)
        self.nodes = [node for node in nodes if not (len(node.output) == 1 and node.output[0] in dropped)]

    def _touch(self, tensor: str, name: str, reorder: str) -> None:
        self.borders.setdefault(tensor, reorder)
        self.touched.setdefault(tensor, []).append(name)


def _read_back(model: onnx.ModelProto, nodes: list[onnx.NodeProto], reorder: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Let every reader of the blocked tensor before `reorder` read the plain one instead, put back into blocks."""
    blocked, plain, again = reorder.input[0], reorder.output[0], f"{reorder.input[0]}/again"
    last = _attribute(reorder, "channels_last")
    channels = _attribute(reorder, "channels")
    source, between = plain, []
    if channels % _REORDERED:  # ReorderInput takes whole vectors only
        source, pads = f"{plain}/padded", f"{plain}/pads"
        amounts = [0] * 8
        amounts[7 if last else 5] = -channels % _REORDERED
        model.graph.initializer.append(onnx.helper.make_tensor(pads, onnx.TensorProto.INT64, [8], amounts))
        between.append(onnx.helper.make_node("Pad", [plain, pads], [source], name=source))
    back = onnx.helper.make_node("ReorderInput", [source], [again], domain=_NCHWC, channels_last=last, name=again)
    changed = []
    for node in nodes:
        if node is reorder:
            continue
        if blocked in node.input:
            original, node = node, onnx.NodeProto()
            node.CopyFrom(original)
            node.input[:] = [again if read == blocked else read for read in original.input]
        changed.append(node)
        if blocked in node.output:
            changed += [reorder, *between, back]
    return changed


def _levels(nodes: list[onnx.NodeProto], borders: Mapping[str, str]) -> list[list[onnx.NodeProto]]:
    """The nodes of each stage: a node runs as soon as what it reads is there and was touched."""
    level: dict[str, int] = {}
    stages: list[list[onnx.NodeProto]] = []
    for node in nodes:
        reads = [name for name in _reads(node) if name in level]
        own = max((level[name] + (name in borders and borders[name] not in node.output) for name in reads), default=0)
        level.update(dict.fromkeys(node.output, own))
        while len(stages) <= own:
            stages.append([])
        stages[own].append(node)
    return stages


def _stages(
    model: onnx.ModelProto, graph: _Layout, levels: list[list[onnx.NodeProto]], wanted: list[str]
) -> Iterator[Stage]:
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {value.name: value for value in (*model.graph.value_info, *model.graph.input)}
    last_read = {name: index for index, nodes in enumerate(levels) for node in nodes for name in _reads(node)}
    last_read.update(dict.fromkeys(wanted, len(levels)))
    for index, nodes in enumerate(levels):
        made = dict.fromkeys(name for node in nodes for name in node.output if name)
        read = dict.fromkeys(name for node in nodes for name in _reads(node) if name not in made)
        inputs = [name for name in read if name not in initializers]
        outputs = [name for name in made if name in graph.touched or last_read.get(name, -1) > index]
        piece = onnx.helper.make_graph(
            nodes,
            f"stage{index}",
            [types.get(name, onnx.ValueInfoProto(name=name)) for name in inputs],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [initializers[name] for name in read if name in initializers],
        )
        done = [name for name in (*inputs, *outputs) if last_read.get(name, -1) <= index]
        yield Stage(
            model=onnx.helper.make_model(piece, opset_imports=model.opset_import, ir_version=model.ir_version),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            released=tuple(done),
        )


def _shared(levels: list[list[onnx.NodeProto]], model: onnx.ModelProto) -> frozenset[str]:
    uses = Counter(name for nodes in levels for name in {name for node in nodes for name in _reads(node)})
    return frozenset(tensor.name for tensor in model.graph.initializer if uses[tensor.name] > 1)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads: its inputs, and what its bodies (If, Loop, Scan) take from outside."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs) if attribute.type in _GRAPHS else ():
            inner = {value.name for value in (*body.input, *body.initializer)}
            for inside in body.node:
                yield from (name for name in _reads(inside) if name not in inner)
                inner.update(inside.output)
            yield from (value.name for value in body.output if value.name not in inner)


_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)
