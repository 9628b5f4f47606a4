"""Only what passed the gate may run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantbench.errors import RefusedError
from quantbench.evaluation import Verdict, write_verdict
from quantbench.references import Reference
from quantbench.scenarios import require_passing

SHA = "a" * 64


def a_verdict(**changes: Any) -> Verdict:
    keys: dict[str, Any] = {
        "reference": "tiny",
        "dtype": "int8",
        "metric": "top1",
        "reference_score": 0.8,
        "score": 0.8,
        "ratio": 1.0,
        "ratio_low": 0.99,
        "ratio_high": 1.01,
        "target_ratio": 0.99,
        "samples": 40,
        "verdict": "pass",
        "confidence": None,
        "ratio_bound": None,
        "resamples": 1000,
        "seed": 0,
        "samples_sha256": "b" * 64,
        "variant_sha256": SHA,
    }
    return Verdict(**keys | changes)


def test_a_fresh_pass_may_run(tmp_path: Path, reference: Reference) -> None:
    write_verdict(tmp_path, a_verdict())
    require_passing(reference, "int8", tmp_path, SHA)


def test_fp32_needs_no_verdict(tmp_path: Path, reference: Reference) -> None:
    require_passing(reference, "fp32", tmp_path, SHA)


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (None, "tiny int8 has no verdict"),
        (a_verdict(variant_sha256="c" * 64), "tiny int8 has changed since its verdict"),
        (a_verdict(verdict="fail", ratio=0.5), r"tiny int8 did not pass the gate \(ratio 0\.5000, target 0\.99\)"),
    ],
)
def test_anything_else_is_refused(verdict: Verdict | None, sentence: str, tmp_path: Path, reference: Reference) -> None:
    if verdict is not None:
        write_verdict(tmp_path, verdict)
    with pytest.raises(RefusedError, match=sentence + "; run `quantbench gate .*--dtype int8`") as caught:
        require_passing(reference, "int8", tmp_path, SHA)
    assert caught.value.status == 1
