"""What goes wrong during a run ends it with one sentence, leaves no logs, and leaves LoadGen fit for the next run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_reference import TinyExecutor, TinyTask

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.errors import InputError, MissingError
from quantbench.references import Reference
from quantbench.references.schema import Latency
from quantbench.scenarios import SCENARIOS, run
from quantbench.scenarios.sut import QueueSystem
from quantbench.scenarios.threads import begin


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Future[None]]:
    """The work of threads that call LoadGen, as it is begun."""
    futures: list[Future[None]] = []

    def noted(work: Callable[[], None]) -> Future[None]:
        futures.append(begin(work))
        return futures[-1]

    for module in ("loadgen", "sut"):
        monkeypatch.setattr(f"quantbench.scenarios.{module}.begin", noted)
    return futures


def in_loadgen(action: Callable[[], None], after: int = 0) -> Callable[[], None]:
    """Do it at each call after the first few that are not the probe's, which runs in the main thread."""
    calls = [0]

    def maybe() -> None:
        if threading.current_thread() is not threading.main_thread():
            calls[0] += 1
            if calls[0] > after:
                action()

    return maybe


def fail() -> None:
    raise RuntimeError("the model fell over\nand more that nobody reads")


@pytest.mark.parametrize("mode", ["performance", "accuracy"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_failing_model(
    scenario: str,
    mode: str,
    tmp_path: Path,
    reference: Reference,
    executor: TinyExecutor,
    dataset: Dataset,
    begun: list[Future[None]],
) -> None:
    logs = tmp_path / "logs"
    options: dict[str, Any] = {"dtype": "int8", "scenario": scenario, "mode": mode, "quick": True, "logs": logs}
    with pytest.raises(InputError, match=f"^tiny int8 {scenario} failed: RuntimeError: the model fell over; [^\n]*$"):
        run(reference, executor, dataset, TinyTask(0.001, in_loadgen(fail)), **options)
    assert list(tmp_path.iterdir()) == []
    assert run(reference, executor, dataset, TinyTask(), **options | {"mode": "accuracy"}).accuracy == 0.8
    assert wait(begun, timeout=5).not_done == set()


def test_a_failing_full_run_ends_long_before_its_ten_minutes(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match="fell over"):
        task = TinyTask(0.02, in_loadgen(fail, after=5))
        run(reference, executor, dataset, task, dtype="int8", scenario="SingleStream", logs=tmp_path / "logs")
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
def test_a_missing_sample(
    scenario: str, tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    def load(index: int) -> Any:
        if index == 37:
            raise MissingError("image37.png is missing; run `quantbench fetch`")
        return dataset.scored.input(index)

    scored = LazySamples(dataset.scored.ids, load, dataset.scored.truth)
    with pytest.raises(MissingError, match=r"^image37\.png is missing; run `quantbench fetch`$"):
        holed = replace(dataset, scored=scored)
        options: dict[str, Any] = {"dtype": "fp32", "scenario": scenario, "quick": True, "logs": tmp_path / "logs"}
        run(reference, executor, holed, TinyTask(0.002), **options)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_the_logs_of_before(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset, begun: list[Future[None]]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "run.json").write_text("of before")
    interrupt = in_loadgen(lambda: os.kill(os.getpid(), signal.SIGINT), after=5)
    with pytest.raises(KeyboardInterrupt):
        run(reference, executor, dataset, TinyTask(0.02, interrupt), dtype="fp32", scenario="SingleStream", logs=logs)
    assert [(path.name, path.read_text()) for path in logs.iterdir()] == [("run.json", "of before")]
    assert list(tmp_path.iterdir()) == [logs]
    assert wait(begun, timeout=5).not_done == set()
    run(reference, executor, dataset, TinyTask(), dtype="fp32", scenario="Offline", mode="accuracy", logs=logs)
    assert (logs / "mlperf_log_accuracy.json").stat().st_size > 0


@pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
def test_threads_that_called_loadgen_remain(
    scenario: str, tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    """LoadGen can read what it kept for a thread after the thread has ended, and then the process is lost."""
    answered: set[threading.Thread] = set()
    task = TinyTask(0.0, in_loadgen(lambda: answered.add(threading.current_thread())))
    options: dict[str, Any] = {"dtype": "fp32", "scenario": scenario, "mode": "accuracy", "quick": True}
    for name in ("first", "second"):
        run(reference, executor, dataset, task, logs=tmp_path / name, **options)
    of_loadgen = [thread for thread in answered if thread.name.startswith("loadgen")]  # the probe has threads too
    assert of_loadgen
    assert all(thread.is_alive() for thread in of_loadgen)


def test_a_server_that_fails_after_the_last_query_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure comes after `flush`: holding the answer back would leave LoadGen waiting for ever."""
    completed: list[int] = []
    monkeypatch.setattr("quantbench.scenarios.sut._complete", lambda ids, responses: completed.extend(ids))
    flushed = threading.Event()

    def answer(indices: Any) -> list[bytes]:
        flushed.wait(5)
        raise RuntimeError("late")

    system = QueueSystem(answer, batch=1, workers=1)
    system.issue([101], [0])
    system.flush()
    flushed.set()
    system.close()
    assert completed == [101]
    assert str(system.error) == "late"


def test_a_scenario_without_its_bound_names_the_key(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    options: dict[str, Any] = {"dtype": "fp32", "quick": True, "logs": tmp_path / "logs"}
    for latency in (None, Latency()):
        boundless = replace(reference, latency=latency)
        with pytest.raises(InputError, match=r"set server_ms under \[latency\] in .*tiny\.toml"):
            run(boundless, executor, dataset, TinyTask(), scenario="Server", **options)
        with pytest.raises(InputError, match=r"set multi_stream_ms under \[latency\]"):
            run(boundless, executor, dataset, TinyTask(), scenario="MultiStream", round="v0.5", **options)
        assert run(boundless, executor, dataset, TinyTask(), scenario="Server", mode="accuracy", **options).valid


def test_bad_options_are_refused_before_anything_runs(
    tmp_path: Path, reference: Reference, executor: TinyExecutor, dataset: Dataset
) -> None:
    options: dict[str, Any] = {"dtype": "fp32", "scenario": "Server", "quick": True, "logs": tmp_path / "logs"}
    for wrong, sentence in [
        ({"mode": "speed"}, "performance or accuracy"),
        ({"scenario": "Servers"}, "SingleStream, MultiStream, Server, Offline"),
        ({"round": "v9"}, "v0.5 or current"),
        ({"target_qps": 0.0}, "target_qps must be above 0"),
    ]:
        with pytest.raises(InputError, match=sentence):
            run(reference, executor, dataset, TinyTask(), **options | wrong)
    empty = replace(dataset, scored=LazySamples([], dataset.scored.input, dataset.scored.truth))
    with pytest.raises(InputError, match="no samples left"):
        run(reference, executor, empty, TinyTask(), **options)
