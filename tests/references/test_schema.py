"""The reference file: every key of the contract, and what a mistake in one gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from quantbench.errors import InputError
from quantbench.references import Reference, builtin_references, load_reference

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

WHOLE = """
name = "efficientnet-lite0"
task = "image-classification"
suite = "mine"

[model]
path = "efficientnet_lite0.onnx"
sha256 = "a7059f78ca835445afd2dcd983dc13ba11eb9ea1c5c5d83ee19f094611a97873"
layout = "NHWC"
output = "logits"

[dataset]
kind = "image-list"
path = "imagenet_sample"
list = "val_map.txt"
label_offset = 1

[calibration]
samples = 100
list = "calibration.txt"

[preprocess]
resize = 256
crop = 224
interpolation = "area"
channels = "BGR"
mean = [127, 127.5, 127.0]
std = [128.0, 128.0, 128.0]

[quality]
metric = "top1"
target_ratio = 0.98

[latency]
server_ms = 10.0
multi_stream_ms = 50
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "own.toml"
    file.write_text(text)
    return file


def test_every_key_arrives(tmp_path: Path) -> None:
    reference = load_reference(str(write(tmp_path, WHOLE)))
    assert (reference.name, reference.task, reference.suite) == ("efficientnet-lite0", "image-classification", "mine")
    assert reference.folder == tmp_path
    assert reference.command_name == str(tmp_path / "own.toml")
    model = reference.model
    assert (model.path, model.layout, model.output) == ("efficientnet_lite0.onnx", "NHWC", "logits")
    assert model.sha256 is not None and model.sha256.startswith("a7059f78")
    data = reference.dataset
    assert (data.kind, data.path, data.list, data.label_offset) == ("image-list", "imagenet_sample", "val_map.txt", 1)
    assert (reference.calibration.samples, reference.calibration.list) == (100, "calibration.txt")
    asked = reference.preprocess
    assert (asked.resize, asked.crop, asked.interpolation, asked.channels) == (256, 224, "area", "BGR")
    assert (asked.mean, asked.std) == ((127.0, 127.5, 127.0), (128.0, 128.0, 128.0))
    assert (reference.quality.metric, reference.quality.target_ratio) == ("top1", 0.98)
    assert reference.latency is not None
    assert (reference.latency.server_ms, reference.latency.multi_stream_ms) == (10.0, 50.0)


def test_what_may_be_left_out(tmp_path: Path) -> None:
    text = 'name="a"\ntask="t"\nmodel.path="m.onnx"\ndataset.kind="npz"\nquality.metric="top1"\n'
    reference = load_reference(write(tmp_path, text))
    assert reference.suite == "own"
    assert reference.latency is None
    assert reference.model.layout == "NCHW"
    assert reference.preprocess.mean is None and reference.preprocess.std is None


def test_a_reference_is_frozen(tmp_path: Path) -> None:
    reference = load_reference(write(tmp_path, WHOLE))
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference.name = "other"  # type: ignore[misc]
    renamed = dataclasses.replace(reference, name="other")
    assert isinstance(renamed, Reference) and renamed.model == reference.model


DETECTION = '[detection]\nboxes = "b"\nscores = "s"\nclasses = "c"\norder = "x1y1x2y2"\n'

