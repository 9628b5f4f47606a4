"""Which weights stay narrow and which get 8 bits, from what each does to the outputs on calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.qdq import QuantizedTensor
from quantbench.numerics import get_format
from quantbench.numerics.threads import cores, in_order
from quantbench.quantization.affine import dequantize
from quantbench.quantization.output_error import OutputError
from quantbench.quantization.placement import weight_uses
from quantbench.quantization.plan import GraphPlan
from quantbench.quantization.precision import Candidate, most_saved
from quantbench.quantization.rounding.replay import Replay
from quantbench.quantization.writing import array_of, replace_array
from quantbench.support import progress, return_memory

__all__ = ["candidates", "choose_narrow", "narrow_weights"]

T = TypeVar("T")
Array = NDArray[Any]

Weights = Mapping[str, Sequence[Candidate]]
Narrow = Mapping[str, frozenset[str]]

_KEPT_BYTES = 1 << 28
"""Of exact tensors, to measure what weights do to the outputs from; what does not fit is computed again."""
_TRIALS = 8
_SMALLEST_STEP, _LARGEST_STEP = 1.4, 10.0
"""By what a budget that was too large is divided at least and at most."""


def narrow_weights(plan: GraphPlan) -> list[str]:
    """The weights that the plan puts into integers of fewer than 8 bits."""
    return [name for name, tensor in plan.of_role("weight").items() if _is_narrow(tensor.format)]


def candidates(
    model: ir.Model, narrow: Mapping[str, QuantizedTensor], shifts: Mapping[str, Array], judge: OutputError
) -> list[Candidate]:
    """What each narrow weight alone does to the outputs.

    The weights are taken in the order of the graph, so that each starts from what the exact operations before it make.

    Args:
        model: a prepared graph; left as it is.
        narrow: weights in few bits, by initializer.
        shifts: what their rounding adds to biases, by initializer.
        judge: knows the exact outputs.
    """
    uses = weight_uses(model)
    changed = model.clone()
    made = {node.name: (index, node.outputs[0].name or "") for index, node in enumerate(model.graph)}
    order = sorted(narrow, key=lambda name: made[uses[name].node][0])
    stops = [made[uses[name].node][1] for name in order]
    replay = Replay(changed, judge.feeds, [*stops, *judge.names], _KEPT_BYTES)
    errors = {}
    for name in progress(order, len(order), "measuring weights"):
        bias = uses[name].added
        replace_array(changed, name, dequantize(narrow[name]))
        if bias is not None and bias in shifts:
            replace_array(changed, bias, (array_of(model, bias) + shifts[bias]).astype(np.float32))
        errors[name] = _error(replay, judge)
        for each in filter(None, (name, bias)):
            replace_array(changed, each, array_of(model, each))
        _go_on(replay, len(judge.feeds))
        return_memory()
    return [Candidate(name, tensor.codes.size, errors[name]) for name, tensor in narrow.items()]


def _error(replay: Replay, judge: OutputError) -> float:
    """Of the outputs, as the graph is now, computed from what is known before the replay's next stop."""
    piece = replay.fork(judge.names)
    squares = _each(lambda batch: judge.squares(piece.run(batch), batch), len(judge.feeds))
    return judge.of_squares(list(squares))


def _go_on(replay: Replay, batches: int) -> None:
    """To the next stop."""
    piece = replay.open()
    for _ in _each(piece.run, batches):
        pass
    replay.close(piece)


def _each(work: Callable[[int], T], batches: int) -> Iterator[T]:
    """What is made of one batch after the other, some of which run side by side."""
    return in_order(work, range(batches), cores(), ahead=0)


def choose_narrow(weights: Weights, budget: float, excess: Callable[[Narrow], float]) -> Narrow:
    """The weights to keep narrow, as many elements as can be.

    How much weights may harm together is not known beforehand: their errors do not quite add up, and what counts is
    what they do to the answers. So a budget of errors is tried, and lowered by as much as it turned out too large.

    Args:
        weights: for each graph, what could be narrow.
        budget: the error that the weights of a graph may cause together in the first choice.
        excess: makes the choice and says by what factor its error is too large; at most 1 where it is not.

    Returns:
        For each graph the names of the weights that are narrow.
    """
    best: Narrow = {name: frozenset() for name in weights}
    failed = 0.0
    for _ in range(_TRIALS):
        chosen = {name: frozenset(most_saved(each, budget)) for name, each in weights.items()}
        if all(_elements(each, chosen[name]) <= _elements(each, best[name]) for name, each in weights.items()):
            break
        spent = max(sum(each.error for each in own if each.name in chosen[name]) for name, own in weights.items())
        over = excess(chosen)
        if over > 1:
            failed = min(spent, budget)
            budget = failed / min(max(over, _SMALLEST_STEP), _LARGEST_STEP)
        else:
            best = chosen
            budget = float(np.sqrt(budget * failed))  # 0 where nothing has failed: all is as large as it can be
    return best


def _elements(weights: Sequence[Candidate], chosen: Collection[str]) -> int:
    return sum(candidate.elements for candidate in weights if candidate.name in chosen)


def _is_narrow(name: str) -> bool:
    fmt = get_format(name)
    return fmt.kind == "int" and fmt.bits < 8
