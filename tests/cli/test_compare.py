"""`quantbench compare`: a row a backend, whatever becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_workshop import Runner

import quantbench as package

KEYS = {
    "reference", "dtype", "backend", "score", "ratio", "ratio_low", "ratio_high", "seconds", "peak_bytes",
    "model_bytes", "speedup", "error",
}  # fmt: skip


def test_a_row_a_backend_and_nothing_kept(
    quantbench: Runner, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = quantbench("compare", tiny, "--dtype", "int8", "--backends", "native,onnxruntime", "--json")
    assert done.status == 0, done.stderr
    rows = {row["backend"]: row for row in json.loads(done.stdout)}
    assert sorted(tmp_path.iterdir()) == before
    assert list(rows) == ["native", "onnxruntime"]
    for row in rows.values():
        assert row.keys() >= KEYS and row["error"] is None
        assert (row["reference"], row["dtype"]) == ("tiny", "int8")
        assert row["ratio"] == pytest.approx(row["score"] / 1.0), "FP32 is right on every sample"
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert 30e6 < row["peak_bytes"] < 4e9, "a Python process with ONNX Runtime"
        assert 0 < row["seconds"] < 300 and row["model_bytes"] > 500 and 0.001 < row["speedup"] < 100
    gated = quantbench("gate", tiny, "--dtype", "int8", "--json")
    assert json.loads(gated.stdout)[0]["score"] == rows["native"]["score"], "the variant that convert makes"


def test_a_backend_that_fails_leaves_its_reason(quantbench: Runner, tiny: Path) -> None:
    words = ("compare", tiny, "--dtype", "int8", "--calibrator", "mse", "--json", "--backends")
    done = quantbench(*words, "onnxruntime,native")
    assert done.status == 0
    failed, fine = json.loads(done.stdout)
    reason = "--backend onnxruntime does not offer --calibrator mse; it offers minmax, percentile, entropy"
    assert (failed["backend"], failed["error"]) == ("onnxruntime", reason)
    assert all(failed[key] is None for key in ("score", "ratio", "seconds", "peak_bytes", "model_bytes", "speedup"))
    assert reason in done.stderr
    assert fine["backend"] == "native" and fine["score"] > 0

    alone = quantbench(*words[:-2], "--backends", "onnxruntime")
    assert alone.status == 2
    assert alone.stdout.splitlines()[-1].split() == ["tiny", "int8", "onnxruntime", *"–––––––"]


def test_what_cannot_be_compared_is_refused(quantbench: Runner, tiny: Path) -> None:
    assert (
        "no backend 'nncv'; did you mean 'nncf'?"
        in quantbench("compare", tiny, "--dtype", "int8", "--backends", "nncv").sentence
    )
    refused = quantbench("compare", tiny, "--dtype", "fp32")
    assert refused.status == 2 and "what variants are compared with" in refused.sentence


def test_variants_by_backends_go_through_the_same_commands(quantbench: Runner, tiny: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "variants")
    made = quantbench("convert", tiny, "--dtype", "int8", "--backend", "onnxruntime", "--json", *out)
    (row,) = json.loads(made.stdout)
    assert (row["dtype"], row["backend"]) == ("int8", "onnxruntime")
    assert Path(row["path"]) == tmp_path / "variants" / "tiny" / "int8@onnxruntime"
    refused = quantbench("run", tiny, "--dtype", "int8@onnxruntime", "--scenario", "Offline", "--quick", *out)
    assert refused.status == 1 and "tiny int8@onnxruntime has no verdict" in refused.sentence
    gated = quantbench("gate", tiny, "--dtype", "int8@onnxruntime", "int8", "--json", *out)
    assert [row["dtype"] for row in json.loads(gated.stdout)] == ["int8@onnxruntime", "int8"]
    assert (Path(row["path"]) / "verdict.json").exists()
    foreign = quantbench("convert", tiny, "--dtype", "int8", "--backend", "onnxruntime", "--seed", 1, *out)
    assert (foreign.status, foreign.sentence) == (
        2,
        "quantbench: --seed is for --backend native and --backend is onnxruntime",
    )


def test_in_python(tiny: Path) -> None:
    (row,) = package.compare(tiny, "int8", ["onnxruntime"], samples=20)
    assert (row.backend, row.samples, row.error) == ("onnxruntime", 20, None)
