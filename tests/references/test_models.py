"""Model files: what is read, and what is refused before a graph is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantbench.errors import InputError, MissingError, QuantbenchError
from quantbench.references import load_reference, missing, source_models
from quantbench.references.models import character_set, load_onnx

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def reference(folder: Path, source: str, extra: str = "") -> Path:
    file = folder / "own.toml"
    file.write_text(
        f'name="own"\ntask="image-classification"\nquality.metric="top1"\ndataset.kind="npz"\n[model]\n{source}\n{extra}'
    )
    return file


def save_external(folder: Path, location: str, data: Path) -> Path:
    """The model with `w` in a file of external data, without onnx's own refusal of strange places."""
    proto = model()
    tensor = proto.graph.initializer[0]
    data.write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    file = folder / "m.onnx"
    file.write_bytes(proto.SerializeToString())
    return file


def test_a_model_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    onnx.save(model(), tmp_path / "sub" / "m.onnx")
    loaded = load_reference(reference(tmp_path, 'path = "sub/m.onnx"'))
    assert missing(loaded) is None
    assert source_models(loaded)["model"] == model()


def test_a_missing_model(tmp_path: Path) -> None:
    loaded = load_reference(reference(tmp_path, 'path = "m.onnx"'))
    assert str(tmp_path / "m.onnx") in (missing(loaded) or "")
    with pytest.raises(MissingError, match=r"m\.onnx") as caught:
        source_models(loaded)
    assert caught.value.status == 3


def test_another_sha256(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="sha256"):
        source_models(load_reference(reference(tmp_path, f'path = "m.onnx"\nsha256 = "{"0" * 64}"')))


def test_cut_off_anywhere(tmp_path: Path) -> None:
    whole = model().SerializeToString()
    for length in range(len(whole)):
        (tmp_path / "m.onnx").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"m\.onnx .*cut off"):
            load_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("data", [b"", b"hello\n", b"PK\x03\x04" + b"x" * 50, bytes(100)])
def test_not_onnx(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(InputError, match="not an ONNX model"):
        load_onnx(tmp_path / "m.onnx")


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    loaded = load_onnx(tmp_path / "m.onnx")
    assert np.array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), WEIGHT)
    (tmp_path / "w.bin").write_bytes((tmp_path / "w.bin").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"w\.bin is cut off.*'w'"):
        load_onnx(tmp_path / "m.onnx")
    (tmp_path / "w.bin").unlink()
    with pytest.raises(MissingError, match=r"w\.bin"):
        load_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("how", ["upwards", "absolute", "link"])
def test_external_data_outside_the_folder(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    outside = tmp_path / "outside.bin"
    location = {"upwards": "../outside.bin", "absolute": str(outside), "link": "link.bin"}[how]
    (folder / "link.bin").symlink_to(outside)
    file = save_external(folder, location, outside)
    with pytest.raises(InputError, match=r"'w'.*outside the model's folder"):
        load_onnx(file)


def test_external_data_in_a_subgraph(tmp_path: Path) -> None:
    """A branch's constant may not reach outside either."""
    tensor = numpy_helper.from_array(WEIGHT, "inner")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/hostname")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["v"], value=tensor)],
        "then",
        [],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, [4, 3])],
    )
    proto = model()
    proto.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"'inner'.*outside"):
        load_onnx(tmp_path / "m.onnx")


def test_the_character_set_is_in_the_metadata(tmp_path: Path) -> None:
    proto = model()
    onnx.save(proto, tmp_path / "m.onnx")
    loaded = load_reference(reference(tmp_path, 'path = "m.onnx"'))
    assert character_set(loaded) is None
    proto.metadata_props.add(key="character", value="a\nb\nß")
    onnx.save(proto, tmp_path / "m.onnx")
    assert character_set(loaded) == ("", "a", "b", "ß", " ")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


def checkpoints(folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.npz" for name in ("empty", "text", "pickled", "other")}
    files["empty"].write_bytes(b"")
    files["text"].write_text("hello")
    np.savez(files["pickled"], enc_emb=np.array([Trap()], object))
    np.savez(files["other"], enc_emb=np.zeros((29, 256), np.float64))
    return files


@pytest.mark.parametrize("name", ["empty", "text", "pickled", "other"])
def test_bad_checkpoints(name: str, tmp_path: Path) -> None:
    file = checkpoints(tmp_path)[name]
    loaded = load_reference(reference(tmp_path, f'path = "{file.name}"\nbuilder = "g2p-gru"'))
    with pytest.raises(InputError, match=rf"{name}\.npz"):
        source_models(loaded)


def test_an_unknown_builder(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    loaded = load_reference(reference(tmp_path, 'path = "m.onnx"\nbuilder = "g2p-gro"'))
    with pytest.raises(QuantbenchError, match="'g2p-gro'; did you mean 'g2p-gru'"):
        source_models(loaded)
