"""Data drawn from a seed: each sample on its own stream, prepared as files are, without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantbench.datasets import Dataset, open_dataset
from quantbench.errors import InputError
from quantbench.references import load_reference
from quantbench.references.generators._scenes import MOTIFS, training_batch


def opened(folder: Path, dataset: str, *, rest: str = "", samples: int = 5) -> Dataset:
    file = folder / "own.toml"
    file.write_text(
        'name="own"\ntask="image-classification"\nquality.metric="top1-agreement"\nmodel.path="m.onnx"\n'
        f"[calibration]\nsamples={samples}\n[dataset]\n{dataset}\n{rest}\n"
    )
    return open_dataset(load_reference(str(file)))


IMAGES = 'kind="generated-images"\nseed=3\nheight=40\nwidth=56\n'
SENTENCES = 'kind="generated-sentences"\nseed=3\nwords=200\nlongest=9\n'


@pytest.mark.parametrize("kind", [IMAGES, SENTENCES])
def test_a_sample_is_the_same_however_many_others_there_are(tmp_path: Path, kind: str) -> None:
    few = opened(tmp_path, f"{kind}samples=4", samples=3)
    many = opened(tmp_path, f"{kind}samples=9", samples=6)
    assert (len(few.calibration), len(few.scored), len(many.scored)) == (3, 4, 9)
    for part in ("calibration", "scored"):
        one, other = getattr(few, part), getattr(many, part)
        assert list(one.ids) == list(other.ids)[: len(one)]
        for index in range(len(one)):
            np.testing.assert_array_equal(one.input(index), other.input(index))
    everything = [many.calibration.input(k).tobytes() for k in range(6)]
    everything += [many.scored.input(k).tobytes() for k in range(9)]
    assert len(set(everything)) == 15
    assert not set(many.calibration.ids) & set(many.scored.ids)
    other_seed = opened(tmp_path, kind.replace("seed=3", "seed=4") + "samples=4")
    assert other_seed.scored.input(0).tobytes() != few.scored.input(0).tobytes()
    assert not few.labelled


def test_images_have_the_colours_that_the_networks_have_learnt(tmp_path: Path) -> None:
    """A picture of the data set is nearer to its motif's pictures than with red and blue exchanged."""
    data = opened(tmp_path, f"{IMAGES}samples=12".replace("width=56", "width=40"))
    learnt = np.concatenate([training_batch(motif, 1, 40) for motif in range(MOTIFS)])
    straight = [np.abs(learnt - data.scored.input(k).astype(np.float32)).mean((1, 2, 3)).min() for k in range(12)]
    swapped = [np.abs(learnt - data.scored.input(k)[::-1].astype(np.float32)).mean((1, 2, 3)).min() for k in range(12)]
    assert np.mean(straight) < 0.8 * np.mean(swapped)


def test_images_are_prepared_as_files_are(tmp_path: Path) -> None:
    plain = opened(tmp_path, f"{IMAGES}samples=2").scored.input(1)
    assert plain.dtype == np.uint8 and plain.shape == (3, 40, 56)
    rest = "[preprocess]\nmean=[1.0, 2.0, 3.0]\nstd=[2.0, 2.0, 4.0]"
    prepared = opened(tmp_path, f"{IMAGES}samples=2", rest=rest).scored.input(1)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in ((1, 2, 3), (2, 2, 4)))
    np.testing.assert_allclose(prepared, (plain - mean) / std, rtol=1e-6)


def test_few_motifs_give_less_variety(tmp_path: Path) -> None:
    def spread(extra: str) -> float:
        data = opened(tmp_path, f"{IMAGES}samples=12\n{extra}").scored
        return float(np.stack([data.input(k) for k in range(12)]).astype(np.float32).std(axis=0).mean())

    assert spread("motifs=1") < 0.6 * spread("")


def test_sentences_are_ids_of_the_vocabulary_by_zipfs_law(tmp_path: Path) -> None:
    data = opened(tmp_path, f"{SENTENCES}samples=300".replace("longest=9", "longest=20"))
    assert data.prediction_space[:4] == ("<unk>", "<s>", "</s>", "w3")
    assert len(data.prediction_space) == 200
    words = np.concatenate([data.scored.input(k) for k in range(300)])
    assert words.dtype == np.int64 and words.min() >= 3 and words.max() < 200
    # Half of the logarithms of the ranks lie below that of the square root of the number of words.
    assert 0.35 < (words - 2 <= np.sqrt(197)).mean() < 0.65


@pytest.mark.parametrize(
    ("dataset", "rest", "said"),
    [
        (IMAGES.replace("height=40\n", ""), "", "needs the key dataset.height"),
        (f"{IMAGES}motifs=99", "", f"there are {MOTIFS} motifs, not 99"),
        (IMAGES + 'list="a.txt"', "", "the key dataset.list means nothing to the kind 'generated-images'"),
        (SENTENCES.replace("words=200", "words=3"), "", "needs dataset.words, at least 4"),
        (SENTENCES.replace("longest=9\n", ""), "", "needs dataset.longest, at least 3"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, dataset: str, rest: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        opened(tmp_path, dataset, rest=rest)


@pytest.mark.parametrize("kind", [IMAGES, SENTENCES])
def test_a_calibration_list_makes_no_sense(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'name="own"\ntask="t"\nquality.metric="top1-agreement"\nmodel.path="m.onnx"\n'
        f'[calibration]\nlist="some.txt"\n[dataset]\n{kind}'
    )
    with pytest.raises(InputError, match=r"takes \[calibration\] samples, not a list"):
        open_dataset(load_reference(str(file)))
