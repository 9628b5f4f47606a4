"""`verdict.json` in a variant's folder."""

from __future__ import annotations

from pathlib import Path

import pydantic

from quantbench.errors import InputError
from quantbench.evaluation.gate import Verdict
from quantbench.support import atomic_file, to_json

__all__ = ["VERDICT_FILE", "fresh", "read_verdict", "write_verdict"]

VERDICT_FILE = "verdict.json"

_VERDICT = pydantic.TypeAdapter(Verdict)


def write_verdict(folder: Path, verdict: Verdict) -> Path:
    """Write the verdict into the variant's folder, in the place of an older one.

    Raises:
        InputError: the folder cannot be written to.
    """
    file = folder / VERDICT_FILE
    with atomic_file(file) as temporary:
        temporary.write_text(to_json(verdict.document()), encoding="utf-8")
    return file


def read_verdict(folder: Path) -> Verdict | None:
    """The verdict on the variant in `folder`; None where there is none.

    Raises:
        InputError: the file is not a verdict.
    """
    file = folder / VERDICT_FILE
    try:
        return _VERDICT.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, pydantic.ValidationError) as error:
        raise InputError(f"{file} cannot be read as a verdict; run `quantbench gate` again to replace it") from error


def fresh(verdict: Verdict, variant_sha256: str) -> bool:
    """Whether the verdict is on this very variant, and not on what stood there before."""
    return verdict.variant_sha256 == variant_sha256
