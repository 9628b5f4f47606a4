"""What the commands print, and the exit statuses that are not errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_workshop import Runner, tree

from quantbench.cli import cli
from quantbench.cli.options import _repeat_dtype

COMMANDS = sorted(cli.commands)


def documents(text: str) -> list[dict[str, object]]:
    """The one JSON array that stdout must be."""
    found = json.loads(text)
    assert isinstance(found, list)
    return found


def test_commands_are_those_of_the_contract() -> None:
    assert {"models", "formats", "fetch", "convert", "evaluate", "gate", "run"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses(command: str, quantbench: Runner) -> None:
    outcome = quantbench(command, "--help")
    assert outcome.status == 0
    example = outcome.stdout.split("Example: ")[1].split("\n\n")[0].replace("\n", " ")
    words = example.split("quantbench ", 1)[1].rstrip(')"\n ').split()
    assert words[0] == command
    parsed = cli.commands[command]
    parsed.make_context(command, words[1:], parent=click.Context(cli))


def test_help_is_fast() -> None:
    """Nothing heavy is imported before a command needs it."""
    script = "import sys; from quantbench.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"numpy", "numba", "onnx", "onnxruntime", "cv2", "matplotlib", "scipy", "pydantic", "rich"}
    assert not heavy & set(done.stderr.split())


def test_no_command_shows_the_help(quantbench: Runner) -> None:
    outcome = quantbench()
    assert outcome.status == 0
    assert "Commands:" in outcome.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--dtype int8 fp16 bfloat16", "--dtype int8 --dtype fp16 --dtype bfloat16"),
        ("ppocr-cls --dtype int8 fp16 --json", "ppocr-cls --dtype int8 --dtype fp16 --json"),
        ("--dtype int8 ppocr-cls", "--dtype int8 ppocr-cls"),
        ("--dtype int8 e4m3 ppocr-cls fp16", "--dtype int8 --dtype e4m3 ppocr-cls fp16"),
        ("--dtype=int8 fp11", "--dtype=int8 --dtype fp11"),
        ("--dtype int8,fp16 fp11", "--dtype int8,fp16 --dtype fp11"),
        ("--dtype int8 --samples 5 fp16", "--dtype int8 --samples 5 fp16"),
        ("fp16 --dtype", "fp16 --dtype"),
    ],
)
def test_dtype_takes_several(words: str, expected: str) -> None:
    assert " ".join(_repeat_dtype(words.split())) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, quantbench: Runner) -> None:
    outcome = quantbench("completion", shell)
    assert outcome.status == 0
    assert "_QUANTBENCH_COMPLETE" in outcome.stdout


def test_completion_offers_commands_and_dtypes() -> None:
    def complete(line: str) -> list[str]:
        environment = os.environ | {
            "_QUANTBENCH_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        command = [sys.executable, "-m", "quantbench"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [found.split(",")[-1] for found in done.stdout.split()]

    assert complete("quantbench ga") == ["gate"]
    assert complete("quantbench gate --dtype bf") == ["bfloat16"]
    assert "g2p-gru" in complete("quantbench gate g2")


def test_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "quantbench", "formats"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode not in (0, 1, 2, 3)


def test_debug_shows_the_traceback(quantbench: Runner) -> None:
    outcome = quantbench("evaluate", "nonsense", "--debug")
    assert outcome.status == 2
    assert "Traceback" in outcome.stderr
    assert outcome.stderr.splitlines()[-1].startswith("quantbench: ")
    assert "Traceback" not in quantbench("evaluate", "nonsense").stderr


def test_unexpected_errors_are_a_sentence_too(quantbench: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("three lines\nof\ntext")

    monkeypatch.setattr("quantbench.operations.catalogue.models", broken)
    outcome = quantbench("models")
    assert outcome.status == 2
    assert "ZeroDivisionError" in outcome.sentence and "--debug" in outcome.sentence


def test_keyboard_interrupt_is_quiet(quantbench: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quantbench.operations.catalogue.models", interrupted)
    outcome = quantbench("models")
    assert (outcome.status, outcome.stdout, outcome.stderr.strip()) == (130, "", "")


def test_what_libraries_print_stays_out_of_the_json(quantbench: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantbench.operations import catalogue

    models = catalogue.models

    def chatty() -> object:
        print("from Python")
        os.write(1, b"from C\n")
        return models()

    def chatty_lazily() -> object:
        print("from Python")
        os.write(1, b"from C\n")
        yield from models()

    monkeypatch.setattr("quantbench.operations.catalogue.models", chatty_lazily)
    outcome = quantbench("models", "--json")
    assert outcome.status == 0
    assert documents(outcome.stdout)
    assert "from Python" in outcome.stderr and "from C" in outcome.stderr


def test_models(quantbench: Runner) -> None:
    found = documents(quantbench("models", "--json").stdout)
    keys = {"name", "suite", "task", "metric", "target_ratio", "ready", "missing"}
    assert all(keys <= set(entry) for entry in found)
    assert {"g2p-gru", "ppocr-cls", "ppocr-rec", "ppocr-det"} <= {entry["name"] for entry in found}
    table = quantbench("models")
    assert "g2p-gru" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 100


def test_formats(quantbench: Runner) -> None:
    found = {entry["name"]: entry for entry in documents(quantbench("formats", "--json").stdout)}
    # MLPerf v0.5's FP11 is 1-5-5: bias 15, largest value (2 − 2^−5)·2^15, smallest normal 2^−14.
    fp11 = {key: found["fp11"][key] for key in ("exponent_bits", "mantissa_bits", "bias", "max", "min_normal")}
    assert fp11 == {"exponent_bits": 5, "mantissa_bits": 5, "bias": 15, "max": 64512.0, "min_normal": 2.0**-14}
    assert found["fp11"]["min_subnormal"] == 2.0**-19
    assert found["fp8_e4m3fn"]["top_codes"] == "nan" and found["fp8_e4m3fn"]["has_subnormals"]
    parts = {key: found["nvfp4"][key] for key in ("element", "scale", "block_size", "tensor_scale", "bits_per_value")}
    assert parts == {
        "element": "fp4_e2m1",
        "scale": "fp8_e4m3fn",
        "block_size": 16,
        "tensor_scale": True,
        "bits_per_value": 4 + 8 / 16,
    }
    table = quantbench("formats")
    assert max(map(len, table.stdout.splitlines())) <= 100


def test_convert_evaluate_gate(tiny: Path, quantbench: Runner) -> None:
    """The three on the small model: the documents' keys, what is kept, and that they agree with each other."""
    out = tiny.parent / "variants"
    outcome = quantbench("convert", tiny, "--dtype", "int8", "fp16", "--out", out, "--json")
    assert outcome.status == 0, outcome.stderr
    conversions = documents(outcome.stdout)
    assert [entry["dtype"] for entry in conversions] == ["int8", "fp16"]
    keys = {"reference", "dtype", "path", "seconds", "calibration", "weight_elements", "model_bytes", "reference_bytes"}
    assert all(keys <= set(entry) for entry in conversions)
    calibration = conversions[0]["calibration"]
    assert isinstance(calibration, dict)
    assert {"samples": 16, "calibrator": "mse"}.items() <= calibration.items()
    assert {"seconds", "list_sha256"} <= set(calibration)
    assert {path.name for path in (out / "tiny" / "int8").iterdir()} == {"model.onnx", "plan.json", "variant.json"}

    modified = (out / "tiny" / "int8" / "model.onnx").stat().st_mtime_ns
    assert quantbench("convert", tiny, "--dtype", "int8", "--out", out).status == 0
    assert (out / "tiny" / "int8" / "model.onnx").stat().st_mtime_ns == modified, "up to date, yet built again"
    before = tree(out / "tiny" / "int8")
    assert quantbench("convert", tiny, "--dtype", "int8", "--out", out, "--force").status == 0
    assert (out / "tiny" / "int8" / "model.onnx").stat().st_mtime_ns != modified
    assert tree(out / "tiny" / "int8") == before

    outcome = quantbench("evaluate", tiny, "--dtype", "int8", "--dtype", "fp16", "--out", out, "--json")
    assert outcome.status == 0, outcome.stderr
    scores = {entry["dtype"]: entry for entry in documents(outcome.stdout)}
    assert list(scores) == ["fp32", "int8", "fp16"]
    keys = {"reference", "metric", "score", "samples", "seconds", "samples_per_second", "execution", "total_seconds"}
    assert all(keys <= set(entry) for entry in scores.values())
    assert scores["fp32"]["score"] == 1.0, "the labels are the FP32 model's own answers"
    assert scores["fp32"]["samples"] == 64, "80 samples of which 16 calibrate"

    outcome = quantbench("gate", tiny, "--dtype", "int8,fp16", "--out", out, "--json")
    assert outcome.status == 0, outcome.stderr
    verdicts = documents(outcome.stdout)
    for verdict in verdicts:
        assert verdict["verdict"] == "pass"
        assert verdict["reference_score"] == 1.0
        assert verdict["score"] == verdict["ratio"] == scores[str(verdict["dtype"])]["score"]
        assert verdict["samples"] == 64 and verdict["target_ratio"] == 0.9 and verdict["metric"] == "top1"
        assert (out / "tiny" / str(verdict["dtype"]) / "verdict.json").is_file()


