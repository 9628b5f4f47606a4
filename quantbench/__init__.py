"""Reduced-precision variants of ONNX models: converted, scored, gated, run.

    import quantbench
    conversion = quantbench.convert("ppocr-cls", "int8")
    verdict = quantbench.gate("ppocr-cls", "int8")

The same operations as the commands; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantbench.operations.comparisons import compare
    from quantbench.operations.conversions import convert
    from quantbench.operations.runs import run
    from quantbench.operations.scores import evaluate
    from quantbench.operations.studies import study
    from quantbench.operations.verdicts import gate
    from quantbench.references import load_reference

__all__ = ["compare", "convert", "evaluate", "gate", "load_reference", "run", "study"]

_ROOMS = {
    "compare": "quantbench.operations.comparisons",
    "convert": "quantbench.operations.conversions",
    "evaluate": "quantbench.operations.scores",
    "gate": "quantbench.operations.verdicts",
    "run": "quantbench.operations.runs",
    "study": "quantbench.operations.studies",
    "load_reference": "quantbench.references",
}


def __getattr__(name: str) -> Any:
    """Import a public operation when it is first asked for, so that `import quantbench` itself stays cheap."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'quantbench' has no attribute {name!r}")
    operation = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = operation
    return operation


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
