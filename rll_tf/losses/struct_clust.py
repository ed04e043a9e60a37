"""Structured clustering, "Deep Metric Learning via Facility Location" (Song et al. 2017)."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.losses.gallery import gather
from rll_tf.losses.inputs import as_batch
from rll_tf.losses.keras_loss import BatchLoss
from rll_tf.losses.pairwise import distances

_SWEEPS = 5


def struct_clust_loss(labels: Any, embeddings: Any, *, gamma: float = 1.0) -> tf.Tensor:
    """How much better the best clustering of the batch is than that by class, with a margin for wrong ones.

    Of N embeddings of K classes, with d_ij = |f_i - f_j|, K medoids S and each point in the cluster of its
    nearest medoid g(S):

        F(S) = -sum_i min over j in S of d_ij
        F~   = -sum_k min over j in class k of (sum over i in class k of d_ij)
        L    = max(0, max_S {F(S) + gamma (1 - NMI(y, g(S)))} - F~)

    The maximum is sought as the authors do: greedily, one medoid after another, then in five sweeps each
    cluster in turn takes the member as its medoid that gives the best score of its own cluster's distances
    and of the whole clustering's NMI. Among equals the first wins. NMI is I / sqrt(H(y) H(g)), the geometric
    one. The gradient is that of F and F~ through the chosen distances, the choice being constant.

    The value is a sum over the batch and grows with it. Embeddings are compared as they are; the authors
    normalise them, as `StructClustLoss` does.

    Args:
        labels: [N] or [N, 1] integers of any width, or strings.
        embeddings: [N, D] floating point.
        gamma: how much a wrong clustering gains on the true one; the paper lets it decay.

    Returns:
        A scalar, float32 or float64 as the embeddings; 0 for one class, or where each is alone in its class.

    Raises:
        ValueError: shapes or types are not as above, or gamma is negative.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma must not be negative: got {gamma!r}")
    labels, embeddings = as_batch(labels, embeddings)
    labels, embeddings = gather(labels), gather(embeddings)
    nearest, true, nmi = _choose(labels, tf.stop_gradient(embeddings), tf.constant(gamma, tf.float64))
    costs, best = (_lengths(embeddings - tf.gather(embeddings, medoids)) for medoids in (true, nearest))
    excess = tf.reduce_sum(costs - best) + gamma * (1.0 - nmi)  # in float64: a small difference of large sums
    return tf.cast(tf.nn.relu(excess), embeddings.dtype)


def _lengths(vectors: tf.Tensor) -> tf.Tensor:
    """Norms of rows [N] in float64, with gradient 0 where they are 0."""
    squares = tf.reduce_sum(tf.square(tf.cast(vectors, tf.float64)), axis=1)
    positive = squares > 0.0
    return tf.where(positive, tf.sqrt(tf.where(positive, squares, 1.0)), squares)


