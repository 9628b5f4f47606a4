"""How long tensors are needed when a graph is computed in pieces, from one tensor of interest to the next."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from quantbench.graphs.edit import reads

__all__ = ["last_steps", "narrowest", "shared"]


def shared(nodes: Sequence[ir.Node]) -> set[str]:
    """What is worth keeping because several operations read it, as `narrowest` has it."""
    outputs = (output for node in nodes for output in node.outputs)
    return {narrowest(output) for output in outputs if len({id(user) for user, _ in output.uses()}) > 1}


def narrowest(value: ir.Value) -> str:
    """What to keep in place of a tensor from which it can be had: the codes that it is made of take a quarter."""
    node = value.producer()
    if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
        codes = node.inputs[0]
        if codes.producer() is not None and all(each is None or each.is_initializer() for each in node.inputs[1:]):
            return codes.name or ""
    return value.name or ""


def last_steps(nodes: Sequence[ir.Node], stops: Sequence[str], kept: Collection[str]) -> dict[str, int]:
    """For each tensor the last step that reads it.

    Step i computes `stops[i]` from what is known by then. What is kept is computed once, by the first step that comes
    by, and later steps start from it: they do not read what it was made of.

    Args:
        nodes: of the graph, in topological order.
        stops: tensors in the order of the graph; one may come up more than once.
        kept: tensors that are kept once they are computed, besides the stops.
    """
    stop_at = {name: step for step, name in reversed(list(enumerate(stops)))}
    last = {name: step for step, name in enumerate(stops)}
    first: dict[str, int] = {}
    for node in reversed(nodes):
        names = [output.name or "" for output in node.outputs]
        starts = [stop_at.get(name, first.get(name)) for name in names]
        ends = [
            start if name in stop_at or name in kept else last.get(name)
            for name, start in zip(names, starts, strict=True)
        ]
        runs = [step for step in starts if step is not None]
        if not runs:
            continue
        begin, end = min(runs), max(step for step in ends if step is not None)
        for value in reads(node):
            name = value.name or ""
            first[name] = min(first.get(name, begin), begin)
            last[name] = max(last.get(name, end), end)
    return last
