"""Models and lists by their url, from a server in this process; data by an environment variable."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from quantbench.errors import InputError, MissingError
from quantbench.references import Reference, calibration_file, data_folder, fetch, load_reference, missing

DATA = b"a model, as far as the download is concerned" * 50


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address that serves it."""
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def reference(folder: Path, url: str) -> Reference:
    file = folder / "own.toml"
    sha256 = hashlib.sha256(DATA).hexdigest()
    file.write_text(
        f'name="own"\ntask="t"\nquality.metric="top1"\ndataset.kind="npz"\nmodel.url="{url}"\nmodel.sha256="{sha256}"\n'
    )
    return load_reference(file)


def test_downloaded_once_and_a_damaged_file_is_not_trusted(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    own = reference(tmp_path, f"{address}/m.onnx")
    (folder / "m.onnx").write_bytes(DATA)
    assert missing(own) == f"quantbench fetch {tmp_path / 'own.toml'}"
    file = fetch(own)
    assert file.read_bytes() == DATA and missing(own) is None

    (folder / "m.onnx").unlink()
    assert fetch(own) == file
    file.write_bytes(DATA[:-1])
    assert missing(own) is not None
    with pytest.raises(MissingError, match="quantbench fetch"):
        fetch(own)
    (folder / "m.onnx").write_bytes(DATA)
    assert fetch(own).read_bytes() == DATA


def test_another_file_at_the_url(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "m.onnx").write_bytes(b"another")
    with pytest.raises(InputError, match="sha256"):
        fetch(reference(tmp_path, f"{address}/m.onnx"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingError) as caught:
        fetch(reference(tmp_path, "http://127.0.0.1:9/m.onnx"))
    assert caught.value.status == 3 and "\n" not in str(caught.value)


def first_use(folder: Path, url: str) -> Reference:
    file = folder / "own.toml"
    file.write_text(
        f'name="own"\ntask="t"\nquality.metric="top1"\ndataset.kind="npz"\nmodel.url="{url}"\nmodel.sha256="first-use"\n'
    )
    return load_reference(file)


def onnx_bytes(name: str) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def test_a_first_file_is_binding_from_then_on(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    own = first_use(tmp_path, f"{address}/m.onnx")
    first, second = onnx_bytes("first"), onnx_bytes("second")
    (folder / "m.onnx").write_bytes(first)
    assert missing(own) is not None
    file = fetch(own)
    record = file.with_name(f"{file.name}.sha256")
    assert file.read_bytes() == first and missing(own) is None
    assert record.read_text().strip() == hashlib.sha256(first).hexdigest()

    (folder / "m.onnx").write_bytes(second)
    assert fetch(own).read_bytes() == first
    file.write_bytes(first[:-1])  # damaged: downloaded again, and what comes is another file now
    assert missing(own) is not None
    with pytest.raises(InputError, match="sha256") as caught:
        fetch(own)
    assert str(record) in str(caught.value) and not file.exists()


def test_a_first_file_must_be_what_its_name_says(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "m.onnx").write_bytes(b"<html>please log in</html>")
    (folder / "m.zip").write_bytes(b"PK\x03\x04 cut off")
    for name in ("m.onnx", "m.zip"):
        with pytest.raises(InputError, match="not the file that its name says"):
            fetch(first_use(tmp_path, f"{address}/{name}"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_first_file_may_be_placed_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    own = first_use(tmp_path, "http://127.0.0.1:9/m.onnx")
    with pytest.raises(MissingError, match=r"or place the file at (\S+)\)") as caught:
        fetch(own)
    place = Path(str(caught.value).rsplit(" at ", 1)[1].rstrip(")"))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(onnx_bytes("placed"))
    assert missing(own) is None and fetch(own) == place


def test_first_use_goes_with_a_url_only(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        'name="own"\ntask="t"\nquality.metric="top1"\ndataset.kind="npz"\n'
        'model.path="m.onnx"\nmodel.sha256="first-use"\n'
    )
    with pytest.raises(InputError, match="which goes with url only"):
        load_reference(tmp_path / "own.toml")


def test_a_calibration_list_by_its_url(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "list.txt").write_text("a\nb\n")
    sha256 = hashlib.sha256(b"a\nb\n").hexdigest()
    (tmp_path / "m.onnx").write_bytes(onnx_bytes("m"))

    def own(sha256: str) -> Reference:
        (tmp_path / "own.toml").write_text(
            'name="own"\ntask="t"\nquality.metric="top1"\ndataset.kind="npz"\nmodel.path="m.onnx"\n'
            f'[calibration]\nlist="list.txt"\nurl="{address}/list.txt"\nsha256="{sha256}"\n'
        )
        return load_reference(tmp_path / "own.toml")

    fetch(own(sha256))
    (folder / "list.txt").unlink()
    file = calibration_file(own(sha256))
    assert file.read_text() == "a\nb\n" and file.is_relative_to(tmp_path / "cache")
    (tmp_path / "list.txt").write_text("a\nc\n")  # beside the reference: it comes first, and is another
    with pytest.raises(InputError, match="calibration list"):
        calibration_file(own(sha256))


def test_data_by_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text(
        'name="own"\ntask="t"\nquality.metric="top1"\ndataset.kind="coco"\ndataset.variable="OWN_DATA"\n'
        'model.path="own.toml"\n'
    )
    own = load_reference(tmp_path / "own.toml")
    monkeypatch.delenv("OWN_DATA", raising=False)
    for value in (None, "", str(tmp_path / "nowhere")):
        if value is not None:
            monkeypatch.setenv("OWN_DATA", value)
        assert missing(own) == "name its folder with --dataset DIR, or set OWN_DATA to it"
        with pytest.raises(MissingError, match=r"--dataset DIR, or set OWN_DATA"):
            data_folder(own)
    monkeypatch.setenv("OWN_DATA", str(tmp_path))
    assert missing(own) is None and data_folder(own) == tmp_path
