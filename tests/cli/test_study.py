"""`quantbench study` from the command line: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_workshop import Runner, tree

KEYS = {"reference", "format", "bits", "metric", "score", "ratio", "ratio_low", "ratio_high", "target_ratio", "verdict"}


def test_a_grid_and_names_together(tiny: Path, quantbench: Runner) -> None:
    out = tiny.parent / "reports"
    words = ("study", tiny, "--exponent", "4..5", "--mantissa", "2..3", "--formats", "bf16,e4m3", "--formats", "e4m3fn")
    outcome = quantbench(*words, "--samples", 40, "--out", out, "--json")
    assert outcome.status == 0, outcome.stderr
    cells = json.loads(outcome.stdout)
    assert [cell["format"] for cell in cells] == ["bfloat16", "e4m3", "fp8_e4m3fn", "e4m2", "fp8_e5m2", "e5m3"]
    assert [cell["bits"] for cell in cells] == [16, 8, 8, 7, 8, 9]
    for cell in cells:
        assert set(cell) >= KEYS
        assert cell["ratio_low"] <= cell["ratio"] <= cell["ratio_high"]
        assert cell["verdict"] == ("pass" if cell["ratio"] >= cell["target_ratio"] else "fail")
    assert json.loads((out / "studies" / "tiny" / "study.json").read_text()) == cells
    assert "tiny bfloat16: 100.00% of FP32, pass (1 of 6" in outcome.stderr

    before = tree(out)
    again = quantbench(*words, "--samples", 40, "--out", out)
    assert again.status == 0 and tree(out) == before
    assert "6 of 6 formats are known already" in again.stderr
    lines = again.stdout.splitlines()
    assert len(lines) == 8 and max(map(len, lines)) <= 100
    assert lines[4].split()[:5] == ["tiny", "fp8_e4m3fn", "8", "4", "3"]


def test_it_scores_what_the_gate_scores(tiny: Path, quantbench: Runner) -> None:
    out = tiny.parent
    (cell,) = json.loads(quantbench("study", tiny, "--formats", "e2m1", "--out", out / "reports", "--json").stdout)
    (verdict,) = json.loads(quantbench("gate", tiny, "--dtype", "e2m1", "--out", out / "variants", "--json").stdout)
    assert 0 < cell["ratio"] < 1, "a format that changes nothing would prove nothing"
    for key in ("metric", "reference_score", "score", "ratio", "ratio_low", "ratio_high", "target_ratio", "verdict"):
        assert cell[key] == verdict[key], key


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "there is no format to study"),
        ("--formats ,", "there is no format to study"),
        ("--formats e4m3,bf61", "unknown number format 'bf61'; did you mean bf16"),
        ("--formats fp11 --samples 0", "--samples"),
        ("--exponent 8..2 --mantissa 1..10", "--exponent is '8..2', a range that ends before it begins; write 2..8"),
        ("--exponent 2..8 --mantissa 3..1", "--mantissa is '3..1', a range that ends before it begins; write 1..3"),
        ("--exponent 2..8", "a grid needs both --exponent and --mantissa"),
        ("--mantissa 2", "a grid needs both --exponent and --mantissa"),
        ("--exponent 2-8 --mantissa 1", "--exponent is '2-8'"),
        ("--exponent .. --mantissa 1", "--exponent is '..'"),
        ("--exponent 5..9 --mantissa 1", "eXmY needs 2 to 8 exponent bits"),
        ("--exponent 5 --mantissa 0..2", "1 to 23 mantissa bits"),
        ("--formats int8", "int8 cannot be emulated"),
        ("--formats e8m0", "e8m0 cannot be emulated"),
    ],
)
def test_bad_input_is_one_sentence(words: str, said: str, tiny: Path, quantbench: Runner) -> None:
    before = tree(tiny.parent)
    outcome = quantbench("study", tiny, *words.split(), "--out", tiny.parent / "reports")
    assert outcome.status == 2
    assert said in outcome.sentence
    assert outcome.stdout == "" and tree(tiny.parent) == before


def test_an_unknown_reference_and_a_folder_that_is_a_file(tiny: Path, quantbench: Runner) -> None:
    assert "nowhere" in quantbench("study", "nowhere", "--formats", "fp11", "--out", tiny.parent / "reports").sentence
    (tiny.parent / "taken").write_text("")
    outcome = quantbench("study", tiny, "--formats", "fp11", "--out", tiny.parent / "taken")
    assert outcome.status == 2 and "taken" in outcome.sentence and "--out" in outcome.sentence


def test_the_help_tells_the_two_e4m3_apart(quantbench: Runner) -> None:
    text = " ".join(quantbench("study", "--help").stdout.split())
    assert "fp8_e4m3fn" in text and "e4m3 has infinities" in text


def test_ctrl_c_keeps_what_is_done(tiny: Path, quantbench: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantbench.operations import studies

    scored: list[str] = []
    original = studies.open_emulated

    def interrupted(models: object, fmt: object, calls: object) -> object:
        scored.append(str(fmt))
        if scored == ["fp11", "e4m3"]:
            raise KeyboardInterrupt
        return original(models, fmt, calls)  # type: ignore[arg-type]

    monkeypatch.setattr(studies, "open_emulated", interrupted)
    monkeypatch.setattr(studies, "side_by_side", lambda: (1, 2))
    words = ("study", tiny, "--formats", "fp11,e4m3,fp16", "--out", tiny.parent / "reports", "--json")
    stopped = quantbench(*words)
    assert stopped.status == 130 and stopped.stdout == ""
    assert scored[:2] == ["fp11", "e4m3"]
    del scored[:]
    assert len(json.loads(quantbench(*words).stdout)) == 3
    assert scored == ["e4m3", "fp16"]
