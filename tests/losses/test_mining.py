"""The metrics of what is mined."""

import keras
import numpy as np
import pytest

from rll_tf.losses import RankedListLoss, mined_counts, mining_metrics
from rll_tf.losses.ranked_list import VARIANTS
from tests.losses.oracle import oracle
from tests.losses.test_ranked_list import batch


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_are_those_of_the_oracle(variant):
    """|P*_i| and |N*_i| of every query."""
    labels, embeddings = batch()
    counts = np.stack(mined_counts(labels, embeddings, alpha=1.3, margin=0.7, variant=variant), axis=1)
    _, _, expected = oracle(labels, embeddings, alpha=1.3, margin=0.7, variant=variant)
    np.testing.assert_array_equal(counts, expected)
    assert len(np.unique(expected)) > 3


def test_metrics_are_means_over_queries():
    """Shares and mean counts over two batches, weighted by their sizes."""
    labels, embeddings = batch()
    metrics = mining_metrics(1.1, 0.8, normalize=False)
    counts = []
    for part in (slice(0, 10), slice(10, 40)):
        counts.append(oracle(labels[part], embeddings[part], alpha=1.1, margin=0.8)[2])
        for metric in metrics:
            metric.update_state(labels[part][:, None], embeddings[part])
    counts = np.concatenate(counts)
    expected = [*np.mean(counts > 0, axis=0), *np.mean(counts, axis=0)]
    np.testing.assert_allclose([float(metric.result()) for metric in metrics], expected, rtol=1e-6)


def test_a_batch_without_positives_is_visible():
    """Trap 1: when nothing is left to mine the metrics say so."""
    _, embeddings = batch()
    share = mining_metrics()[0]
    share.update_state(np.arange(40), embeddings)
    assert float(share.result()) == 0.0


@pytest.mark.parametrize("jit_compile", [pytest.param(False, marks=pytest.mark.slow), True])  # runs log them
def test_metrics_work_in_compile(jit_compile):
    """`fit` and `evaluate` report all four for each output."""
    labels, embeddings = batch()
    inputs = keras.Input([7])
    model = keras.Model(
        inputs, {"low": keras.layers.Identity()(inputs), "high": keras.layers.Identity()(inputs)}
    )
    model.compile(
        loss=RankedListLoss(),
        metrics={each: mining_metrics() for each in ("low", "high")},
        jit_compile=jit_compile,
    )
    found = model.evaluate(
        embeddings, {"low": labels, "high": labels}, verbose=0, batch_size=40, return_dict=True
    )
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)  # as for the loss
    counts = oracle(labels, unit)[2]
    for level in ("low", "high"):
        np.testing.assert_allclose(found[f"{level}_positive_share"], np.mean(counts[:, 0] > 0), rtol=1e-6)
        np.testing.assert_allclose(found[f"{level}_negative_count"], np.mean(counts[:, 1]), rtol=1e-6)


@pytest.mark.parametrize("index", range(4))
def test_metrics_survive_their_configuration(index):
    """A metric is made again from its configuration."""
    metric = mining_metrics(1.4, 0.2, variant="release2020", global_gallery=False, normalize=False)[index]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is type(metric)
    assert again.get_config() == metric.get_config()
    assert again.get_config()["normalize"] is False
