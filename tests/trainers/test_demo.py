"""`make demo`, with fewer steps."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from rll_tf.data import DATASETS, open_dataset
from rll_tf.evaluation import retrieval_metrics
from tests.conftest import rll, write_pictures
from trainers import cli, demo
from trainers.recipes import RECIPES


@pytest.mark.slow
def test_the_demo_compares_exports_and_draws(tmp_path, monkeypatch, capfd):
    """metrics.json has the promised form, the artefact's embeddings score what the model's do."""
    letters = open_dataset("glyphs")
    few = np.flatnonzero(letters.labels % 5 == 0)
    splits = {name: np.flatnonzero(np.isin(few, indices)) for name, indices in letters.splits.items()}
    small = dataclasses.replace(letters.take(few), splits=splits)
    monkeypatch.setitem(DATASETS, "glyphs", dataclasses.replace(DATASETS["glyphs"], open=lambda: small))
    recipe = RECIPES["glyphs"]
    faster = dataclasses.replace(recipe, settings={**recipe.settings, "steps": 40, "embedding_dim": 32})
    monkeypatch.setitem(RECIPES, "glyphs", faster)
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "demo")
    rll("demo")
    output = capfd.readouterr().out
    assert "trained concat" in output
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert list(metrics) == ["pixels", "untrained", "trained"]
    assert list(metrics["trained"]) == list(metrics["untrained"]) == ["low", "mid", "high", "concat"]
    assert metrics["trained"]["concat"]["recall@1"] > metrics["pixels"]["recall@1"]
    with np.load(tmp_path / "demo" / "gallery.npz") as arrays:
        served = retrieval_metrics(arrays["embeddings"], arrays["labels"], clustering=False)
    # A pair at equal distances may change ranks by rounding.
    assert abs(served["recall@1"] - metrics["trained"]["concat"]["recall@1"]) < 2e-3
    with Image.open(tmp_path / "demo" / "ranked_lists.png") as picture:
        assert min(picture.size) > 1000


@pytest.mark.slow
def test_photographs_are_compared_with_pretrained_features(tmp_path, monkeypatch, capfd):
    """Half of the classes are tested on; without a folder's pictures nothing is made."""
    monkeypatch.setattr(demo, "PHOTOS_FOLDER", tmp_path / "demo")
    monkeypatch.setattr(demo, "train", partial(train_briefly, demo.train))
    write_pictures(tmp_path / "photos", classes=8, per_class=6)
    rll("demo", "--photos", tmp_path / "photos")
    output = capfd.readouterr().out
    assert "pretrained concat" in output
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert list(metrics) == ["pixels", "pretrained", "trained"]
    assert list(metrics["trained"]) == list(metrics["pretrained"]) == ["low", "mid", "high", "concat"]
    config = json.loads((tmp_path / "demo" / "run" / "config.json").read_text())
    assert [len(config["classes"][split]) for split in ("train", "validation", "test")] == [2, 2, 4]
    assert (tmp_path / "demo" / "ranked_lists.png").exists()
    assert cli.run(["demo", "--photos", str(tmp_path / "none")]) != 0
    assert "none" in capfd.readouterr().err


def train_briefly(train, recipe, assignments, **options):
    """A demo's training, two small steps of it."""
    small = ("steps=2", "input_px=32", "resize_px=32", "validation_share=0.25")
    train(recipe, assignments=(*assignments, *small), **options)
