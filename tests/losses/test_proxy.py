"""Proxy-NCA and Proxy-Anchor against other libraries' numbers and the formulas, with the layer of proxies."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from rll_tf.losses import ProxyAnchorLoss, proxy_anchor_loss, proxy_nca_loss
from tests.losses.golden import difference, golden
from tests.losses.helpers import value_and_gradients


def cosines(embeddings, proxies):
    """Of all pairs, [N, C]."""
    return tf.matmul(tf.nn.l2_normalize(embeddings, 1), tf.nn.l2_normalize(proxies, 1), transpose_b=True)


def check(case, loss, tolerance, dtype=np.float64):
    """Value and gradients by embeddings and proxies."""
    value, gradients = value_and_gradients(
        lambda x, p: loss(case["labels"], cosines(x, p)),
        case["embeddings"].astype(dtype),
        case["proxies"].astype(dtype),
    )
    assert value.dtype == dtype
    assert difference(np.mean(value, dtype=np.float64), case["value"]) < tolerance
    for gradient, name in zip(gradients, ("gradient", "gradient_proxies"), strict=True):
        assert difference(gradient, case[name]) < tolerance


@pytest.mark.parametrize("case", golden("proxy_nca"))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_proxy_nca_equals_the_tools(case, dtype):
    """PML and dichotomies have the positive in the denominator, the paper does not."""
    arguments = case.arguments
    if arguments.get("smoothing_const"):
        pytest.skip("label smoothing is another loss")
    norms = arguments.get("scaling_x", 1) * arguments.get("scaling_p", 1)
    scale = arguments.get("scale", arguments.get("softmax_scale", norms))
    check(
        case,
        lambda y, c: proxy_nca_loss(y, c, scale=scale, positive_in_denominator=case.tool != "torch-autograd"),
        1e-10 if dtype == np.float64 else 1e-5,
        dtype,
    )


@pytest.mark.parametrize("case", golden("proxy_anchor"))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_proxy_anchor_equals_the_tools(case, dtype):
    """The authors add 1e-12 to squared norms."""
    delta = case.arguments.get("margin", case.arguments.get("mrg"))
    alpha = case.arguments["alpha"]
    tolerance = 1e-10 if dtype == np.float64 else 1e-5
    check(case, lambda y, c: proxy_anchor_loss(y, c, alpha=alpha, delta=delta), tolerance, dtype)


@hypothesis.given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 9))
def test_equal_the_formulas(seed, classes, count):
    """Term by term."""
    rng = np.random.default_rng(seed)
    labels, c = rng.integers(classes, size=count), rng.uniform(-1, 1, [count, classes])
    d = 2 - 2 * c
    expected = [
        -np.log(np.exp(-3 * d[i, y]) / sum(np.exp(-3 * d[i, z]) for z in range(classes) if z != y))
        for i, y in enumerate(labels)
    ]
    np.testing.assert_allclose(proxy_nca_loss(labels, c, scale=3.0), expected, rtol=1e-10, atol=1e-10)
    pull = [np.log1p(np.exp(-5 * (c[labels == p, p] - 0.2)).sum()) for p in np.unique(labels)]
    push = [np.log1p(np.exp(5 * (c[labels != p, p] + 0.2)).sum()) for p in range(classes)]
    np.testing.assert_allclose(
        proxy_anchor_loss(labels, c, alpha=5.0, delta=0.2), np.mean(pull) + np.mean(push), rtol=1e-10
    )


def test_far_logits_stay_finite():
    """A positive opposite its proxy beside a negative on it, with exponentials beyond float32."""
    c = np.array([[-1, 1], [1, -1]], np.float32)
    values = proxy_nca_loss([0, 0], c, scale=100.0, positive_in_denominator=True)
    np.testing.assert_allclose(values, [400, 0])
    np.testing.assert_allclose(proxy_anchor_loss([0, 0], c, alpha=1000.0), 1100 + 550, rtol=1e-3)


@pytest.mark.parametrize("loss", [proxy_nca_loss, proxy_anchor_loss])
def test_labels_out_of_range_are_an_error(loss):
    """They would be images without a proxy."""
    c = np.zeros([2, 3], np.float32)
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="from 0 to C - 1"):
            loss(labels, c)
        with pytest.raises(tf.errors.InvalidArgumentError, match="from 0 to C - 1"):
            tf.function(loss)(tf.constant(labels), c)
    assert np.isnan(tf.function(loss, jit_compile=True)(tf.constant([0, 3]), c)).any()
    with pytest.raises(ValueError, match="from 0 to C - 1, the proxies' numbers: got strings"):
        loss(["a", "b"], c)


def test_parameters_and_shapes_are_checked():
    """One class has no negatives; scales are positive."""
    with pytest.raises(ValueError, match="at least 2 classes"):
        proxy_nca_loss([0], np.zeros([1, 1], np.float32))
    with pytest.raises(ValueError, match="scale must be positive: got 0"):
        proxy_nca_loss([0], np.zeros([1, 2], np.float32), scale=0)
    with pytest.raises(ValueError, match="takes no sample_weight"):
        ProxyAnchorLoss()(np.array([0]), np.zeros([1, 2], np.float32), sample_weight=np.ones([1]))
