"""Runs of a small staged graph on arrays that stay where they are, so that a call does little but compute.

A decoder that speaks word by word runs stages of some microseconds, thousands of times, on tensors of the same few
shapes. Looking tensors up, allocating them and handing them over then takes longer than computing them. So when the
same shapes come often, every tensor is given its place in a workspace, sessions are bound to these places, and what
lies between two sessions becomes one `Program`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.graphs.arena import LINE, aligned
from quantbench.graphs.small_stages import Arithmetic, SmallStage, Split
from quantbench.graphs.stages import DirectStage, Stage
from quantbench.numerics import Format

__all__ = ["FixedRuns", "OpenStage"]

Array = NDArray[Any]

_WORKSPACE = 1 << 21
"""Bytes of all tensors of a graph up to which they are kept apart: about a core's own cache. Larger ones had better
take turns in the same memory, and are computed long enough not to mind what calls cost."""
_SHAPES = 64
"""Shapes of the inputs that a thread remembers."""
_OFTEN = 8
"""Ordinary runs before there is one on arrays that stay, which takes about as long to prepare as so many save."""
_NUMBERS = "fiub"


@dataclass(frozen=True)
class OpenStage:
    """A stage with its session, and its form without one where it has such a form."""

    stage: Stage
    session: ort.InferenceSession
    direct: DirectStage | None


class FixedRuns:
    """The runs of a graph, for each thread one for each of the shapes that its inputs have often.

    Args:
        stages: of the graph, in order.
        roundings: tensor → the formats that it is rounded to as soon as it is there.
        outputs: of the graph: names of tensors, or constants.
    """

    def __init__(
        self, stages: Sequence[OpenStage], roundings: Mapping[str, Sequence[Format]], outputs: Sequence[str | Array]
    ) -> None:
        self._stages = stages
        self._roundings = roundings
        self._outputs = outputs
        self._own = threading.local()

    def run(self, feeds: Mapping[str, Array]) -> list[Array] | None:
        """Every output of the graph, as new arrays, or None where there is no run for such inputs."""
        if not hasattr(self._own, "runs"):
            self._own.runs, self._own.memory = {}, aligned([_WORKSPACE // 4])
        runs: dict[Any, _Run | int | None] = self._own.runs
        key = tuple([(array.shape, array.dtype) for array in feeds.values()])
        run = runs.get(key, 0)
        if isinstance(run, int):
            if run == _OFTEN:
                run = runs[key] = self._bound(feeds)
            elif key in runs or len(runs) < _SHAPES:
                runs[key] = run + 1
        if run is None or isinstance(run, int):
            return None
        try:
            return run(feeds)
        except Exception:  # ONNX Runtime's own exceptions share no base class
            runs[key] = None  # a shape depends on values; or it is an error that an ordinary run meets as well
            return None

    def _bound(self, feeds: Mapping[str, Array]) -> _Run | None:
        """The run for inputs of the shapes of `feeds`, or None where the graph is not made for it."""
        try:
            binder = _Binder(self._own.memory, self._roundings)
            for name, array in feeds.items():
                binder.tensor(name, array)
            binder.round(feeds)
            for stage in self._stages:
                binder.stage(stage)
        except _UnfitError:
            return None
        calls = binder.finish()
        inputs = [(binder.tensors[name], name) for name in feeds]
        results = [binder.tensors[output] if isinstance(output, str) else output for output in self._outputs]

        def run(feeds: Mapping[str, Array]) -> list[Array]:
            for place, name in inputs:
                np.copyto(place, feeds[name])
            for call in calls:
                call()
            return [result.copy() for result in results]

        return run


_Run = Callable[[Mapping[str, Array]], list[Array]]


class _UnfitError(Exception):
    """A tensor that finds no place."""


class _Binder:
    """Goes through a graph once, gives each tensor a place and writes down the calls that compute it there.

    Args:
        memory: for the places, all float32. Runs for other shapes use it, too: nothing in it outlasts a run.
        roundings: as of `FixedRuns`.

    Attributes:
        tensors: by name; they hold what the graph computes without roundings.
    """

    def __init__(self, memory: NDArray[np.float32], roundings: Mapping[str, Sequence[Format]]) -> None:
        from quantbench.numerics.program import Program  # compiles: only where it is used

        self.tensors: dict[str, Array] = {}
        self._roundings = roundings
        self._memory = memory
        self._end = 0
        self._calls: list[Callable[[], object]] = []
        self._new_program = partial(Program, memory)
        self._program = self._new_program()

    def tensor(self, name: str, values: Any) -> None:
        """Give a tensor a place that holds these values."""
        self.tensors[name] = self._place(values)

    def stage(self, opened: OpenStage) -> None:
        """Compute a stage, and round what it puts out."""
        if isinstance(opened.direct, SmallStage):
            for operation in opened.direct.operations:
                if isinstance(operation, Split):
                    self._split(operation, opened.stage.outputs)
                else:
                    self._arithmetic(operation)
        else:
            self._session(opened)
        self.round(opened.stage.outputs)

    def round(self, names: Iterable[str]) -> None:
        """Round tensors as they are to be rounded."""
        for name in names:
            for fmt in self._roundings.get(name, ()):
                self._program.round(self.tensors[name], fmt)

    def finish(self) -> list[Callable[[], object]]:
        """The calls so far, in order."""
        if self._program:
            self._calls.append(self._program.finish())
            self._program = self._new_program()
        return self._calls

    def _session(self, opened: OpenStage) -> None:
        stage, session = opened.stage, opened.session
        inputs = {name: self.tensors[name] for name in stage.inputs}
        for name, values in zip(stage.outputs, session.run(stage.outputs, inputs), strict=True):
            self.tensor(name, values)
        binding = session.io_binding()
        for name, values in inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values))
        for name in stage.outputs:
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(self.tensors[name]))
        self.finish().append(partial(session.run_with_iobinding, binding))

    def _arithmetic(self, operation: Arithmetic) -> None:
        left, right = (
            self.tensors[each] if isinstance(each, str) else each for each in (operation.left, operation.right)
        )
        self.tensor(operation.made, operation.function(left, right))
        out = self.tensors[operation.made]
        if not self._program.compute(operation.function, left, right, out):
            self.finish().append(partial(operation.function, left, right, out))

    def _split(self, operation: Split, outputs: Collection[str]) -> None:
        for name, view in operation.views(self.tensors[operation.source]).items():
            if name not in outputs:
                self.tensors[name] = view
                continue
            self.tensor(name, view)  # who gets it may change it, but not the whole
            if not self._program.copy(view, self.tensors[name]):
                self.finish().append(partial(np.copyto, self.tensors[name], view))

    def _place(self, values: Any) -> Array:
        if not isinstance(values, np.ndarray | np.number) or values.dtype.kind not in _NUMBERS or not values.size:
            raise _UnfitError
        start, stop = self._end, self._end + values.nbytes
        self._end = -(-stop // LINE) * LINE
        if stop > self._memory.nbytes:
            raise _UnfitError
        place = self._memory.view(np.uint8)[start:stop].view(values.dtype).reshape(values.shape)
        np.copyto(place, values)
        return place
