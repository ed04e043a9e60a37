"""Triplet losses against TensorFlow Addons, tf.contrib and the formula."""

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from rll_tf.losses import TripletHardLoss, TripletSemiHardLoss, triplet_hard_loss, triplet_semihard_loss
from rll_tf.losses.pairwise import distances_within
from tests.losses import oracles
from tests.losses.golden import difference, golden
from tests.losses.helpers import agrees_with_oracle, batches, value_and_gradients

METRICS = ["L2", "squared-L2", "angular"]
MARGINS = st.floats(0.0, 3.0)


def semihard(labels, embeddings, *, metric, **arguments):
    """The loss with the oracle's names."""
    return triplet_semihard_loss(labels, embeddings, distance_metric=metric, **arguments)


def hard(labels, embeddings, *, metric, **arguments):
    """The loss with the oracle's names."""
    return triplet_hard_loss(labels, embeddings, distance_metric=metric, **arguments)


def agrees_with_golden(case, function, **arguments):
    """Value and gradient are the tool's."""
    value, (gradient,) = value_and_gradients(
        lambda embeddings: function(case["labels"], embeddings, **{**case.arguments, **arguments}),
        case["embeddings"],
    )
    assert difference(value, case["value"]) < case.tolerance
    assert difference(gradient, case["gradient"]) < case.tolerance


@pytest.mark.parametrize("case", golden("triplet_semihard", "tfa"))
def test_semihard_agrees_with_addons(case):
    """All three distances."""
    agrees_with_golden(case, triplet_semihard_loss)


@pytest.mark.parametrize("case", golden("triplet_semihard", "contrib"))
def test_semihard_agrees_with_contrib(case):
    """Which squares distances."""
    agrees_with_golden(case, triplet_semihard_loss, distance_metric="squared-L2")


@pytest.mark.parametrize("case", golden("triplet_hard", "tfa"))
def test_hard_agrees_with_addons(case):
    """All three distances, hard and soft; an anchor alone in its class is pushed."""
    agrees_with_golden(case, triplet_hard_loss)


@pytest.mark.parametrize("case", golden("triplet_semihard", "edge_twins", edge=True))
@pytest.mark.parametrize("loss", [triplet_semihard_loss])
def test_twins_agree_with_addons(case, loss):
    """Two equal embeddings have distance 0 and no gradient."""
    agrees_with_golden(case, loss)


@hypothesis.settings(derandomize=True)
@hypothesis.given(batches(), MARGINS, st.sampled_from(METRICS))
def test_semihard_agrees_with_the_formula(drawn, margin, metric):
    """Over drawn batches, in two dimensions at least: in one, angles are equal but for rounding."""
    labels, embeddings = drawn
    agrees_with_oracle(
        semihard,
        oracles.triplet_semihard,
        labels,
        np.concatenate([embeddings, np.full([len(embeddings), 1], 0.3)], axis=1),
        margin=margin,
        metric=metric,
    )


@hypothesis.settings(derandomize=True)
@hypothesis.given(batches(), MARGINS, st.booleans(), st.sampled_from(METRICS))
def test_hard_agrees_with_the_formula(drawn, margin, soft, metric):
    """Over drawn batches."""
    agrees_with_oracle(
        hard,
        oracles.triplet_hard,
        *drawn,
        margin=margin,
        soft=soft,
        metric=metric,
    )


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("function", [triplet_semihard_loss, triplet_hard_loss])
def test_large_classes(function, compiled):
    """Twenty positives an anchor, many equally near on a grid of quarters, compiled or not."""
    rng = np.random.default_rng(0)
    labels, embeddings = np.arange(40) % 2, np.round(4 * rng.normal(size=[40, 3])) / 4
    oracle = {triplet_semihard_loss: oracles.triplet_semihard, triplet_hard_loss: oracles.triplet_hard}
    value, _ = value_and_gradients(
        lambda array: function(labels, array, distance_metric="squared-L2"), embeddings, compiled=compiled
    )
    np.testing.assert_allclose(value, oracle[function](labels, embeddings, metric="squared-L2"), rtol=1e-12)


def test_the_soft_margin_does_not_overflow():
    """A gap of 200 is a loss of 200."""
    value = triplet_hard_loss([0, 0, 1], np.array([[0.0], [200.0], [0.0]], np.float32), soft=True)
    expected = oracles.triplet_hard([0, 0, 1], [[0.0], [200.0], [0.0]], soft=True)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
def twice(embeddings):
    """A distance of one's own."""
    return 2.0 * distances_within(embeddings)


@pytest.mark.parametrize("loss", [TripletSemiHardLoss, TripletHardLoss])
def test_a_metric_of_ones_own(loss):
    """A function of embeddings is used as it is, and survives the configuration."""
    labels, embeddings = np.arange(12) // 3, np.random.default_rng(0).normal(size=[12, 4])
    embeddings = tf.constant(embeddings)
    doubled = loss(2.0, distance_metric=twice)
    np.testing.assert_allclose(doubled(labels, embeddings), 2 * loss(1.0)(labels, embeddings), rtol=1e-6)
    again = keras.losses.deserialize(keras.losses.serialize(doubled))
    assert again.distance_metric is twice


def test_an_unknown_metric_is_refused():
    """By name, with the names there are."""
    with pytest.raises(
        ValueError, match="must be one of L2, squared-L2, angular or a function: got 'cosine'"
    ):
        triplet_semihard_loss([0, 1], np.zeros([2, 2]), distance_metric="cosine")
