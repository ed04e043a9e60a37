"""Pairwise distances between two sets of embeddings."""

from __future__ import annotations

import tensorflow as tf


def squared_distances(queries: tf.Tensor, gallery: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distances by one matrix product.

    d²_ij = |q_i|² + |g_j|² - 2 q_i·g_j, raised to 0 where rounding makes it negative and set to 0
    where it is no larger than the rounding error of its own terms, so that equal rows are at distance 0.

    Args:
        queries: [Q, D] float32 or float64.
        gallery: [N, D], the same dtype.

    Returns:
        [Q, N], the same dtype.
    """
    query_norms = tf.reduce_sum(tf.square(queries), axis=1)[:, None]
    gallery_norms = tf.reduce_sum(tf.square(gallery), axis=1)[None, :]
    norms = query_norms + gallery_norms
    squares = norms - 2.0 * tf.matmul(queries, gallery, transpose_b=True)
    return tf.where(squares > 8.0 * _eps(queries.dtype) * norms, squares, 0.0)


def _eps(dtype: tf.DType) -> float:
    """The spacing of numbers near 1."""
    return {tf.float32: 2.0**-23, tf.float64: 2.0**-52}[dtype]
