"""Each line of the bad-input list: its exit status, one sentence that names the culprit, and nothing lost."""

from __future__ import annotations

import errno
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_workshop import Runner, tiny_model, tree
from onnx import TensorProto, external_data_helper, helper, numpy_helper

Break = Callable[[Path], None]


def _edit(text: str, by: str) -> Break:
    """Replace text in the reference file."""

    def apply(folder: Path) -> None:
        file = folder / "tiny.toml"
        assert text in file.read_text()
        file.write_text(file.read_text().replace(text, by))

    return apply


def _append(text: str) -> Break:
    def apply(folder: Path) -> None:
        with (folder / "tiny.toml").open("a") as file:
            file.write(text)

    return apply


def _model(change: Callable[[onnx.ModelProto], None]) -> Break:
    """Change the model."""

    def apply(folder: Path) -> None:
        model = tiny_model()
        change(model)
        (folder / "tiny.onnx").write_bytes(model.SerializeToString())

    return apply


def _bytes(change: Callable[[bytes], bytes]) -> Break:
    """Change the model file's bytes."""

    def apply(folder: Path) -> None:
        file = folder / "tiny.onnx"
        file.write_bytes(change(file.read_bytes()))

    return apply


def _arrays(**arrays: np.ndarray) -> Break:
    """Write another npz."""
    return lambda folder: np.savez(folder / "tiny.npz", **arrays)


def _unknown_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.example.nowhere"
    model.opset_import.append(helper.make_opsetid("com.example.nowhere", 1))


def _weight_with(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
        weight[0, 0, 0, 0] = value
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))

    return change


def _external_outside(folder: Path) -> None:
    model = tiny_model()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    (folder.parent / "stolen.bin").write_bytes(weight.raw_data)
    external_data_helper.set_external_data(weight, "../stolen.bin")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    (folder / "tiny.onnx").write_bytes(model.SerializeToString())


def _images(lines: list[str]) -> Break:
    """Make the data set an image list with one real image, `0.png`, listed forty times, and then `lines`."""

    def apply(folder: Path) -> None:
        from PIL import Image

        (folder / "images").mkdir()
        for index in range(40):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / "images" / f"{index}.png")
        known = [f"{index}.png {index % 5}" for index in range(40)]
        (folder / "images" / "list.txt").write_text("\n".join(known + lines) + "\n")
        file = folder / "tiny.toml"
        text = file.read_text().replace(
            'kind = "npz"\npath = "tiny.npz"', 'kind = "image-list"\npath = "images"\nlist = "list.txt"'
        )
        file.write_text(text + "[preprocess]\nmean = [127.0, 127.0, 127.0]\nstd = [128.0, 128.0, 128.0]\n")

    return apply


X = np.zeros((40, 3, 8, 8), np.float32)
Y = np.zeros(40, np.int64)

