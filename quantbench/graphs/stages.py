"""Cutting a graph into stages: where a tensor can be touched between two pieces, and which nodes each piece holds.

What is cut is the graph as ONNX Runtime has optimised it. On most processors it computes in a blocked layout, off which
a tensor of interest hangs by a ReorderOutput. Touching the blocked tensor itself spares the reordering.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.executor import TensorSpec
from quantbench.graphs.optimise import NCHWC, Optimised, initializers, optimise, reads

__all__ = ["Cut", "DirectStage", "Layout", "Stage", "cut", "hard_swishes"]

Layout = Literal["any", "values", "plain"]
"""How a tensor may look when it is touched.

any: in whatever order it lies, maybe padded with further channels. values: exactly its values in any order, and they
may not be changed. plain: the tensor as the graph says it, in its own shape.
"""

DirectStage = Callable[[dict[str, NDArray[Any]]], bool]
"""A stage without a session: takes its inputs from tensors by name and puts its outputs there, C-contiguous arrays that
nothing else holds. False where a session does better; then nothing is changed."""

_LARGEST_BLOCK = 16
_REORDERED = 4
_SEEN_TOGETHER = 4
"""Tensors that a stage puts out to be looked at: fewer sessions, for the memory of so many."""


@dataclass(frozen=True)
class Stage:
    """Consecutive nodes that run as one session.

    Attributes:
        model: the nodes with the initializers they use; of `Cut.weights` it does not have the data. Types are those
            of `inputs` as far as known; see `cut`.
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
        weights: the large initializers, which any number of stages may use.
        constants: graph outputs that are initializers.
        inputs, outputs: of the graph.
    """

    stages: tuple[Stage, ...]
    touched: dict[str, tuple[str, ...]]
    weights: dict[str, NDArray[np.float32]]
    constants: dict[str, NDArray[Any]]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def cut(model: ir.Model, layouts: Mapping[str, Layout]) -> Cut:
    """Cut a graph so that each tensor of `layouts` is complete after some stage, and read by later stages only.

    There are as few stages as the longest chain of such tensors allows: what lies on parallel branches shares one, and
    of tensors that are only looked at (`values`) up to `_SEEN_TOGETHER` do, and may be read in it. Beside such tensors
    a hard-swish is a stage of its own.
    The element type of a stage's input is missing in its model where only the stage that puts it out knows it.

    Raises:
        InputError: a name is no tensor that the graph computes or takes, or ONNX Runtime cannot load the graph.
    """
    optimised = optimise(model, layouts)
    wanted = [spec.name for spec in optimised.outputs]
    graph = _Layout(optimised, layouts, wanted)
    levels = _levels(graph.nodes, graph.borders, graph.seen)
    constants = initializers(optimised.model.graph, optimised.weights)
    return Cut(
        stages=tuple(_stages(optimised.model, graph, levels, wanted)),
        touched={tensor: tuple(names) for tensor, names in graph.touched.items()},
        weights=optimised.weights,
        constants={name: array for name, array in constants.items() if name in wanted},
        inputs=optimised.inputs,
        outputs=optimised.outputs,
    )


class _Layout:
    """Which nodes remain and where they are touched, once the layouts are decided.

    Attributes:
        nodes: in topological order, without reorderings that nothing needs.
        borders: tensors that are touched before anything reads them.
        touched: tensor → names asked for.
        seen: tensors that are only looked at.
    """

    def __init__(self, optimised: Optimised, layouts: Mapping[str, Layout], wanted: list[str]) -> None:
        model = optimised.model
        producers = {name: node for node in model.graph.node for name in node.output}
        readers = Counter(name for node in model.graph.node for name in reads(node))
        nodes = list(model.graph.node)
        self.borders: set[str] = set()
        self.touched: dict[str, list[str]] = {}
        self.seen: set[str] = set()
        dropped: set[str] = set()
        for name, layout in layouts.items():
            reorder = producers.get(name)
            blocked = reorder is not None and (reorder.domain, reorder.op_type) == (NCHWC, "ReorderOutput")
            if reorder is None or not blocked or name in optimised.apart:
                self._touch(name, name, layout)
                continue
            inner = reorder.input[0]
            if layout == "any" or (layout == "values" and _attribute(reorder, "channels") % _LARGEST_BLOCK == 0):
                self._touch(inner, name, layout)
                if not readers[name] and name not in wanted:
                    dropped.add(name)
            elif layout == "values":
                self._touch(name, name, layout)
            else:
                self._touch(name, name, layout)
                nodes = _read_back(model, nodes, reorder)
        self.nodes = [node for node in nodes if not (len(node.output) == 1 and node.output[0] in dropped)]
        if self.seen:  # each of these then is a stage of its own, which goes through memory once
            self.borders.update(name for ends in hard_swishes(self.nodes) for name in ends)

    def _touch(self, tensor: str, name: str, layout: Layout) -> None:
        self.touched.setdefault(tensor, []).append(name)
        if layout == "values":
            self.seen.add(tensor)
        else:
            self.borders.add(tensor)


def hard_swishes(nodes: Sequence[onnx.NodeProto]) -> Iterator[tuple[str, str]]:
    """(what goes in, what comes out) of each x·HardSigmoid(x)."""
    gates = {node.output[0]: node.input[0] for node in nodes if (node.domain, node.op_type) == ("", "HardSigmoid")}
    for node in nodes:
        if (node.domain, node.op_type) == ("", "Mul"):
            for gate, source in (node.input, reversed(node.input)):
                if gates.get(gate) == source:
                    yield source, node.output[0]


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
    back = onnx.helper.make_node("ReorderInput", [source], [again], domain=NCHWC, channels_last=last, name=again)
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


def _levels(nodes: list[onnx.NodeProto], borders: Collection[str], seen: Collection[str]) -> list[list[onnx.NodeProto]]:
    """The nodes of each stage: a node runs as soon as what it reads is there and was touched."""
    level: dict[str, int] = {}
    stages: list[list[onnx.NodeProto]] = []
    looked_at: Counter[int] = Counter()
    for node in nodes:
        made = [name for name in reads(node) if name in level]
        own = max((level[name] + (name in borders) for name in made), default=0)
        if looked_at[own] >= _SEEN_TOGETHER and any(name in seen for name in made):
            own += 1
        looked_at[own] += sum(name in seen for name in node.output)
        level.update(dict.fromkeys(node.output, own))
        while len(stages) <= own:
            stages.append([])
        stages[own].append(node)
    return stages


def _stages(
    model: onnx.ModelProto, graph: _Layout, levels: list[list[onnx.NodeProto]], wanted: list[str]
) -> Iterator[Stage]:
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {each.name: each for each in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    last_read = {name: index for index, nodes in enumerate(levels) for node in nodes for name in reads(node)}
    last_read.update(dict.fromkeys(wanted, len(levels)))
    for index, nodes in enumerate(levels):
        made = dict.fromkeys(name for node in nodes for name in node.output if name)
        read = dict.fromkeys(name for node in nodes for name in reads(node) if name not in made)
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


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)
