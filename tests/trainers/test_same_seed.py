"""Two runs with one seed, on real pictures."""

import itertools
import json

import numpy as np
import pytest

from rll_tf.data import class_balanced_batches, open_dataset, training_batches
from rll_tf.training import Settings
from tests.conftest import rll
from trainers.recipes import RECIPES

CHANGES = {"steps": 5, "validate_every_steps": 5, "classes_per_batch": 8, "mirror": True}


@pytest.mark.slow
@pytest.mark.parametrize("archive", ["omniglot_small1", "grocery_train"])
def test_the_same_seed_gives_the_same_batches_and_the_same_losses(archive, shared_data, tmp_path):
    """Bit for bit, in batches and in every logged number; another seed gives others.

    There is no tolerance: `rll train` turns on TensorFlow's deterministic operations, which promise equal
    numbers on the same device with the same number of threads and the same versions, and nothing beyond.
    """
    folder = shared_data(archive, per_class=6)
    logs = {}
    for name, seed in (("once", 7), ("again", 7), ("other", 8)):
        words = itertools.chain(*(("--set", f"{k}={v}") for k, v in {**CHANGES, "seed": seed}.items()))
        rll("train", "convnet", "--data", f"folder:{folder}", "--out", tmp_path / name, *words)
        lines = (tmp_path / name / "steps.jsonl").read_text().splitlines()
        logs[name] = [json.loads(line) for line in lines]
    assert len(logs["once"]) == 5
    assert logs["once"] == logs["again"]
    assert all(a["loss"] != b["loss"] for a, b in zip(logs["once"], logs["other"], strict=True))
    once, again, other = (batches(folder, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def batches(folder, seed):
    """Three batches as `convnet` trains on, decoded anew."""
    settings = Settings(**{**RECIPES["convnet"].settings, **CHANGES})
    pictures = open_dataset(f"folder:{folder}")
    sampler = class_balanced_batches(
        pictures.labels, settings.classes_per_batch, settings.images_per_class, seed
    )
    dataset = training_batches(
        pictures, sampler, settings.preprocessing, settings.augmentation, ["low"], memory_bytes=0
    )
    return [images for images, _ in itertools.islice(dataset.as_numpy_iterator(), 3)]
