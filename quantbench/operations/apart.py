"""One conversion in a process of its own, so that its time and its memory are nobody else's.

`python -m quantbench.operations.apart` is that process: a pickled request on stdin, a JSON answer on stdout.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from quantbench.errors import InputError, QuantbenchError
from quantbench.operations.conversions import convert
from quantbench.quantization.backends import get_backend
from quantbench.quantization.variant import NATIVE
from quantbench.references import Reference

__all__ = ["Cost", "convert_apart"]


@dataclass(frozen=True)
class Cost:
    """What a conversion took: wall seconds, without starting Python and importing, and those of them that went into
    observing calibration samples; the largest resident size of its process in bytes; the size of its graphs."""

    seconds: float
    calibration_seconds: float
    peak_bytes: int
    model_bytes: int


def convert_apart(reference: Reference, options: dict[str, Any], out: Path) -> Cost:
    """Make a variant of `reference` under `out`, anew and in a process of its own.

    Args:
        options: of `operations.conversions.convert`, besides `out` and `force`.

    Raises:
        InputError: the conversion fails, for whatever reason; the sentence says which.
    """
    request = pickle.dumps((reference, {**options, "out": out, "force": True}))
    done = subprocess.run([sys.executable, "-m", __name__], input=request, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        ended = f"by signal {-done.returncode}" if done.returncode < 0 else f"with status {done.returncode}"
        raise InputError(f"the process that converts {reference.name} ended {ended}; is there too little memory?")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(answer["error"])
    return Cost(**answer)


def _answer(reference: Reference, options: dict[str, Any]) -> dict[str, Any]:
    try:
        if options["backend"] != NATIVE:
            backend = get_backend(options["backend"])
            backend.require()
            import_module(backend.module)
        conversion = convert(reference, **options)
    except QuantbenchError as error:
        return {"error": str(error)}
    except Exception as error:  # a defect of ours or of a library: the others are compared nevertheless
        return {"error": f"unexpected {type(error).__name__}: {error}"}
    return {
        "seconds": conversion.seconds,
        "calibration_seconds": conversion.calibration.seconds,
        "peak_bytes": _peak_bytes(),
        "model_bytes": conversion.model_bytes,
    }


def _peak_bytes() -> int:
    """The largest resident size of this process so far.

    Linux's ru_maxrss also counts the process that started this one, hence /proc where it is there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the quantizers print is no answer
    reference, options = pickle.load(sys.stdin.buffer)
    answers.write(json.dumps(_answer(reference, options)))
    answers.close()


if __name__ == "__main__":
    _main()
