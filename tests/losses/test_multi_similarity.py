"""Multi-Similarity loss against pytorch-metric-learning, the authors' code and the formula."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from rll_tf.losses import multi_similarity_loss
from rll_tf.losses.multi_similarity import _of_similarities
from tests.losses import oracles
from tests.losses.golden import difference, golden
from tests.losses.helpers import agrees_with_oracle, batches, value_and_gradients


@pytest.mark.parametrize("case", golden("multi_similarity", "pml"))
def test_agrees_with_pytorch_metric_learning(case):
    """With its miner and without."""
    names = {"alpha": "alpha", "beta": "beta", "threshold": "base", "epsilon": "epsilon"}
    arguments = {ours: case.arguments[theirs] for ours, theirs in names.items()}
    value, (gradient,) = value_and_gradients(
        lambda embeddings: tf.reduce_mean(multi_similarity_loss(case["labels"], embeddings, **arguments)),
        case["embeddings"].astype(case.dtype),
    )
    assert difference(value, case["value"]) < case.tolerance
    assert difference(gradient, case["gradient"]) < case.tolerance


@pytest.mark.parametrize("case", golden("multi_similarity", "authors"))
def test_agrees_with_the_authors(case):
    """Who leave normalising to the network: their loss is one of inner products."""
    alpha, beta = case.arguments["scale_pos"], case.arguments["scale_neg"]

    def loss(embeddings):
        products = tf.matmul(embeddings, embeddings, transpose_b=True)
        return tf.reduce_mean(_of_similarities(case["labels"], products, alpha, beta, 0.5, 0.1))

    embeddings = case["embeddings"].astype(case.dtype)
    value, (gradient,) = value_and_gradients(loss, embeddings)
    assert difference(value, case["value"]) < case.tolerance
    assert difference(gradient, case["gradient"]) < case.tolerance
    normalised = np.mean(multi_similarity_loss(case["labels"], embeddings, alpha=alpha, beta=beta))
    assert normalised == pytest.approx(float(case["value"]), abs=1e-6)


@hypothesis.settings(derandomize=True)
@hypothesis.given(
    batches(),
    st.floats(0.5, 5.0),
    st.floats(1.0, 60.0),
    st.floats(0.0, 1.0),
    st.sampled_from([None, 0.0, 0.1]),
)
def test_agrees_with_the_formula(drawn, alpha, beta, threshold, epsilon):
    """Over drawn batches, in two dimensions at least: in one, all cosines are 1 or -1, and rounding mines."""
    labels, embeddings = drawn
    embeddings = np.concatenate([embeddings, np.ones([len(embeddings), 1])], axis=1)
    chosen = {"alpha": alpha, "beta": beta, "threshold": threshold, "epsilon": epsilon}
    agrees_with_oracle(multi_similarity_loss, oracles.multi_similarity, labels, embeddings, **chosen)
