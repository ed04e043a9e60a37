"""Trainable proxies beside a model's embeddings."""

import keras
import numpy as np
import pytest

from rll_tf.models import ProxySimilarity, embedding_model, load_pretrained, without_proxies


def test_similarities_are_cosines_and_are_saved(tmp_path):
    """Whatever the lengths of embeddings and proxies; a zero embedding is similar to none."""
    embeddings = keras.Input([3])
    layer = ProxySimilarity(4)
    model = keras.Model(embeddings, layer(embeddings))
    proxies = np.random.default_rng(0).normal(size=[4, 3]).astype(np.float32)
    layer.proxies.assign(proxies)
    x = np.array([[2, 0, 0], [0, 0, 0.1], [0, 0, 0]], np.float32)
    unit = proxies / np.linalg.norm(proxies, axis=1, keepdims=True)
    expected = np.stack([unit[:, 0], unit[:, 2], np.zeros(4)])
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))
    with pytest.raises(ValueError, match="classes must be at least 1; got 0"):
        ProxySimilarity(0)


def test_proxies_are_left_out_of_what_is_served_and_of_pretrained_weights(tmp_path):
    """Without them the embeddings are the same; another training's file may hold other classes' proxies."""
    model = embedding_model("convnet", ["low", "high"], 8, input_shape=(16, 16, 3), proxies=5)
    assert {name: output.shape for name, output in model.output.items()} == {
        "low": (None, 8), "high": (None, 8), "low_similarity": (None, 5), "high_similarity": (None, 5),
    }  # fmt: skip
    pictures = np.random.default_rng(0).normal(size=[2, 16, 16, 3]).astype(np.float32)
    served = without_proxies(model)
    assert list(served.output) == ["low", "high"]
    np.testing.assert_array_equal(served(pictures)["low"], model(pictures)["low"])
    model.save(tmp_path / "last.keras")
    other = embedding_model("convnet", ["low", "high"], 8, input_shape=(16, 16, 3), proxies=7)
    load_pretrained(without_proxies(other), tmp_path / "last.keras")
    np.testing.assert_array_equal(other(pictures)["high"], model(pictures)["high"])
