"""Running a graph in stages, with a tap on tensors between them: emulation and observation at almost no cost.

Each stage is an ONNX Runtime session over a piece of the optimised graph (`graphs.stages`). Two settings make dozens of
sessions cheap: their threads do not spin while another stage runs, and all draw on one arena, so that memory goes from
stage to stage instead of each keeping its own. What is too small to be worth a session's call numpy does
(`graphs.small_stages`), a hard-swish goes through memory once (`graphs.hard_swish_stage`), and where all tensors of a
graph are small they get places of their own (`graphs.fixed_runs`).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.graphs.arena import share_arena
from quantbench.graphs.block_operands import Blocks, block_rounder
from quantbench.graphs.executor import TensorSpec, element_type, session_options
from quantbench.graphs.fixed_runs import FixedRuns, OpenStage
from quantbench.graphs.hard_swish_stage import hard_swish_stage
from quantbench.graphs.small_stages import small_stage
from quantbench.graphs.stages import Cut, Layout, cut
from quantbench.numerics import Format

__all__ = ["StagedExecutor", "StagedSession", "Tap", "accumulation_taps", "rounding_taps"]

Array = NDArray[Any]

_Visit = Callable[[NDArray[np.float32]], object]

_LONG_STAGE = 1e-4
"""Seconds. In a shorter stage the interpreter, of which there is one for all threads, has the larger part."""


@dataclass(frozen=True)
class Tap:
    """What touches a tensor between two stages.

    Attributes:
        visit: called with a C-contiguous float32 array as soon as the tensor is complete, before anything reads it. It
            may change the values in place. Called from every thread that runs the executor.
        layout: `any` for what treats values alike: the array may be in the blocked layout of ONNX Runtime, with its
            last channels padding (free of meaning, harmless to change). `values` for counting: exactly the tensor's
            values in any order, at the end of their stage; changes may be lost. `plain` for what needs the tensor in
            its own shape, at the cost of reordering it.
        rounds: the format to which `visit` rounds, to nearest even, where it does that and nothing else.
    """

    visit: _Visit
    layout: Layout = "any"
    rounds: Format | None = None


def rounding_taps(roundings: Mapping[str, Format | Blocks], threads: int | None = None) -> dict[str, Tap]:
    """Taps that round each tensor to its format or in blocks, to nearest even, on at most `threads` threads."""
    from quantbench.numerics import rounder  # compiles: only where it is used

    return {
        name: Tap(block_rounder(rounding, threads), "plain")
        if isinstance(rounding, Blocks)
        else Tap(rounder(rounding, threads=threads), rounds=rounding)
        for name, rounding in roundings.items()
    }


def accumulation_taps(sums: Mapping[str, Format], threads: int | None = None) -> dict[str, Tap]:
    """Taps that replace partial sums along axis 1 by the running sums of an accumulator in each tensor's format."""
    from quantbench.numerics import running_sum  # compiles: only where it is used

    return {name: Tap(partial(running_sum, format=fmt, threads=threads), "plain") for name, fmt in sums.items()}


class StagedExecutor:
    """An executor whose graphs run in stages with taps between them.

    Args:
        models: graph name to a float32 graph, as `prepare` or `strip_emulation` gives it.
        taps: graph name to tensor name to what touches that tensor. A graph may have none.
        threads: intra-op threads of a stage; None takes the cores, at most 16 (every stage has its own).
        calls: how many calls the caller can make at once, where that pays; else a stage has the threads of them all.

    Raises:
        InputError: a tensor is not in its graph, or ONNX Runtime cannot load a graph.
    """

    def __init__(
        self,
        models: Mapping[str, ir.Model],
        taps: Mapping[str, Mapping[str, Tap]],
        threads: int | None = None,
        calls: int = 1,
    ) -> None:
        self._calls = calls

        def opened(threads: int | None) -> dict[str, StagedSession]:
            return {name: StagedSession(model, taps.get(name, {}), threads) for name, model in models.items()}

        self._sessions = opened(threads)
        self._alone = partial(opened, threads * calls) if threads is not None and calls > 1 else None

    @property
    def execution(self) -> str:
        return "emulated"

    def calls_at_once(self) -> int:
        if self._alone is not None and all(session.stage_seconds <= _LONG_STAGE for session in self._sessions.values()):
            self._calls, self._sessions = 1, self._alone()
        self._alone = None
        return self._calls

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._sessions[graph].inputs

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._sessions[graph].outputs

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        return self._sessions[graph].run(feeds)


