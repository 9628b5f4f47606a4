"""One test by LoadGen, in a thread of its own, so that Ctrl-C and failures end it in an orderly way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import mlperf_loadgen as lg

from quantbench.errors import InputError
from quantbench.scenarios.qsl import SampleLibrary
from quantbench.scenarios.sut import SystemUnderTest
from quantbench.scenarios.threads import begin
from quantbench.support import progress

__all__ = ["run_test"]

TICK = 0.2

_one_at_a_time = threading.Lock()  # LoadGen keeps its state in globals


def run_test(
    system: SystemUnderTest,
    library: SampleLibrary,
    settings: lg.TestSettings,
    logs: Path,
    *,
    performance_samples: int,
    expected_seconds: float,
    what: str,
) -> None:
    """Run one test and wait for it; LoadGen's logs are in `logs` afterwards. Closes the system.

    Args:
        logs: an existing folder.
        performance_samples: how many samples LoadGen keeps loaded at once.
        expected_seconds, what: for the progress bar.

    Raises:
        Exception: whatever a sample, the model or the task raised; KeyboardInterrupt once LoadGen has come to its end.
    """
    if not _one_at_a_time.acquire(blocking=False):
        system.close()
        raise InputError("another LoadGen run is going on in this process; wait for its end")
    done = threading.Event()  # Thread.join believes the thread has ended when Ctrl-C interrupts it (before Python 3.13)

    def test() -> None:
        try:
            _test(system, library, settings, logs, performance_samples)
        except Exception as error:
            system.stop(error)
        finally:
            system.close()
            _one_at_a_time.release()
            done.set()

    begin(test)
    try:
        ticks = int(expected_seconds / TICK)
        for _ in progress(range(ticks), ticks, what):
            if done.wait(TICK):
                break
        done.wait()
    except BaseException as error:
        system.stop(error)
        done.wait()
        raise
    if system.error is not None:
        raise system.error


def _test(
    system: SystemUnderTest, library: SampleLibrary, settings: lg.TestSettings, logs: Path, performance_samples: int
) -> None:
    log = lg.LogSettings()
    output = lg.LogOutputSettings()
    output.outdir = str(logs)
    output.copy_summary_to_stdout = False
    log.log_output = output
    log.enable_trace = True  # the only log that has every latency
    sut = lg.ConstructFastSUT(system.issue, system.flush)
    qsl = lg.ConstructQSL(len(library), performance_samples, _guarded(library.load, system), library.unload)
    try:
        # LoadGen obeys an audit.config in the working directory unless it is told to look elsewhere.
        lg.StartTestWithLogSettings(sut, qsl, settings, log, str(logs / "audit.config"))
    finally:
        lg.DestroyQSL(qsl)
        lg.DestroyFastSUT(sut)


def _guarded(load: Callable[[Sequence[int]], None], system: SystemUnderTest) -> Callable[[Sequence[int]], None]:
    """A sample that cannot be loaded stops the system; no exception may pass through LoadGen."""

    def guarded(indices: Sequence[int]) -> None:
        try:
            if system.error is None:
                load(indices)
        except Exception as error:
            system.stop(error)

    return guarded