def test_evaluate_without_dtype_scores_fp32(tiny: Path, quantbench: Runner) -> None:
    outcome = quantbench("evaluate", tiny, "--samples", "10", "--batch", "3", "--json")
    (score,) = documents(outcome.stdout)
    assert (score["dtype"], score["samples"], score["score"]) == ("fp32", 10, 1.0)


def test_gate_converts_first_and_says_no(tiny: Path, quantbench: Runner) -> None:
    """E2M1 has eight magnitudes: it cannot keep all of 64 answers. The other dtype is printed all the same."""
    tiny.write_text(tiny.read_text().replace("target_ratio = 0.9", "target_ratio = 1.0"))
    out = tiny.parent / "variants"
    outcome = quantbench("gate", tiny, "--dtype", "fp4_e2m1", "fp32", "--out", out, "--json")
    assert outcome.status == 1, outcome.stderr
    verdicts = {entry["dtype"]: entry["verdict"] for entry in documents(outcome.stdout)}
    assert verdicts == {"fp4_e2m1": "fail", "fp32": "pass"}
    assert "convert" in outcome.stderr


def test_gate_rebuilds_a_variant_of_another_model(tiny: Path, quantbench: Runner) -> None:
    out = tiny.parent / "variants"
    assert quantbench("gate", tiny, "--dtype", "fp16", "--out", out).status == 0
    before = tree(out)
    with_other_calibration = tiny.read_text().replace("samples = 16", "samples = 20")
    tiny.write_text(with_other_calibration)
    outcome = quantbench("gate", tiny, "--dtype", "fp16", "--out", out, "--json")
    assert outcome.status == 0
    assert documents(outcome.stdout)[0]["samples"] == 60
    assert tree(out) != before