CASES: dict[str, tuple[Break, int, list[str]]] = {
    "typo in a key": (_edit("target_ratio", "target_ration"), 2, ["target_ration", "target_ratio", "tiny.toml"]),
    "typo in a table": (_edit("[dataset]", "[datset]"), 2, ["datset", "dataset"]),
    "wrong type": (_edit("samples = 16", 'samples = "many"'), 2, ["calibration.samples", "many"]),
    "not TOML": (_append("[[["), 2, ["tiny.toml", "TOML"]),
    "model missing": (lambda folder: (folder / "tiny.onnx").unlink(), 3, ["tiny.onnx"]),
    "not ONNX": (_bytes(lambda data: b"PK\x03\x04 something else entirely " * 20), 2, ["tiny.onnx", "ONNX"]),
    "empty": (_bytes(lambda data: b""), 2, ["tiny.onnx", "ONNX"]),
    "cut off in the middle": (_bytes(lambda data: data[: len(data) // 2]), 2, ["tiny.onnx", "cut off"]),
    "sha256 wrong": (
        _edit('path = "tiny.onnx"', f'path = "tiny.onnx"\nsha256 = "{"0" * 64}"'),
        2,
        ["tiny.onnx", "sha256"],
    ),
    "external data outside": (_external_outside, 2, ["w1", "stolen.bin", "outside"]),
    "unknown operator domain": (_model(_unknown_domain), 2, ["com.example.nowhere"]),
    "NaN in weights": (_model(_weight_with(np.nan)), 2, ["w1"]),
    "infinity in weights": (_model(_weight_with(np.inf)), 2, ["w1"]),
    "output absent": (_edit('path = "tiny.onnx"', 'path = "tiny.onnx"\noutput = "logit"'), 2, ["logit", "logits"]),
    "image missing": (_images(["gone.png 1"]), 3, ["gone.png"]),
    "bad line in the list": (_images(["7.png one"]), 2, ["list.txt", "41"]),
    "npz missing": (lambda folder: (folder / "tiny.npz").unlink(), 3, ["tiny.npz"]),
    "npz without x": (_arrays(y=Y), 2, ["tiny.npz", "'x'"]),
    "npz without y": (_arrays(x=X), 2, ["tiny.npz", "'y'"]),
    "npz of unequal lengths": (_arrays(x=X, y=Y[:-1]), 2, ["tiny.npz", "40", "39"]),
    "fewer samples than calibration": (_arrays(x=X[:10], y=Y[:10]), 2, ["16", "10"]),
}


@pytest.mark.parametrize("case", CASES)
def test_convert_says_what_is_wrong_and_keeps_what_is_there(case: str, tiny: Path, quantbench: Runner) -> None:
    change, status, words = CASES[case]
    out = tiny.parent / "variants"
    assert quantbench("convert", tiny, "--dtype", "fp16", "--out", out).status == 0
    before = tree(out)
    assert before
    change(tiny.parent)
    outcome = quantbench("convert", tiny, "--dtype", "fp16", "int8", "--out", out, "--force")
    assert outcome.status == status, outcome.stderr
    assert outcome.stdout == ""
    for word in words:
        assert word in outcome.sentence
    assert tree(out) == before
    assert not [path.name for path in (out / "tiny").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("label", [5, -1], ids=["above", "below"])
def test_labels_outside_the_classes(label: int, tiny: Path, quantbench: Runner) -> None:
    with np.load(tiny.parent / "tiny.npz") as data:
        x, y = data["x"], data["y"].copy()
    y[60] = label
    np.savez(tiny.parent / "tiny.npz", x=x, y=y)
    outcome = quantbench("evaluate", tiny)
    assert outcome.status == 2
    assert "label" in outcome.sentence


def test_unknown_reference_offers_the_nearest(quantbench: Runner) -> None:
    outcome = quantbench("convert", "g2p-gur", "--dtype", "int8")
    assert outcome.status == 2
    assert "g2p-gur" in outcome.sentence and "g2p-gru" in outcome.sentence


def test_reference_file_missing(tmp_path: Path, quantbench: Runner) -> None:
    outcome = quantbench("convert", tmp_path / "nowhere.toml", "--dtype", "int8")
    assert outcome.status == 2
    assert "nowhere.toml" in outcome.sentence


@pytest.mark.parametrize("command", ["convert", "evaluate", "gate", "report"])
def test_unknown_dtype_offers_the_nearest(command: str, tiny: Path, quantbench: Runner) -> None:
    outcome = quantbench(command, tiny, "--dtype", "bflot16")
    assert outcome.status == 2
    assert "bflot16" in outcome.sentence and "bfloat16" in outcome.sentence


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "--samples", "0"),
        ("gate", "--dtype", "int8", "--samples", "0"),
        ("gate", "--dtype", "int8", "--confidence", "1.5"),
        ("gate", "--dtype", "int8", "--samples", "many"),
        ("evaluate", "--batch", "0"),
        ("convert", "--dtype", "int8", "--calibration-samples", "0"),
        ("convert", "--dtype", "int8", "--granularity", "row"),
        ("convert", "--dtype", "int8", "--calibrator", "median"),
        ("convert", "--dtype", "int8", "--backend", "magic"),
        ("convert",),
        ("gate",),
        ("run", "--dtype", "int8"),
        ("run", "--dtype", "int8", "--scenario", "Sometimes"),
        ("evaluate", "--smaples", "5"),
        ("evalute",),
    ],
    ids=" ".join,
)
def test_usage_errors_are_one_sentence(words: tuple[str, ...], tiny: Path, quantbench: Runner) -> None:
    outcome = quantbench(words[0], *([tiny] if words != ("evalute",) else []), *words[1:])
    assert outcome.status == 2
    assert outcome.stdout == ""
    named = [word.lstrip("-") for word in words if word.startswith("--")]
    assert not named or any(name in outcome.sentence for name in [*named, "--scenario"])


@pytest.mark.parametrize("command", ["convert", "gate"])
def test_out_is_a_file(command: str, tiny: Path, quantbench: Runner) -> None:
    out = tiny.parent / "occupied"
    out.write_text("mine")
    outcome = quantbench(command, tiny, "--dtype", "fp16", "--out", out)
    assert outcome.status == 2
    assert "occupied" in outcome.stderr.splitlines()[-1] and "--out" in outcome.stderr.splitlines()[-1]
    assert out.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_out(tiny: Path, quantbench: Runner) -> None:
    out = tiny.parent / "sealed"
    out.mkdir(mode=0o555)
    outcome = quantbench("convert", tiny, "--dtype", "fp16", "--out", out)
    assert outcome.status == 2
    assert "sealed" in outcome.sentence


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=["full", "read-only", "forbidden"])
def test_disk_that_takes_nothing(code: int, tiny: Path, quantbench: Runner) -> None:
    """Python's audit events stand in for the disk: opening a file under --out for writing fails as the system would."""
    out = tiny.parent / "variants"
    assert quantbench("convert", tiny, "--dtype", "int8", "--out", out).status == 0
    before = tree(out)
    script = f"""
import os, sys
from quantbench.cli import main

def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith({str(out)!r}) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        raise OSError({code}, os.strerror({code}), arguments[0])

sys.addaudithook(refuse)
sys.exit(main(["convert", {str(tiny)!r}, "--dtype", "int8", "--calibrator", "minmax", "--out", {str(out)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("quantbench: ") and len(done.stderr.splitlines()) == 1
    assert os.strerror(code) in done.stderr and "variants" in done.stderr
    assert tree(out) == before


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and keeps stderr to what quantbench says."""

    def log_message(self, *arguments: object) -> None: ...


