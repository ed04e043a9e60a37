"""Lifted structured loss against TensorFlow Addons, tf.contrib, pytorch-metric-learning and the formula."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from rll_tf.losses import lifted_struct_loss
from tests.losses import oracles
from tests.losses.golden import difference, golden
from tests.losses.helpers import agrees_with_oracle, batches, value_and_gradients


@pytest.mark.parametrize(
    "case",
    golden("lifted_struct", "tfa", "contrib") + golden("lifted_struct", "edge_twins", edge=True),
)
def test_agrees_with_addons(case):
    """And with tf.contrib, also where two embeddings are equal."""
    value, (gradient,) = value_and_gradients(
        lambda embeddings: lifted_struct_loss(case["labels"], embeddings, **case.arguments),
        case["embeddings"],
    )
    assert difference(value, case["value"]) < case.tolerance
    assert difference(gradient, case["gradient"]) < case.tolerance


@pytest.mark.parametrize("case", golden("lifted_struct", "pml"))
def test_agrees_with_pytorch_metric_learning(case):
    """Which normalises."""
    value, (gradient,) = value_and_gradients(
        lambda embeddings: lifted_struct_loss(
            case["labels"], tf.math.l2_normalize(embeddings, axis=1), case.arguments["neg_margin"]
        ),
        case["embeddings"].astype(case.dtype),
    )
    assert difference(value, case["value"]) < case.tolerance
    assert difference(gradient, case["gradient"]) < case.tolerance


@hypothesis.settings(derandomize=True)
@hypothesis.given(batches(), st.floats(0.0, 3.0))
def test_agrees_with_the_formula(drawn, margin):
    """Over drawn batches."""
    agrees_with_oracle(lifted_struct_loss, oracles.lifted_struct, *drawn, margin=margin)


def test_far_negatives():
    """Negatives farther than exp can bear, at which TensorFlow Addons gives NaN."""
    labels, embeddings = np.array([0, 0, 1, 1]), np.array([[0.0], [1.0], [200.0], [200.5]])
    agrees_with_oracle(lifted_struct_loss, oracles.lifted_struct, labels, embeddings)
    agrees_with_oracle(lifted_struct_loss, oracles.lifted_struct, labels, 100 * embeddings, margin=1e5)