@functools.partial(tf.function, reduce_retracing=True)
def _choose(
    labels: tf.Tensor, embeddings: tf.Tensor, gamma: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Each point's medoid in the clustering that was found [N] and in its class [N]; the former's NMI."""
    d = distances(*2 * (embeddings - tf.reduce_mean(embeddings, axis=0),))
    same = labels[:, None] == labels[None, :]
    classes = tf.argmax(same, axis=1, output_type=tf.int32)  # the first image of each class names it
    count = tf.reduce_sum(tf.cast(classes == tf.range(tf.size(classes)), tf.int32))
    medoids = _greedy(d, classes, count, gamma)
    for _ in tf.range(_SWEEPS):
        medoids = _sweep(d, classes, count, gamma, medoids)
    cluster = _two_nearest(d, medoids)[1]
    nmi = _nmi(tf.zeros_like(d[:1], tf.bool), cluster, classes)[0]
    costs = tf.reduce_sum(tf.where(same, d, 0.0), axis=1)
    true = tf.argmin(tf.where(same, costs[None, :], np.inf), axis=1, output_type=tf.int32)
    return tf.gather(medoids, cluster), true, nmi


def _greedy(d: tf.Tensor, classes: tf.Tensor, count: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """`count` medoids one after another, each that with the best score; [N], -1 after the last."""
    points = tf.range(tf.size(classes))
    itself = points[:, None] == points[None, :]
    near, cluster = tf.fill(tf.shape(points), tf.constant(np.inf, d.dtype)), tf.zeros_like(points)
    k, medoids = 0, tf.fill(tf.shape(points), -1)
    while k < count:
        moved = (d < near) | itself  # [candidates, points]; points at equal distance stay where they are
        energies = -tf.reduce_sum(tf.minimum(d, near), axis=1)
        free = tf.reduce_all(medoids[:, None] != points[None, :], axis=0)
        best = tf.argmax(tf.where(free, _scores(energies, moved, cluster, classes, gamma), -np.inf))
        near, cluster = tf.minimum(near, d[best]), tf.where(moved[best], k, cluster)
        medoids = tf.where(points == k, tf.cast(best, tf.int32), medoids)
        k += 1
    return medoids


def _sweep(
    d: tf.Tensor, classes: tf.Tensor, count: tf.Tensor, gamma: tf.Tensor, medoids: tf.Tensor
) -> tf.Tensor:
    """The medoids after each cluster in turn has taken its best member as its medoid."""
    points = tf.range(tf.size(classes))
    nearest = _two_nearest(d, medoids)
    members = nearest[1]
    k = 0
    while k < count:
        (near, cluster), (next_near, next_cluster) = nearest[:2], nearest[2:]
        near, cluster = tf.where(cluster == k, next_near, near), tf.where(cluster == k, next_cluster, cluster)
        candidates = tf.cast(tf.where(members == k)[:, 0], tf.int32)
        rows = tf.gather(d, candidates)
        moved = (rows < near) | ((rows == near) & (k < cluster))  # the earlier medoid wins ties
        moved |= candidates[:, None] == points[None, :]
        energies = -tf.reduce_sum(tf.where(members == k, rows, 0.0), axis=1)
        best = tf.gather(candidates, tf.argmax(_scores(energies, moved, cluster, classes, gamma)))
        if best != tf.gather(medoids, k):
            medoids = tf.where(points == k, best, medoids)
            nearest = _two_nearest(d, medoids)
        k += 1
    return medoids


def _two_nearest(d: tf.Tensor, medoids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Distance to and position of each point's nearest medoid, then of its second: four [N].

    The earlier of equal ones is nearer; medoids of -1 are none. A medoid belongs to itself, whatever
    coincides with it: its distance is -1.
    """
    points = tf.range(tf.size(medoids))
    medoids = tf.gather(medoids, tf.where(medoids >= 0)[:, 0])
    rows = tf.where(medoids[:, None] != points[None, :], tf.gather(d, medoids), -1.0)
    first = tf.argmin(rows, axis=0, output_type=tf.int32)
    others = tf.where(tf.range(tf.size(medoids))[:, None] != first[None, :], rows, np.inf)
    second = tf.argmin(others, axis=0, output_type=tf.int32)
    return tf.reduce_min(rows, axis=0), first, tf.reduce_min(others, axis=0), second


def _scores(
    energies: tf.Tensor, moved: tf.Tensor, cluster: tf.Tensor, classes: tf.Tensor, gamma: tf.Tensor
) -> tf.Tensor:
    return tf.cast(energies, tf.float64) + gamma * (1.0 - _nmi(moved, cluster, classes))


def _nmi(moved: tf.Tensor, cluster: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """NMI of the classes with B clusterings: [B].

    Each clustering is `cluster` [N] with the points in `moved` [B, N] taken out into a cluster of their own.
    """
    size = tf.size(classes)
    n_log_n = tf.range(tf.cast(size, tf.float64) + 1.0, dtype=tf.float64)
    n_log_n = tf.math.xlogy(n_log_n, n_log_n)
    counts = tf.cast(tf.transpose(moved), tf.int32)

    def sums(counts: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(counts, groups, size)

    def rest(groups: tf.Tensor) -> tf.Tensor:
        left = sums(tf.ones_like(groups), groups)[:, None] - sums(counts, groups)
        return tf.reduce_sum(tf.gather(n_log_n, left), axis=0)

    keys = cluster * size + classes
    joint = rest(tf.searchsorted(tf.sort(keys), keys))
    joint += tf.reduce_sum(tf.gather(n_log_n, sums(counts, classes)), axis=0)
    of_clusters = rest(cluster) + tf.gather(n_log_n, tf.reduce_sum(counts, axis=0))
    of_classes = tf.reduce_sum(tf.gather(n_log_n, sums(tf.ones_like(classes), classes)))
    whole = n_log_n[-1]
    information = whole + joint - of_clusters - of_classes
    entropies = tf.sqrt((whole - of_clusters) * (whole - of_classes))
    alike = tf.cast(whole - of_clusters + whole - of_classes <= 1e-9, tf.float64)
    return tf.where(entropies > 1e-9, information / entropies, alike)


@keras.saving.register_keras_serializable(package="rll_tf")
class StructClustLoss(BatchLoss):
    """`struct_clust_loss`, whose docstring gives the formula, for `model.compile(loss=...)`.

    It is one number for the whole batch: `sample_weight` is refused.

    Args:
        gamma: as for `struct_clust_loss`.
        normalize: divide embeddings by their Euclidean norms first, as the authors do.
        reduction, name: as for every Keras loss.
        dtype: "float64" computes the loss in it, whatever the embeddings' dtype is.
    """

    parameters = ("gamma",)
    needs_pairs = True

    def __init__(
        self,
        gamma: float = 1.0,
        *,
        normalize: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "struct_clust_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.gamma, self.normalize = gamma, normalize

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """The loss of the batch, a scalar."""
        return struct_clust_loss(y_true, y_pred, **self.arguments())