def test_a_fetched_file_that_changed_is_not_trusted_again(
    tiny: Path, quantbench: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A url's file in the cache is overwritten; the next command downloads again instead of using it."""
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tiny.parent / "cache"))
    served = tiny.parent / "served"
    served.mkdir()
    data = (tiny.parent / "tiny.onnx").read_bytes()
    (served / "tiny.onnx").write_bytes(data)
    handler = partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/tiny.onnx"
        source = f'url = "{url}"\nsha256 = "{hashlib.sha256(data).hexdigest()}"'
        tiny.write_text(tiny.read_text().replace('path = "tiny.onnx"', source))
        out = tiny.parent / "variants"
        assert quantbench("convert", tiny, "--dtype", "fp16", "--out", out).status == 0
        (cached,) = [path for path in (tiny.parent / "cache").rglob("*.onnx") if path.is_file()]
        cached.write_bytes(data[:-100])
        assert quantbench("convert", tiny, "--dtype", "bfloat16", "--out", out).status == 0
        assert cached.read_bytes() == data
        (served / "tiny.onnx").write_bytes(data[:-100])
        cached.unlink()
        outcome = quantbench("convert", tiny, "--dtype", "int8", "--out", out)
        server.shutdown()
    assert outcome.status == 2
    assert "sha256" in outcome.sentence
    assert not cached.exists()
