"""The MLPerf models by the command line: what is missing, and the whole way with small models in their place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pooch
import pytest
from cli_workshop import Runner
from coco_folder import CATEGORIES, write_coco
from onnx import TensorProto, helper, numpy_helper

from quantbench.references import load_reference
from quantbench.references.downloads import download_path
from quantbench.support import sha256_file

FACTS = {  # name: target, server, multi-stream, samples in memory, link; by the rules of Inference v0.5
    "resnet50": (0.99, 15, 50, 1024, "zenodo.org/record/4735647/files/resnet50_v1.onnx"),
    "mobilenet": (0.98, 10, 50, 1024, "zenodo.org/record/4735651/files/mobilenet_v1_1.0_224.onnx"),
    "ssd-resnet34": (0.99, 100, 66, 64, "zenodo.org/record/3228411/files/resnet34-ssd1200.onnx"),
    "ssd-mobilenet": (0.99, 10, 50, 256, "zenodo.org/record/4735652/files/ssd_mobilenet_v1_coco_2018_01_28.onnx"),
    "gnmt": (0.99, 250, 100, 3903900, "zenodo.org/record/2530924/files/gnmt_model.zip"),
}
TINY_GNMT = Path(__file__).parents[1] / "references" / "data" / "gnmt_tiny.zip"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no data sets, and no network, whatever this machine has."""
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("QUANTBENCH_IMAGENET", "QUANTBENCH_COCO", "QUANTBENCH_WMT16"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*arguments: object, **options: object) -> str:
        raise OSError("no network in this test")

    monkeypatch.setattr(pooch, "retrieve", refuse)


def imagenet(folder: Path) -> Path:
    """A folder as the reference implementation reads it: the 500 calibration images and three more, in `val/`."""
    official = Path(__file__).parents[2] / "calibration" / "imagenet_option_1.txt"
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 4)]
    names += [name for name in official.read_text().split() if name not in names]
    (folder / "val").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in names:
        tint = generator.integers(0, 200, (1, 1, 3))
        cv2.imwrite(str(folder / "val" / name), (tint + generator.integers(0, 56, (36, 44, 3))).astype(np.uint8))
    (folder / "val_map.txt").write_text("".join(f"val/{name} {index % 4}\n" for index, name in enumerate(names)))
    return folder


