"""N-pair losses against TensorFlow Addons, tf.contrib, pytorch-metric-learning and the formula."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from rll_tf.losses import (
    NpairsMultilabelLoss,
    n_pair_loss,
    npairs_loss,
    npairs_multilabel_loss,
)
from tests.losses import oracles
from tests.losses.golden import difference, golden
from tests.losses.helpers import agrees_with_oracle, batches, value_and_gradients


def agrees_with_golden(case, function):
    """Value and gradients of anchors and positives are the tool's."""
    value, gradients = value_and_gradients(function, case["embeddings"], case["positives"])
    assert difference(value, case["value"]) < case.tolerance
    for gradient, field in zip(gradients, ["gradient", "gradient_positives"], strict=True):
        assert difference(gradient, case[field]) < case.tolerance


def similarities(anchors, positives):
    """What TensorFlow Addons leaves to its user."""
    return tf.matmul(anchors, positives, transpose_b=True)


@pytest.mark.parametrize("case", golden("npairs", "tfa"))
def test_npairs_agrees_with_addons(case):
    """Classes that come twice included."""
    agrees_with_golden(case, lambda a, p: npairs_loss(case["labels"], similarities(a, p)))


@pytest.mark.parametrize("case", golden("npairs_multilabel", "tfa"))
@pytest.mark.parametrize("sparse", [False, True])
def test_multilabel_agrees_with_addons(case, sparse):
    """Labels dense and sparse."""
    labels = tf.sparse.from_dense(case["labels"]) if sparse else case["labels"]
    agrees_with_golden(case, lambda a, p: npairs_multilabel_loss(labels, similarities(a, p)))


@pytest.mark.parametrize("case", golden("npairs", "contrib"))
def test_n_pair_agrees_with_contrib(case):
    """The term of the norms included; where classes come twice it is that of the similarities' loss."""
    labels, weight = case["labels"], case.arguments["reg_lambda"]

    def loss(anchors, positives):
        if len(np.unique(labels)) == len(labels):
            both = tf.concat([anchors, positives], axis=0)
            return n_pair_loss(np.concatenate([labels, labels]), both, l2=weight)
        squares = tf.reduce_sum(tf.square(anchors) + tf.square(positives), axis=1)
        return npairs_loss(labels, similarities(anchors, positives)) + weight / 4 * tf.reduce_mean(squares)

    agrees_with_golden(case, loss)


@pytest.mark.parametrize("case", golden("npairs", "pml"))
def test_n_pair_agrees_with_pytorch_metric_learning(case):
    """On the same choice of pairs, without the norms, normalised or not."""

    def loss(embeddings):
        if case.arguments["normalise"]:
            embeddings = tf.math.l2_normalize(embeddings, axis=1)
        return n_pair_loss(case["labels"], embeddings, l2=0.0)

    value, (gradient,) = value_and_gradients(loss, case["embeddings"].astype(case.dtype))
    assert difference(value, case["value"]) < case.tolerance
    assert difference(gradient, case["gradient"]) < case.tolerance


@hypothesis.settings(derandomize=True)
@hypothesis.given(batches(), st.floats(0.0, 1.0))
def test_n_pair_agrees_with_the_formula(drawn, l2):
    """Over drawn batches."""
    agrees_with_oracle(n_pair_loss, oracles.n_pair, *drawn, l2=l2)


@hypothesis.settings(derandomize=True)
@hypothesis.given(batches(copies=False))
def test_npairs_agree_with_the_formula(drawn):
    """Both, over drawn batches, rows without labels and ids beyond 2^24 included."""
    labels, embeddings = drawn
    square = embeddings @ embeddings[::-1].T
    agrees_with_oracle(npairs_loss, oracles.npairs, labels + 2**24, square)
    multiple = (labels[:, None] & np.array([1, 2, 4])) > 0
    agrees_with_oracle(npairs_multilabel_loss, oracles.npairs_multilabel, multiple, square)


@pytest.mark.parametrize("case", golden("npairs", "edge_large_ids", edge=True))
def test_large_ids_do_not_collide(case):
    """Which they do in TensorFlow Addons."""
    square = similarities(case["embeddings"], case["positives"])
    assert float(npairs_loss(case["labels"], square)) == pytest.approx(
        oracles.npairs(case["labels"], square), rel=1e-6
    )
    assert difference(npairs_loss(case["labels"], square), case["value"]) > 1e-3


def test_a_column_of_labels():
    """As `fit` may give them: no NaN."""
    square = np.random.default_rng(0).normal(size=[4, 4])
    labels = np.array([0, 1, 1, 2])
    assert float(npairs_loss(labels[:, None], square)) == float(npairs_loss(labels, square))


def test_sparse_labels_of_the_class():
    """The Keras class takes them, too."""
    labels, square = np.array([[1, 0], [1, 1], [0, 0]]), np.eye(3, dtype=np.float32)
    loss = NpairsMultilabelLoss()
    assert float(loss(tf.sparse.from_dense(labels), square)) == float(loss(labels, square))


def test_similarities_must_be_square():
    """Embeddings in their place are refused."""
    with pytest.raises(ValueError, match=r"y_pred must be similarities \[N, N\]: got shape \(4, 3\)"):
        npairs_loss([0, 1, 2, 3], np.zeros([4, 3]))
