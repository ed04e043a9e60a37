"""KerasCV backbones by name."""

import sys
import types

import keras
import numpy as np
import pytest

from rll_tf.models import embedding_model


def pyramid(preset, input_shape):
    """A model with four pyramid levels, as KerasCV's backbones have them."""
    if preset != "toy":
        raise ValueError(f"unknown preset {preset}")
    features = inputs = keras.Input(input_shape)
    for level in (2, 3, 4, 5):
        features = keras.layers.Conv2D(level, 3, 2, "same", name=f"stage_{level}")(features)
    model = keras.Model(inputs, features)
    model.pyramid_level_inputs = {f"P{level}": f"stage_{level}" for level in (5, 2, 3, 4)}
    return model


@pytest.fixture
def toy(monkeypatch):
    """KerasCV with one backbone of ours."""
    backbone = types.SimpleNamespace(from_preset=pyramid)
    module = types.SimpleNamespace(models=types.SimpleNamespace(Backbone=backbone))
    monkeypatch.setitem(sys.modules, "keras_cv", module)


@pytest.mark.usefixtures("toy")
def test_the_last_three_pyramid_levels_are_the_taps():
    """Low is stride 8, mid 16, high 32; a subset builds only what it needs."""
    model = embedding_model("keras_cv:toy", embedding_dim=6, input_shape=(32, 64, 3))
    assert [model.get_layer(f"{level}_dense").kernel.shape for level in ("low", "mid", "high")] == [
        (3, 6),
        (4, 6),
        (5, 6),
    ]
    for embedding in model(np.random.default_rng(0).normal(size=[2, 32, 64, 3])).values():
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    low = embedding_model("keras_cv:toy", ["low"], input_shape=(32, 64, 3))
    assert "stage_4" not in {layer.name for layer in low.layers}


def test_without_keras_cv_the_error_tells_what_to_install(monkeypatch):
    """It is an optional extra."""
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(
        ImportError, match=r"backbone keras_cv:resnet18_v2 needs KerasCV: .* install keras-cv"
    ):
        embedding_model("keras_cv:resnet18_v2")


def test_a_real_backbone():
    """A ResNet of KerasCV's own."""
    pytest.importorskip("keras_cv", reason="keras-cv is not installed")
    model = embedding_model("keras_cv:resnet18_v2", ["low", "high"], 8, input_shape=(64, 64, 3))
    embeddings = model(np.random.default_rng(0).uniform(0, 255, [2, 64, 64, 3]))
    assert {level: embedding.shape for level, embedding in embeddings.items()} == {
        "low": (2, 8),
        "high": (2, 8),
    }
