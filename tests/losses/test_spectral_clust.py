"""Spectral Clust against the authors' numbers, an oracle with pseudo-inverses, and batches at the edge."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from rll_tf.losses import spectral_clust_loss
from tests.losses.golden import difference, golden
from tests.losses.helpers import value_and_gradients


def oracle(labels, embeddings):
    """K - tr(P_Y P_F) and its gradient, by pseudo-inverses in float64."""
    embeddings = np.asarray(embeddings, np.float64)
    y = (np.asarray(labels)[:, None] == np.unique(labels)[None, :]).astype(np.float64)
    inverse = np.linalg.pinv(embeddings, rcond=1e-6)
    p_y, p_f = y @ np.linalg.pinv(y), embeddings @ inverse
    gradient = -2 * (np.eye(len(y)) - p_f) @ p_y @ inverse.T
    return y.shape[1] - np.trace(p_y @ p_f), gradient


@pytest.mark.parametrize("case", golden("spectral_clust"))
def test_equals_the_authors_code(case):
    """To 1e-10 in float64, and nearly in float32; the authors' gradient is half the true one."""
    for dtype, tolerance in (np.float64, 1e-10), (np.float32, 2e-5):
        value, (gradient,) = value_and_gradients(
            lambda x: spectral_clust_loss(case["labels"], x), case["embeddings"].astype(dtype)
        )
        assert value.dtype == dtype
        assert difference(value, case["value"]) < tolerance
        assert difference(gradient, 2 * case["gradient"]) < tolerance


@hypothesis.given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5))
def test_equals_the_definition(seed, classes, width):
    """Value and gradient, for any number of classes and dimensions."""
    rng = np.random.default_rng(seed)
    labels, embeddings = rng.integers(classes, size=12), rng.normal(size=[12, width])
    value, (gradient,) = value_and_gradients(lambda x: spectral_clust_loss(labels, x), embeddings)
    expected_value, expected_gradient = oracle(labels, embeddings)
    assert difference(value, expected_value) < 1e-9
    assert difference(gradient, expected_gradient) < 1e-7


@pytest.mark.parametrize("kind", ["zeros", "collapsed", "copies", "a dead feature", "a repeated feature"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dependent_columns_take_the_pseudo_inverse(kind, dtype):
    """Embeddings of lower rank have finite values and gradients, those of the definition."""
    labels, embeddings = np.repeat(np.arange(4), 3), np.random.default_rng(0).normal(size=[12, 5])
    if kind == "zeros":
        embeddings[:] = 0
    elif kind == "collapsed":
        embeddings[:] = embeddings[0]
    elif kind == "copies":
        embeddings = embeddings[np.arange(12) % 3]
    else:
        embeddings[:, 1] = 0 if kind == "a dead feature" else embeddings[:, 0]
    value, (gradient,) = value_and_gradients(
        lambda x: spectral_clust_loss(labels, x), embeddings.astype(dtype)
    )
    expected_value, expected_gradient = oracle(labels, embeddings)
    tolerance = 1e-5 if dtype == np.float32 else 1e-10
    assert difference(value, expected_value) < tolerance
    assert difference(gradient, expected_gradient) < tolerance


def test_a_batch_no_larger_than_the_embedding_is_refused():
    """When the graph is built if N is known then, else when it runs; XLA, which can't raise, gives NaN."""
    labels, embeddings = np.arange(4), np.ones([4, 4], np.float32)
    with pytest.raises(ValueError, match="trains nothing; got 4 embeddings of 4 dimensions"):
        spectral_clust_loss(labels, embeddings)
    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 4])]
    with pytest.raises(tf.errors.InvalidArgumentError, match="the loss is 0 for any embeddings"):
        tf.function(spectral_clust_loss, input_signature=signature)(labels, embeddings)
    compiled = tf.function(spectral_clust_loss, input_signature=signature, jit_compile=True)
    assert np.isnan(compiled(labels, embeddings))