BAD = {
    "a typo in a key": ("layout =", "layuot =", ["'layuot'", "[model]", "'layout'"]),
    "a typo in a table": ("[latency]", "[latencies]", ["'latencies'", "'latency'"]),
    "a typo at the top": ("suite =", "suit =", ["'suit'", "'suite'"]),
    "a key far from any": ("output =", "zzz =", ["'zzz'", "sha256"]),
    "a typo in a key that is needed": ("metric =", "metrics =", ["'metrics'", "'metric'"]),
    "a key that is an attribute": ("suite =", "file =", ["'file'"]),
    "a text for a number": ("samples = 100", 'samples = "many"', ["calibration.samples", "many"]),
    "a number in quotes": ("samples = 100", 'samples = "100"', ["calibration.samples", "100"]),
    "a truth value for a number": ("samples = 100", "samples = true", ["calibration.samples", "True"]),
    "a number for a text": ('list = "val_map.txt"', "list = 3", ["dataset.list", "3"]),
    "no samples": ("samples = 100", "samples = 0", ["calibration.samples", "0"]),
    "two means": ("mean = [127, 127.5, 127.0]", "mean = [127, 127.5]", ["preprocess.mean", "three numbers"]),
    "four means": ("mean = [127, ", "mean = [1, 127, ", ["preprocess.mean", "three numbers"]),
    "one mean": ("mean = [127, 127.5, 127.0]", "mean = 127", ["preprocess.mean", "three numbers"]),
    "a text among means": ("mean = [127,", 'mean = ["a",', ["preprocess.mean", "'a'"]),
    "a std of zero": ("std = [128.0", "std = [0.0", ["preprocess.std", "above 0"]),
    "a std that is not a number": ("std = [128.0", "std = [nan", ["preprocess.std", "nan"]),
    "another layout": ('"NHWC"', '"HWC"', ["model.layout", "'NCHW'", "'HWC'"]),
    "another interpolation": ('"area"', '"nearest"', ["preprocess.interpolation", "'area'", "'nearest'"]),
    "a sha256 too short": ("a7059f78", "a705", ["model.sha256", "64"]),
    "no source": (
        'path = "efficientnet_lite0.onnx"',
        "",
        ["[model]", "exactly one of path, url, package and generator"],
    ),
    "two sources": ("[model]", '[model]\nurl = "http://a/b"', ["[model]", "path and url"]),
    "not a web address": ('path = "eff', 'url = "file://eff', ["model.url", "http"]),
    "a package without a version": ('path = "efficientnet_lite0.onnx"', 'package = "a"', ["model.package", "=="]),
    "a package that is an option": ('path = "efficientnet_lite0.onnx"', 'package = "-r==1"', ["model.package", "=="]),
    "a package without a member": ('path = "efficientnet_lite0.onnx"', 'package = "a==1"', ["[model]", "member"]),
    "a member without a package": ("layout =", 'member = "m"\nlayout =', ["[model]", "package"]),
    "a name that leaves its folder": ('name = "eff', 'name = "../eff', ["name", "../eff"]),
    "a ratio in percent": ("target_ratio = 0.98", "target_ratio = 98", ["quality.target_ratio", "98"]),
    "a text for a table": ("[latency]", 'latency = "fast"\n[x]', ["quality", "latency"]),
    "a list of tables": ("[latency]", "[[latency]]", ["latency", "[latency]"]),
    "no table of data": ("[dataset]", "[preprocess2]", ["preprocess2"]),
    "path and variable": ('path = "imagenet_sample"', 'path = "a"\nvariable = "B"', ["[dataset]", "path and variable"]),
    "a variable in small letters": ('path = "imagenet_sample"', 'variable = "data"', ["dataset.variable", "capital"]),
    "resize twice": ("resize = 256", "resize = 256\nresize_to = [1, 2]", ["[preprocess]", "resize_to"]),
    "one side to resize to": ("resize = 256", "resize_to = [1]", ["preprocess.resize_to"]),
    "a divisor of zero": ("resize = 256", "divisor = 0.0", ["preprocess.divisor"]),
    "scored without a list": ('list = "calibration.txt"', "scored = true", ["[calibration]", "never scored"]),
    "a url of a list without sha256": ('list = "calibration.txt"', 'list = "a"\nurl = "http://a/b"', ["needs sha256"]),
    "another order of sides": ("[quality]", DETECTION.replace("x1y1x2y2", "xyxy") + "[quality]", ["detection.order"]),
    "a least score above one": ("[quality]", DETECTION + "min_score = 2.0\n[quality]", ["detection.min_score"]),
    "another granularity": ("[quality]", '[rules]\ngranularity = "row"\n[quality]', ["rules.granularity", "'tensor'"]),
    "not TOML": ("[quality]", "[quality", ["TOML"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_gets_one_sentence(case: str, tmp_path: Path) -> None:
    old, new, words = BAD[case]
    assert old in WHOLE
    with pytest.raises(InputError) as caught:
        load_reference(write(tmp_path, WHOLE.replace(old, new, 1)))
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in ["own.toml", *words]:
        assert word in sentence


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own\.toml: the key quality\.metric is missing"):
        load_reference(write(tmp_path, WHOLE.replace('metric = "top1"', "")))


def test_a_url_needs_its_sha256(tmp_path: Path) -> None:
    text = 'name="a"\ntask="t"\nmodel.url="https://a/m.onnx"\ndataset.kind="npz"\nquality.metric="top1"\n'
    with pytest.raises(InputError, match="needs sha256"):
        load_reference(write(tmp_path, text))


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'ppocr-cl'; did you mean 'ppocr-cls'.*g2p-gru"):
        load_reference("ppocr-cl")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        load_reference(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(InputError, match="UTF-8"):
        load_reference(tmp_path / "latin.toml")


def test_the_catalogue_is_the_design() -> None:
    """Sources and sha256 as DESIGN section 5 lists them."""
    expected = {
        "g2p-gru": ("g2p_en==2.1.0", "b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6"),
        "ppocr-cls": (
            "rapidocr-onnxruntime==1.4.4",
            "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        ),
        "ppocr-det": (
            "rapidocr-onnxruntime==1.4.4",
            "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        ),
        "ppocr-rec": (
            "rapidocr-onnxruntime==1.4.4",
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        ),
    }
    embedded = [reference for reference in builtin_references() if reference.suite == "embedded"]
    assert {reference.name: (reference.model.package, reference.model.sha256) for reference in embedded} == expected
    for reference in embedded:
        assert load_reference(reference.name) == reference
        assert reference.command_name == reference.name


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared test data is not there")
def test_the_shared_reference_loads_as_it_is() -> None:
    reference = load_reference(SHARED / "efficientnet_lite0.toml")
    assert reference.model.output == "logits"
    assert reference.preprocess.crop == 224 and reference.preprocess.resize is None
