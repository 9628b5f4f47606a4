"""Models that a generator makes: made once, kept in the cache, made anew when the code changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto, numpy_helper

import quantbench.references.generated as generated
from quantbench.errors import InputError
from quantbench.references import fetch, load_reference, missing, source_models

SOURCE = """
import numpy as np
from onnx import TensorProto, helper, numpy_helper
SUFFIX = ".onnx"
def generate(file, seed):
    weight = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weight, "w")])
    file.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of generators with one of them in it."""
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "generators"
    package.mkdir()
    (package / "tiny_net.py").write_text(SOURCE)
    monkeypatch.setattr(generated.generators, "__path__", [str(package)])
    monkeypatch.delitem(sys.modules, f"{generated.generators.__name__}.tiny_net", raising=False)
    generated._code_sha256.cache_clear()
    yield tmp_path
    sys.modules.pop(f"{generated.generators.__name__}.tiny_net", None)
    generated._code_sha256.cache_clear()


def toml(folder: Path, model: str) -> Path:
    file = folder / "own.toml"
    file.write_text(f'name="own"\ntask="t"\nquality.metric="top1"\ndataset.kind="npz"\n[model]\n{model}\n')
    return file


def weight(file: Path) -> object:
    model = source_models(load_reference(file))["model"]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    return numpy_helper.to_array(model.graph.initializer[0]).tolist()


def test_the_seed_draws_the_weights(folder: Path) -> None:
    first = weight(toml(folder, 'generator = "tiny-net"\nseed = 1'))
    assert first == weight(toml(folder, 'generator = "tiny-net"\nseed = 1'))
    assert first != weight(toml(folder, 'generator = "tiny-net"\nseed = 2'))


def test_it_is_made_once_and_again_when_the_code_changes(folder: Path) -> None:
    reference = load_reference(toml(folder, 'generator = "tiny-net"'))
    assert missing(reference) is None  # it can always be made
    file = fetch(reference)
    made = file.stat().st_mtime_ns
    assert fetch(reference) == file and file.stat().st_mtime_ns == made
    (folder / "generators" / "_helper.py").write_text("")
    generated._code_sha256.cache_clear()
    again = fetch(reference)
    assert again != file and again.is_file() and not file.exists()


def test_an_unknown_generator_offers_the_nearest(folder: Path) -> None:
    with pytest.raises(InputError, match="'tiny-nett'; did you mean 'tiny-net'"):
        fetch(load_reference(toml(folder, 'generator = "tiny-nett"')))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ('generator = "a"\npath = "m.onnx"', "path and generator"),
        ('path = "m.onnx"\nseed = 1', "no generator"),
        (f'generator = "a"\nsha256 = "{"0" * 64}"', "remove it"),
    ],
)
def test_keys_that_do_not_go_together(model: str, words: str, folder: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_reference(toml(folder, model))