def classifier() -> onnx.ModelProto:
    """In place of ResNet-50: Conv, Relu, mean, MatMul and ArgMax over 1001 classes, of which five ever win."""
    generator = np.random.default_rng(1)
    weight = np.zeros((8, 1001), np.float32)
    weight[:, :5] = generator.normal(size=(8, 5))
    bias = np.full(1001, -100, np.float32)
    bias[:5] = 0
    arrays = {
        "w": generator.normal(size=(8, 3, 1, 1)).astype(np.float32) / 50,
        "b": np.zeros(8, np.float32),
        "dense": weight,
        "dense_bias": bias,
    }
    nodes = [
        helper.make_node("Conv", ["input_tensor:0", "w", "b"], ["c"], name="conv", strides=[8, 8]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("ReduceMean", ["r"], ["p"], name="pool", axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["p", "dense"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "dense_bias"], ["logits"], name="add"),
        helper.make_node("Softmax", ["logits"], ["softmax_tensor:0"], name="softmax"),
        helper.make_node("ArgMax", ["logits"], ["ArgMax:0"], name="argmax", axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input_tensor:0", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [
            helper.make_tensor_value_info("ArgMax:0", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("softmax_tensor:0", TensorProto.FLOAT, ["n", 1001]),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def detector() -> onnx.ModelProto:
    """In place of an SSD: three boxes out of an image's mean colours, as uint8 NHWC."""
    generator = np.random.default_rng(2)
    arrays = {
        "255": np.float32(255),
        "w": generator.normal(size=(3, 12)).astype(np.float32) * 3,
        "s": generator.normal(size=(3, 3)).astype(np.float32),
        "shape": np.array([-1, 3, 4], np.int64),
        "scale": np.array([0.4, 0.4, 0.4, 0.4], np.float32),
        "shift": np.array([0, 0, 0.6, 0.6], np.float32),
        "0": np.float32(0),
        "labels": np.array(CATEGORIES[1:4], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["f", "255"], ["d"]),
        helper.make_node("ReduceMean", ["d"], ["p"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["p", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["unit"]),
        helper.make_node("Mul", ["unit", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["boxes"]),
        helper.make_node("MatMul", ["p", "s"], ["t"]),
        helper.make_node("Sigmoid", ["t"], ["scores"]),
        helper.make_node("Mul", ["scores", "0"], ["zero"]),
        helper.make_node("Add", ["zero", "labels"], ["classes"]),
    ]
    shapes = {"boxes": ["n", 3, 4], "scores": ["n", 3], "classes": ["n", 3]}
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def documents(text: str) -> list[dict[str, Any]]:
    found = json.loads(text)
    assert isinstance(found, list)
    return found


def test_models_lists_the_suite_with_its_rules(quantbench: Runner) -> None:
    found = {entry["name"]: entry for entry in documents(quantbench("models", "--json").stdout)}
    for name, (target, server, multi_stream, in_memory, link) in FACTS.items():
        entry = found[name]
        assert entry["suite"] == "mlperf-v0.5" and not entry["ready"]
        assert entry["missing"] == f"quantbench fetch {name}"
        assert (entry["target_ratio"], entry["server_ms"], entry["multi_stream_ms"]) == (target, server, multi_stream)
        assert entry["performance_samples"] == in_memory
        assert entry["published"][0]["link"] == f"https://{link}"
    (int8,) = [row for row in found["mobilenet"]["published"] if row["precision"] == "int8"]
    assert int8["accuracy"] == "70.694%" and int8["granularity"] == "tensor"
    table = quantbench("models").stdout
    rows = [" ".join(line.split()) for line in table.splitlines()]
    assert "model framework accuracy data set link precision" in rows
    assert "resnet50-v1.5 onnx 76.456% imagenet2012 validation zenodo 4735647 fp32" in rows
    assert "gnmt tensorflow BLEU 23.9 wmt16 newstest2014 zenodo 2530924 fp32" in rows
    assert "ssd-resnet34 quantbench fetch ssd-resnet34" in rows


@pytest.mark.parametrize("name", FACTS)
def test_without_weights_and_data(name: str, quantbench: Runner) -> None:
    outcome = quantbench("convert", name, "--dtype", "int8")
    assert outcome.status == 3
    assert f"quantbench fetch {name}" in outcome.sentence and "--dataset DIR" in outcome.sentence


def test_without_weights(tmp_path: Path, quantbench: Runner) -> None:
    outcome = quantbench("convert", "resnet50", "--dtype", "int8", "--dataset", imagenet(tmp_path / "imagenet"))
    assert outcome.status == 3
    assert "quantbench fetch resnet50" in outcome.sentence and "resnet50_v1.onnx" in outcome.sentence
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_another_calibration_list(tmp_path: Path, quantbench: Runner) -> None:
    folder = imagenet(tmp_path / "imagenet")
    (folder / "imagenet_option_1.txt").write_text("ILSVRC2012_val_00000001.JPEG\n")
    outcome = quantbench("convert", "resnet50", "--dtype", "int8", "--dataset", folder)
    assert outcome.status == 2
    assert "calibration list" in outcome.sentence and "7662247d" in outcome.sentence


def test_dataset_needs_a_reference(tmp_path: Path, quantbench: Runner) -> None:
    assert "--dataset needs a REFERENCE" in quantbench("evaluate", "--dataset", tmp_path).sentence
    outcome = quantbench("evaluate", "resnet50", "--dataset", tmp_path / "nowhere")
    assert outcome.status == 2 and "nowhere" in outcome.sentence


def test_resnet50_the_whole_way(tmp_path: Path, quantbench: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small classifier where the official file would be; every image scored, labels by the data set's numbers."""
    folder = imagenet(tmp_path / "imagenet")
    monkeypatch.setenv("QUANTBENCH_IMAGENET", str(folder))
    model = load_reference("resnet50").model
    assert model.url is not None and model.sha256 is not None
    file = download_path(model.url, model.sha256)
    file.parent.mkdir(parents=True)
    onnx.save(classifier(), file)
    out = tmp_path / "variants"
    (fp32,) = documents(quantbench("evaluate", "resnet50", "--out", out, "--json").stdout)
    assert fp32["samples"] == 503  # the rules score the calibration images, too
    assert Path(f"{file}.sha256").read_text().strip() == sha256_file(file)
    outcome = quantbench("convert", "resnet50", "--dtype", "int8", "--out", out, "--json")
    assert outcome.status == 0, outcome.stderr
    (converted,) = documents(outcome.stdout)
    assert converted["calibration"]["samples"] == 500
    logs = tmp_path / "logs"
    run = ("run", "resnet50", "--dtype", "fp32", "--scenario", "Offline", "--mode", "accuracy", "--quick", "--ungated")
    outcome = quantbench(*run, "--out", out, "--logs", logs, "--json")
    assert outcome.status == 0, outcome.stderr
    (log,) = logs.rglob("mlperf_log_accuracy.json")
    labels = [int(line.split()[1]) for line in (folder / "val_map.txt").read_text().splitlines()]
    # As the reference implementation's accuracy-imagenet.py reads it.
    good = [
        int(np.frombuffer(bytes.fromhex(entry["data"]), np.float32)[0]) == labels[entry["qsl_idx"]]
        for entry in json.loads(log.read_text())
    ]
    assert len(good) == 503
    assert sum(good) / 503 == pytest.approx(fp32["score"], abs=1e-12)
    assert 0 < fp32["score"] < 1


def test_gnmt_the_whole_way(tmp_path: Path, quantbench: Runner) -> None:
    """A small checkpoint where the official one would be; its own translations are the labels, so FP32 is perfect."""
    model = load_reference("gnmt").model
    assert model.url is not None and model.sha256 is not None
    file = download_path(model.url, model.sha256)
    file.parent.mkdir(parents=True)
    shutil.copy(TINY_GNMT, file)
    folder = tmp_path / "wmt16"
    folder.mkdir()
    words = [f"w{number}" for number in range(9)]
    generator = np.random.default_rng(5)
    source = [" ".join(generator.choice(words, generator.integers(4, 12))) for _ in range(12)]
    for language in ("en", "de"):
        (folder / f"vocab.bpe.32000.{language}").write_text("\n".join(["<unk>", "<s>", "</s>", *words]) + "\n")
    (folder / "newstest2014.tok.bpe.32000.en").write_text("\n".join(source) + "\n")
    german = folder / "newstest2014.tok.bpe.32000.de"
    german.write_text("w0\n" * 12)
    out, logs = tmp_path / "variants", tmp_path / "logs"
    shared = ("--dataset", folder, "--out", out)
    run = ("run", "gnmt", "--dtype", "fp32", "--scenario", "Offline", "--mode", "accuracy", "--quick", "--ungated")
    outcome = quantbench(*run, *shared, "--logs", logs)
    assert outcome.status == 0, outcome.stderr
    (log,) = logs.rglob("mlperf_log_accuracy.json")
    answers = {entry["qsl_idx"]: bytes.fromhex(entry["data"]).decode() for entry in json.loads(log.read_text())}
    german.write_text("".join(f"{answers[number]}\n" for number in range(12)))
    outcome = quantbench("evaluate", "gnmt", *shared, "--json")
    assert outcome.status == 0, outcome.stderr
    (fp32,) = documents(outcome.stdout)
    assert (fp32["metric"], fp32["score"], fp32["samples"]) == ("bleu", 1.0, 12)
    dtypes = ("--dtype", "int8", "--dtype", "fp11")
    outcome = quantbench("convert", "gnmt", *dtypes, *shared, "--calibration-samples", "8")
    assert outcome.status == 0, outcome.stderr
    outcome = quantbench("gate", "gnmt", *dtypes, *shared, "--json")
    assert outcome.status in (0, 1), outcome.stderr
    assert [verdict["dtype"] for verdict in documents(outcome.stdout)] == ["int8", "fp11"]


def test_coco_the_whole_way(tmp_path: Path, quantbench: Runner) -> None:
    """Truths are what the small detector finds in FP32, so its mAP is 1; a variant is gated and logged."""
    toml = write_coco(tmp_path, images=30)
    onnx.save(detector(), tmp_path / "boxes.onnx")
    _label_with(detector(), tmp_path)
    out, logs = tmp_path / "variants", tmp_path / "logs"
    outcome = quantbench("gate", toml, "--dtype", "int8", "fp11", "--out", out, "--json")
    assert outcome.status in (0, 1), outcome.stderr
    for entry in documents(outcome.stdout):
        assert entry["metric"] == "map" and entry["samples"] == 30
        assert entry["reference_score"] == pytest.approx(1.0) and 0.3 < entry["score"] <= 1
    run = ("run", toml, "--dtype", "fp32", "--scenario", "SingleStream", "--mode", "accuracy", "--quick", "--ungated")
    outcome = quantbench(*run, "--out", out, "--logs", logs, "--json")
    assert outcome.status == 0, outcome.stderr
    (done,) = documents(outcome.stdout)
    assert done["accuracy"] == pytest.approx(1.0)
    (log,) = logs.rglob("mlperf_log_accuracy.json")
    for entry in json.loads(log.read_text()):
        rows = np.frombuffer(bytes.fromhex(entry["data"]), np.float32).reshape(-1, 7)
        assert (rows[:, 0] == entry["qsl_idx"]).all() and set(rows[:, 6]) == {2, 3, 5}
        assert (rows[:, 1] < rows[:, 3]).all() and (rows[:, 2] < rows[:, 4]).all()


def test_a_cut_annotation_file(tmp_path: Path, quantbench: Runner) -> None:
    toml = write_coco(tmp_path)
    onnx.save(detector(), tmp_path / "boxes.onnx")
    file = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    file.write_bytes(file.read_bytes()[:-50])
    outcome = quantbench("convert", toml, "--dtype", "int8")
    assert outcome.status == 2 and "instances_val2017.json" in outcome.sentence and "cut off" in outcome.sentence


def test_an_image_that_is_not_there(tmp_path: Path, quantbench: Runner) -> None:
    toml = write_coco(tmp_path)
    onnx.save(detector(), tmp_path / "boxes.onnx")
    gone = sorted((tmp_path / "coco" / "val2017").iterdir())[3]
    gone.unlink()
    outcome = quantbench("evaluate", toml)
    assert outcome.status == 3 and gone.name in outcome.sentence


def _label_with(model: onnx.ModelProto, folder: Path) -> None:
    """Replace the annotations by the model's own detections."""
    file = folder / "coco" / "annotations" / "instances_val2017.json"
    document = json.loads(file.read_text())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    annotations: list[dict[str, Any]] = []
    for image in document["images"]:
        pixels = cv2.imread(str(folder / "coco" / "val2017" / image["file_name"]))[..., ::-1].astype(np.float32)
        prepared = cv2.resize(pixels, (40, 30)).astype(np.uint8)
        boxes, _, classes = session.run(None, {"image": prepared[None]})
        sides = [image["height"], image["width"]] * 2
        for (y1, x1, y2, x2), category in zip(boxes[0].astype(float) * sides, classes[0], strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(category),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    file.write_text(json.dumps(document | {"annotations": annotations}))
