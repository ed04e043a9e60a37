"""`make demo`, with fewer steps."""

import dataclasses
import json

import numpy as np
from PIL import Image

from rll_tf.evaluation import retrieval_metrics
from tests.conftest import rll
from trainers import demo
from trainers.recipes import glyphs


def test_the_demo_compares_exports_and_draws(tmp_path, monkeypatch, capfd):
    """metrics.json has the promised form, the artefact's embeddings score what the model's do."""
    settings = dataclasses.replace(glyphs.SETTINGS, steps=40, classes_per_batch=30, embedding_dim=32)
    monkeypatch.setattr(glyphs, "SETTINGS", settings)
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "demo")
    rll("demo")
    output = capfd.readouterr().out
    assert "trained concat" in output
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert list(metrics) == ["pixels", "untrained", "trained"]
    assert list(metrics["trained"]) == list(metrics["untrained"]) == ["low", "mid", "high", "concat"]
    assert 0.2 < metrics["pixels"]["recall@1"] < 0.33
    assert metrics["trained"]["concat"]["recall@1"] > metrics["pixels"]["recall@1"]
    with np.load(tmp_path / "demo" / "gallery.npz") as arrays:
        served = retrieval_metrics(arrays["embeddings"], arrays["labels"], clustering=False)
    # A pair at equal distances may change places by rounding.
    assert abs(served["recall@1"] - metrics["trained"]["concat"]["recall@1"]) < 2e-3
    with Image.open(tmp_path / "demo" / "ranked_lists.png") as picture:
        assert min(picture.size) > 1000
