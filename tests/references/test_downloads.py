"""Models by their url, from a server in this process."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantbench.errors import InputError, MissingError
from quantbench.references import Reference, fetch, load_reference, missing

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
