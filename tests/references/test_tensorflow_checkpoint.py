"""Reading TensorFlow's checkpoints without TensorFlow.

`data/gnmt_tiny.zip` was written by `write` below with TensorFlow 2.21: GNMT with 4 units and 12 words. Where TensorFlow
is installed (the extra `tensorflow`), one is written anew.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quantbench.errors import InputError
from quantbench.references import load_reference, source_models
from quantbench.references.builders import gnmt
from quantbench.references.tensorflow_checkpoint import read_checkpoint

TINY = Path(__file__).parent / "data" / "gnmt_tiny.zip"
FOLDER = "gnmt_model/translate.ckpt-340000"  # the archive may hold it in any folder


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    shapes = sorted(gnmt.shapes(4, 12, 12).items())
    return {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes}


def write(file: Path, folder: Path) -> None:
    """A checkpoint as the reference implementation's Saver leaves it: with the step, an int64, beside the weights."""
    tf = pytest.importorskip("tensorflow").compat.v1
    with tf.Graph().as_default(), tf.Session() as session:
        for name, array in arrays().items():
            tf.get_variable(name, initializer=array)
        tf.get_variable("Variable", initializer=np.int64(340_000), dtype=tf.int64)
        session.run(tf.global_variables_initializer())
        saved = Path(tf.train.Saver().save(session, str(folder / "translate.ckpt"), global_step=340_000))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(saved.parent.glob(f"{saved.name}.*")):
            archive.write(part, f"{FOLDER.rpartition('/')[0]}/{part.name}")


def same(found: dict[str, np.ndarray]) -> None:
    wanted = arrays()
    assert set(found) == {*wanted, "Variable"}
    assert found["Variable"] == 340_000
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def test_a_real_checkpoint_is_read() -> None:
    same(read_checkpoint(TINY))


def test_what_tensorflow_writes_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    write(tmp_path / "new.zip", tmp_path)
    same(read_checkpoint(tmp_path / "new.zip"))


def reference(folder: Path) -> Path:
    file = folder / "own.toml"
    file.write_text(
        'name="own"\ntask="translation"\nquality.metric="bleu"\ndataset.kind="parallel-text"\n'
        'model.path="gnmt.zip"\nmodel.builder="gnmt"\n'
    )
    return file


def repacked(folder: Path, end: str, change: Callable[[bytes], bytes | None]) -> Path:
    """The archive with one of its files changed, or left out."""
    with zipfile.ZipFile(TINY) as source, zipfile.ZipFile(folder / "gnmt.zip", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(end) and (data := change(data)) is None:
                continue
            target.writestr(name, data)
    return reference(folder)


def test_the_graphs_are_made_of_it(tmp_path: Path) -> None:
    shutil.copy(TINY, tmp_path / "gnmt.zip")
    models = source_models(load_reference(str(reference(tmp_path))))
    built = gnmt.build(arrays())
    assert {name: model.SerializeToString(deterministic=True) for name, model in models.items()} == {
        name: model.SerializeToString(deterministic=True) for name, model in built.items()
    }


@pytest.mark.parametrize(
    ("end", "change", "said"),
    [
        (".data-00000-of-00001", lambda data: None, "has no file .*data-00000-of-00001"),
        (".data-00000-of-00001", lambda data: data[:-4], "ends beyond the end of the data file"),
        (".index", lambda data: None, "has 0 files NAME.index"),
        (".index", lambda data: data[:-1], "is no table file, or is cut off"),
        (".index", lambda data: data[-100:], "is cut off"),
    ],
)
def test_a_damaged_checkpoint_is_said_in_one_sentence(
    tmp_path: Path, end: str, change: Callable[[bytes], bytes | None], said: str
) -> None:
    file = repacked(tmp_path, end, change)
    with pytest.raises(InputError, match=rf"gnmt.zip holds no TensorFlow checkpoint that can be read: .*{said}"):
        source_models(load_reference(str(file)))


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    """The index is the same but for one name: as if the array had been saved under another."""

    def renamed(index: bytes) -> bytes:
        assert index.count(b"memory_layer/kernel") == 1
        return index.replace(b"memory_layer/kernel", b"memory_lager/kernel")

    file = repacked(tmp_path, ".index", renamed)
    with pytest.raises(InputError, match=r"does not fit the builder 'gnmt': it has no array '.*memory_layer/kernel'"):
        source_models(load_reference(str(file)))


def test_a_cut_archive_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "gnmt.zip").write_bytes(TINY.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"gnmt.zip holds no TensorFlow checkpoint that can be read"):
        source_models(load_reference(str(reference(tmp_path))))