class StagedSession:
    """One graph in stages. The parameters are those of `StagedExecutor`, for a single graph."""

    def __init__(self, model: ir.Model, taps: Mapping[str, Tap], threads: int | None = None) -> None:
        self.stage_seconds = math.inf
        """What a stage takes on average, of all runs in the quickest."""
        pieces = cut(model, {name: tap.layout for name, tap in taps.items()})
        self.inputs: tuple[TensorSpec, ...] = pieces.inputs
        self.outputs: tuple[TensorSpec, ...] = pieces.outputs
        self._taps = {tensor: tuple(taps[name].visit for name in names) for tensor, names in pieces.touched.items()}
        self._results: list[str | Array] = [pieces.constants.get(spec.name, spec.name) for spec in pieces.outputs]
        # who lends an array has to keep it: the session does not, nor does an OrtValue
        self._lent = {name: (ort.OrtValue.ortvalue_from_numpy(array), array) for name, array in pieces.weights.items()}
        opened = _open(pieces, {name: value for name, (value, _) in self._lent.items()}, threads)
        self._steps = [_step(each, self._taps) for each in opened]
        self._fixed = _fixed_runs(opened, pieces, taps, self._results)

    @property
    def stages(self) -> int:
        """How many pieces the graph was cut into."""
        return len(self._steps)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Every output of the graph, in its order. The arrays of `feeds` are never written to. Safe from threads.

        Raises:
            InputError: an input is missing.
        """
        begun = time.perf_counter()
        values: dict[str, Array] = {}
        for spec in self.inputs:
            if spec.name not in feeds:
                raise InputError(
                    f"input {spec.name!r} is not fed; the graph takes {', '.join(s.name for s in self.inputs)}"
                )
            values[spec.name] = np.asarray(feeds[spec.name], order="C")
        with np.errstate(all="ignore"):  # as a session, which warns of no overflow
            results = self._fixed.run(values) if self._fixed else None
            if results is None:
                results = self._run(values)
        self.stage_seconds = min(self.stage_seconds, (time.perf_counter() - begun) / max(len(self._steps), 1))
        return results

    def _run(self, values: dict[str, Array]) -> list[Array]:
        """The same for the inputs, which become all tensors on the way."""
        for name in values.keys() & self._taps.keys():
            values[name] = values[name].copy()
            for visit in self._taps[name]:
                visit(values[name])
        for step in self._steps:
            step(values)
        return [values[result] if isinstance(result, str) else result for result in self._results]


def _step(opened: OpenStage, taps: Mapping[str, Sequence[_Visit]]) -> Callable[[dict[str, Array]], None]:
    """One stage, ready to run: it takes its inputs from the tensors by name, puts its outputs there, touched, and takes
    out what nothing needs any more."""
    session, direct = opened.session, opened.direct
    inputs, outputs, released = opened.stage.inputs, opened.stage.outputs, opened.stage.released
    visits = [(name, visit) for name in outputs for visit in taps.get(name, ())]

    def run(values: dict[str, Array]) -> None:
        if direct is None or not direct(values):
            results = session.run(outputs, {name: values[name] for name in inputs})  # nothing is copied
            values.update(zip(outputs, results, strict=True))
        for name, visit in visits:
            visit(values[name])
        for name in released:
            del values[name]

    return run


def _fixed_runs(
    opened: Sequence[OpenStage], pieces: Cut, taps: Mapping[str, Tap], results: Sequence[str | Array]
) -> FixedRuns | None:
    """The runs on arrays that stay; None where something else than rounding may keep an array that it has seen."""
    roundings: dict[str, list[Format]] = {}
    for tensor, names in pieces.touched.items():
        for name in names:
            rounds = taps[name].rounds
            if rounds is None:
                return None
            roundings.setdefault(tensor, []).append(rounds)
    return FixedRuns(opened, roundings, results)


def _open(pieces: Cut, lent: Mapping[str, ort.OrtValue], threads: int | None) -> list[OpenStage]:
    """A session for each stage. They read the weights where they are."""
    types: dict[str, int] = {}
    given = {spec.name for spec in pieces.inputs}
    opened = []
    for stage in pieces.stages:
        options = _options(threads)
        used = {tensor.name: lent[tensor.name] for tensor in stage.model.graph.initializer if tensor.name in lent}
        options.add_external_initializers(list(used), list(used.values()))  # the session finds them; it would copy them
        for name, value in used.items():
            options.add_initializer(name, value)  # but for this
        for value in stage.model.graph.input:
            if not value.HasField("type"):
                value.type.tensor_type.elem_type = types[value.name]
        session = ort.InferenceSession(stage.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for argument in session.get_outputs():
            types[argument.name] = element_type(argument)
        direct = small_stage(stage, pieces.weights) or hard_swish_stage(stage, given, threads)
        opened.append(OpenStage(stage, session, direct))
    return opened


def _options(threads: int | None) -> ort.SessionOptions:
    options = session_options(min(os.cpu_count() or 1, 16) if threads is None else threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised already
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    share_arena(options)
    return options
