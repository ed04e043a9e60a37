"""Struct Clust against tf.contrib's numbers, a slow oracle of its steps, and batches at the edge."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from rll_tf.losses import StructClustLoss, struct_clust_loss
from tests.losses.golden import golden
from tests.losses.helpers import value_and_gradients

# Of tf.contrib's float32, relative to the sums of distances whose difference the loss is.
SUMS = 1e-6


def nmi(a, b):
    """Geometric, of two labelings; 1 if both have one cluster, 0 if one has."""
    table = np.array([[np.sum((a == i) & (b == j)) for j in np.unique(b)] for i in np.unique(a)]) / len(a)
    rows, columns = table.sum(1), table.sum(0)
    if len(rows) == 1 or len(columns) == 1:
        return float(len(rows) == len(columns))
    joint = np.outer(rows, columns)
    information = np.sum(table[table > 0] * np.log(table[table > 0] / joint[table > 0]))
    return information / np.sqrt(np.sum(rows * np.log(rows)) * np.sum(columns * np.log(columns)))


def assign(d, medoids):
    """Each point's position in the medoids: the first nearest; a medoid's is its own."""
    found = np.argmin(d[:, medoids], axis=1)
    found[medoids] = np.arange(len(medoids))
    return found


def oracle(labels, embeddings, gamma):
    """The loss's steps one after another, and whether any choice was within rounding."""
    labels = np.asarray(labels)
    d = np.sqrt(((embeddings[:, None] - embeddings[None]) ** 2).sum(-1))
    close = False

    def first_best(scores):
        nonlocal close
        ordered = np.sort(scores)
        close |= len(scores) > 1 and ordered[-1] - ordered[-2] < 1e-6
        return int(np.argmax(scores))

    medoids = []
    for _ in np.unique(labels):
        free = [c for c in range(len(labels)) if c not in medoids]
        trials = [[*medoids, c] for c in free]
        scores = [-d[:, s].min(1).sum() + gamma * (1 - nmi(labels, assign(d, s))) for s in trials]
        medoids = trials[first_best(scores)]
    for _ in range(5):
        members = assign(d, medoids)
        for k in range(len(medoids)):
            inside = np.flatnonzero(members == k)
            trials = [[*medoids[:k], c, *medoids[k + 1 :]] for c in inside]
            scores = [-d[inside, s[k]].sum() + gamma * (1 - nmi(labels, assign(d, s))) for s in trials]
            medoids = trials[first_best(scores)]
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    truth = sum(d[np.ix_(each, each)].sum(0).min() for each in classes)
    found = gamma * (1 - nmi(labels, assign(d, medoids))) - d[:, medoids].min(1).sum()
    return max(0.0, found + truth), close


@pytest.mark.parametrize("case", golden("struct_clust"))
def test_equals_contrib(case):
    """Value and gradient, of the cases with the five sweeps and the geometric NMI."""
    arguments = case.arguments
    if not arguments["enable_pam_finetuning"] or arguments["margin_type"] != "nmi":
        pytest.skip("without refinement, or with another NMI, it is another loss")
    value, (gradient,) = value_and_gradients(
        lambda x: struct_clust_loss(case["labels"], x, gamma=arguments["margin_multiplier"]),
        case["embeddings"],
        compiled=True,
    )
    sums = abs(case["energy"]) + abs(case["energy_truth"])
    assert abs(value - case["value"]) < SUMS * max(1.0, sums)
    np.testing.assert_allclose(gradient, case["gradient"], atol=2e-6 * np.abs(case["gradient"]).max())


@hypothesis.given(
    st.integers(0, 2**31), st.integers(1, 5), st.integers(2, 14), st.sampled_from([0.0, 1.0, 8.0])
)
def test_equals_the_steps(seed, classes, count, gamma):
    """Batches where a choice is within rounding are left out: any is right."""
    rng = np.random.default_rng(seed)
    labels, embeddings = rng.integers(classes, size=count), rng.normal(size=[count, 3])
    expected, close = oracle(labels, embeddings, gamma)
    hypothesis.assume(not close)
    np.testing.assert_allclose(struct_clust_loss(labels, embeddings, gamma=gamma), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["one class", "all single", "copies", "collapsed", "zeros", "one image"])
def test_edges_are_finite(kind):
    """One class, or none with two images, has loss 0."""
    labels = np.arange(12) // 3
    embeddings = np.random.default_rng(0).normal(size=[12, 4]).astype(np.float32)
    if kind == "one class":
        labels[:] = 0
    elif kind == "all single":
        labels = np.arange(12)
    elif kind == "one image":
        labels, embeddings = labels[:1], embeddings[:1]
    else:
        embeddings = {"copies": embeddings[np.arange(12) % 3], "collapsed": embeddings * 0 + 1}.get(
            kind, embeddings * 0
        )
    value, (gradient,) = value_and_gradients(
        lambda x: struct_clust_loss(labels, x), embeddings, compiled=True
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if kind in ("one class", "all single", "one image"):
        assert value == 0
        assert not gradient.any()


@pytest.mark.slow  # `test_contract.py` compiles it by default
def test_xla_computes_the_same():
    """A training step may be compiled with it inside."""
    labels, embeddings = np.repeat(np.arange(4), 3), np.random.default_rng(1).normal(size=[12, 4])
    compiled = tf.function(struct_clust_loss, jit_compile=True)
    np.testing.assert_allclose(
        compiled(tf.constant(labels), tf.constant(embeddings)), struct_clust_loss(labels, embeddings)
    )


def test_mistakes_have_clear_messages():
    """A negative gamma; weights of single images."""
    with pytest.raises(ValueError, match="gamma must not be negative: got -1"):
        struct_clust_loss([0], np.zeros([1, 2], np.float32), gamma=-1)
    with pytest.raises(ValueError, match="StructClustLoss takes no sample_weight"):
        StructClustLoss()(np.array([0, 0, 1]), np.zeros([3, 2], np.float32), sample_weight=np.ones([3]))
