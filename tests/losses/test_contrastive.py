"""Contrastive loss against TensorFlow Addons and the formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rll_tf.losses import ContrastiveLoss, contrastive_loss
from tests.losses import oracles
from tests.losses.golden import difference, golden
from tests.losses.helpers import value_and_gradients


@pytest.mark.parametrize("case", golden("contrastive", "tfa"))
def test_agrees_with_addons(case):
    """The class's mean, the function's values, and gradients through the distances."""

    def distances(a, b):
        return tf.norm(a - b, axis=1)

    values = contrastive_loss(case["labels"], distances(case["embeddings"], case["others"]), **case.arguments)
    assert difference(values, case["values"]) < case.tolerance
    value, gradients = value_and_gradients(
        lambda a, b: ContrastiveLoss(**case.arguments)(case["labels"], distances(a, b)),
        case["embeddings"],
        case["others"],
    )
    assert difference(value, case["value"]) < case.tolerance
    for gradient, field in zip(gradients, ["gradient", "gradient_others"], strict=True):
        assert difference(gradient, case[field]) < case.tolerance


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_agrees_with_the_formula(dtype):
    """In each dtype; half precision is computed in float32; columns are pairs, not pairs of pairs."""
    rng = np.random.default_rng(0)
    same, distances = rng.integers(0, 2, 50), rng.uniform(0, 3, 50).astype(dtype)
    expected = oracles.contrastive(same, distances.astype(np.float64), 1.7)
    for labels in (same, same[:, None], same.astype(bool), same.astype(np.float32)):
        for each in (distances, distances[:, None]):
            values = contrastive_loss(labels, each, 1.7)
            assert values.dtype == (np.float64 if dtype == np.float64 else np.float32)
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_through_keras():
    """Weights of pairs and the configuration."""
    same, distances = np.array([1, 0, 1]), np.array([0.5, 0.5, 2.0], np.float32)
    loss = keras.losses.deserialize(keras.losses.serialize(ContrastiveLoss(2.0, reduction="sum")))
    assert float(loss(same, distances, sample_weight=[1.0, 2.0, 0.0])) == pytest.approx(0.25 + 2 * 2.25)
