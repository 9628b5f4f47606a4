"""Who may run: only what the gate let through."""

from __future__ import annotations

from pathlib import Path

from quantbench.errors import RefusedError
from quantbench.evaluation import fresh, read_verdict
from quantbench.references import Reference

__all__ = ["require_passing"]


def require_passing(reference: Reference, dtype: str, folder: Path, variant_sha256: str) -> None:
    """Refuse a variant without a passing verdict on its present state; "fp32", the reference itself, needs none.

    Args:
        folder: the variant's.
        variant_sha256: of the variant as it is now.

    Raises:
        RefusedError: there is no verdict, it is on another state of the variant, or it says fail.
        InputError: the verdict cannot be read.
    """
    if dtype == "fp32":
        return
    verdict = read_verdict(folder)
    if verdict is None:
        problem = "has no verdict"
    elif not fresh(verdict, variant_sha256):
        problem = "has changed since its verdict"
    elif not verdict.passed:
        problem = f"did not pass the gate (ratio {verdict.ratio:.4f}, target {verdict.target_ratio:g})"
    else:
        return
    raise RefusedError(
        f"{reference.name} {dtype} {problem}; "
        f"run `quantbench gate {reference.command_name} --dtype {dtype}`, or run it with --ungated"
    )
