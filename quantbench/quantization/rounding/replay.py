"""Compute tensors of a graph one after the other, batch by batch, while the graph changes behind them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.graphs.edit import reads
from quantbench.graphs.executor import session_options
from quantbench.graphs.liveness import last_steps, narrowest, shared

__all__ = ["Piece", "Replay"]

Array = NDArray[Any]


class Replay:
    """Runs the pieces of a graph between tensors of interest.

    What a later piece starts from is kept, as long as it fits; what does not fit is computed again. Operations may be
    changed (their constants, that is) until the first tensor behind them is asked for.

    Args:
        model: a graph; read again at each step.
        feeds: its inputs, one mapping a batch.
        stops: the tensors that `open` goes through, in the order of the graph.
        budget: bytes that may be kept.
    """

    def __init__(
        self, model: ir.Model, feeds: Sequence[Mapping[str, Array]], stops: Sequence[str], budget: int
    ) -> None:
        self._model = model
        self._batches = len(feeds)
        self._budget = budget
        self._nodes = list(model.graph)
        self._inputs = {value.name or "" for value in model.graph.inputs}
        self._known: dict[str, list[Array]] = {name: [feed[name] for feed in feeds] for name in self._inputs}
        self._stops = stops
        self._step = 0
        values = {output.name or "": output for node in self._nodes for output in node.outputs}
        self._kept_as = {stop: narrowest(values[stop]) if stop in values else stop for stop in stops}
        self._shared = shared(self._nodes)
        self._last = last_steps(self._nodes, [self._kept_as[stop] for stop in stops], self._shared)

    def open(self) -> Piece:
        """Get ready to compute the next stop; `close` has to follow."""
        stop = self._stops[self._step]
        kept_as = self._kept_as[stop]
        starts, shared_ones = self._back_from([stop])
        wanted = dict.fromkeys([stop] if kept_as in self._known else [stop, kept_as, *shared_ones])
        later = {name for name in wanted if self._last.get(name, -1) > self._step}
        room = self._budget + self._bytes(self._done(self._step))
        return Piece(self._model, list(wanted), starts, self._known, self._batches, later, room)

    def fork(self, wanted: Sequence[str]) -> Piece:
        """Get ready to compute tensors behind the next stop from what is known before it, with the graph as it is now,
        and without going on: nothing of it is kept."""
        return Piece(self._model, wanted, self._back_from(wanted)[0], self._known, self._batches, (), 0)

    def close(self, piece: Piece) -> None:
        """Keep of a piece what later ones start from, and let go of what none needs any more, which makes room.

        What does not fit is computed again from where this piece started, so that has to stay.
        """
        step = self._step
        self._step += 1
        later = {name: values for name, values in piece.computed.items() if self._last.get(name, -1) > step}
        while True:
            done = self._done(step)
            fitting = self._fitting(later, self._budget + self._bytes(done))
            for name in later.keys() - fitting.keys():
                for start in piece.starts:
                    self._last[start] = max(self._last.get(start, -1), self._last[name])
            if self._done(step) == done:
                break
        self._budget += self._bytes(done)
        for name in done:
            del self._known[name]
        self._known.update(fitting)
        self._budget -= self._bytes(fitting)

    def _done(self, step: int) -> list[str]:
        """What is known, and not needed after this step."""
        return [name for name in self._known if name not in self._inputs and self._last.get(name, -1) <= step]

    def _fitting(self, later: Mapping[str, list[Array | None]], room: int) -> dict[str, list[Array]]:
        """As many of the tensors as fit, the first ones first."""
        fitting = {}
        for name, values in later.items():
            present = [value for value in values if value is not None]
            size = sum(value.nbytes for value in present)
            if len(present) == len(values) and size <= room:
                fitting[name] = present
                room -= size
        return fitting

    def _bytes(self, names: Iterable[str]) -> int:
        return sum(value.nbytes for name in names for value in self._known[name])

    def _back_from(self, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
        """(the known tensors that these are computed from, what is shared on the way)."""
        starts, shared_ones = set(), []
        pending, seen = list(wanted), set(wanted)
        producers = {output.name or "": node for node in self._nodes for output in node.outputs}
        while pending:
            name = pending.pop()
            if name in self._known:
                starts.add(name)
                continue
            if name in self._shared:
                shared_ones.append(name)
            for value in reads(producers[name]):
                if not value.is_initializer() and value.name not in seen:
                    seen.add(value.name or "")
                    pending.append(value.name or "")
        return sorted(starts), shared_ones


class Piece:
    """One piece of the graph, opened; its batches may be run in any order and in several threads.

    Args:
        model: the graph.
        wanted: the tensors to compute; those that are known are taken as they are.
        starts: known tensors that lead to them.
        known: values by name, one array a batch.
        batches: how many there are.
        later: what to keep of the wanted tensors in `computed`, where it fits.
        budget: bytes that may be kept, over all batches.
    """

    def __init__(
        self,
        model: ir.Model,
        wanted: Sequence[str],
        starts: Sequence[str],
        known: Mapping[str, list[Array]],
        batches: int,
        later: Collection[str],
        budget: int,
    ) -> None:
        self.starts = starts
        self.computed: dict[str, list[Array | None]] = {name: [None] * batches for name in wanted if name not in known}
        self._wanted = wanted
        self._known = known
        self._kept = set(later)
        self._largest = budget // max(batches, 1)
        self._session: ort.InferenceSession | None = None
        if self.computed:
            unknown = list(self.computed)
            piece = ir.Model(ir.convenience.extract(model.graph, starts, unknown), ir_version=model.ir_version)
            options = session_options(1)
            # or ONNX Runtime would round float weights between quantized tensors to 8 bits of its own
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            self._session = ort.InferenceSession(
                ir.to_proto(piece).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            self._present = [argument.name for argument in self._session.get_inputs()]

    def run(self, batch: int) -> list[Array]:
        """The values of the wanted tensors for one batch."""
        found = {name: self._known[name][batch] for name in self._wanted if name in self._known}
        if self._session is not None:
            feeds = {name: self._known[name][batch] for name in self._present}
            found.update(zip(self.computed, self._session.run(list(self.computed), feeds), strict=True))
        for name, values in self.computed.items():
            if found[name].nbytes > self._largest:
                self._kept.discard(name)
            if name in self._kept:
                values[batch] = found[name]
        return [found[name] for name in self._wanted]