def test_gate_keeps_a_variant_made_with_other_options(tiny: Path, quantbench: Runner) -> None:
    """What the user converted with care is gated as it is, not replaced by the default recipe's."""
    out = tiny.parent / "variants"
    words = ("--dtype", "int8", "--granularity", "tensor", "--calibrator", "minmax", "--out", out)
    assert quantbench("convert", tiny, *words).status == 0
    before = tree(out)
    quantbench("gate", tiny, "--dtype", "int8", "--out", out)
    after = tree(out)
    assert before.items() <= after.items()


def test_run_refuses_without_a_verdict(tiny: Path, quantbench: Runner) -> None:
    out, logs = tiny.parent / "variants", tiny.parent / "runs"
    assert quantbench("convert", tiny, "--dtype", "fp16", "--out", out).status == 0
    words = ("run", tiny, "--dtype", "fp16", "--scenario", "SingleStream", "--quick", "--out", out, "--logs", logs)
    outcome = quantbench(*words)
    assert outcome.status == 1
    assert "gate" in outcome.sentence
    assert not logs.exists() or not tree(logs)


def test_run_of_what_passed_ends_in_the_harness_line(tiny: Path, quantbench: Runner) -> None:
    out, logs = tiny.parent / "variants", tiny.parent / "runs"
    assert quantbench("gate", tiny, "--dtype", "fp16", "--out", out).status == 0
    words = ("run", tiny, "--dtype", "fp16", "--scenario", "singlestream", "--quick", "--out", out, "--logs", logs)
    outcome = quantbench(*words)
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.splitlines()[-1].startswith("TestScenario.SingleStream qps=")
    (run,) = documents(quantbench(*words, "--json").stdout)
    keys = "reference dtype scenario mode round valid result unit latency_ms queries samples seconds accuracy logs"
    assert set(keys.split()) <= set(run)
    assert {"mean", "50.0", "80.0", "90.0", "95.0", "99.0", "99.9"} == set(run["latency_ms"])
    assert (Path(str(run["logs"])) / "mlperf_log_summary.txt").is_file()
    accuracy = (*words[:-5], "--mode", "accuracy", "--out", out, "--logs", logs, "--json")
    (run,) = documents(quantbench(*accuracy).stdout)
    (_, score) = documents(quantbench("evaluate", tiny, "--dtype", "fp16", "--out", out, "--json").stdout)
    assert run["accuracy"] == score["score"], "scored from LoadGen's accuracy log"


def test_report_measures_once(tiny: Path, quantbench: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second report takes everything from the first; a change of the reference file is measured again."""
    monkeypatch.setattr("quantbench.operations.everything.SCENARIOS", ("SingleStream",))
    folder = tiny.parent
    words = ("report", tiny, "--dtype", "fp16", "fp4_e2m1", "--out", folder / "variants", "--logs", folder / "runs")
    words += ("--reports", folder / "reports", "--json")
    tiny.write_text(tiny.read_text().replace("target_ratio = 0.9", "target_ratio = 1.0"))
    first = quantbench(*words)
    assert first.status == 0, first.stderr
    rows = {str(row["dtype"]): row for row in documents(first.stdout)}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "fp32": "reference",
        "fp16": "pass",
        "fp4_e2m1": "fail",
    }
    assert [len(row["scenarios"]) for row in rows.values()] == [1, 1, 0], "what failed the gate is not run"
    assert {path.name for path in (folder / "reports").iterdir()} == {"index.html", "index.md", "results.json"}
    before = tree(folder / "reports")
    second = quantbench(*words)
    assert second.stdout == first.stdout and tree(folder / "reports") == before
    tiny.write_text(tiny.read_text().replace("target_ratio = 1.0", "target_ratio = 0.5"))
    third = {str(row["dtype"]): row for row in documents(quantbench(*words).stdout)}
    assert third["fp16"]["target_ratio"] == 0.5
    assert third["fp16"]["fingerprint"] != rows["fp16"]["fingerprint"]
