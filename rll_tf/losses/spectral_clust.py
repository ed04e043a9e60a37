"""Deep spectral clustering (Law, Urtasun and Zemel 2017)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.losses.gallery import gather
from rll_tf.losses.inputs import as_batch
from rll_tf.losses.keras_loss import BatchLoss


def spectral_clust_loss(labels: Any, embeddings: Any) -> tf.Tensor:
    """How far the batch's embeddings are from spanning the space that its labels span.

    With F [N, D] the embeddings, Y [N, K] the labels as 0 and 1, and P_A = A A+ the projection onto the
    columns of A:

        L = K - tr(P_Y P_F),        dL/dF = -2 (I - P_F) P_Y (F+)^T

    computed from F = QR in O(N D²): P_Y Q holds the class means M of Q's rows, so L = K - |M|² and
    dL/dF = -2 (M - Q (Q^T M)) R^-T. Where F has dependent columns, F+ is its pseudo-inverse. The loss does
    not change when F is multiplied by an invertible matrix; its least value is max(0, K - D). The gradient
    is the true one; the authors' code takes half of it.

    Args:
        labels: [N] or [N, 1] integers of any width, or strings.
        embeddings: [N, D] floating point, N > D, neither normalised nor centred in the authors' training.

    Returns:
        A scalar, float32 or float64 as the embeddings.

    Raises:
        ValueError: shapes or types are not as above, or N <= D, where P_F = I: the loss would be 0 whatever
            the embeddings are (tf.errors.InvalidArgumentError where N is known only when the graph runs; NaN
            if XLA compiled it).
    """
    labels, embeddings = as_batch(labels, embeddings)
    labels, embeddings = gather(labels), gather(embeddings)
    is_defined = _check_size(embeddings)
    value = _loss(embeddings, labels)
    return tf.where(is_defined, value, tf.constant(np.nan, value.dtype))


def _check_size(embeddings: tf.Tensor) -> tf.Tensor:
    """Whether there are more embeddings than dimensions in each: an error where possible, else False."""
    message = (
        "Spectral Clust needs more embeddings in a batch than dimensions in each: otherwise they span the "
        "whole space, the loss is 0 for any embeddings and trains nothing"
    )
    count, size = embeddings.shape
    if None not in (count, size):
        if count <= size:
            raise ValueError(f"{message}; got {count} embeddings of {size} dimensions")
        return tf.constant(True)
    count, size = tf.unstack(tf.shape(embeddings))
    with tf.control_dependencies([tf.debugging.assert_greater(count, size, message)]):
        return count > size


@tf.custom_gradient
def _loss(embeddings: tf.Tensor, labels: tf.Tensor):  # type: ignore[no-untyped-def]
    same = tf.cast(labels[:, None] == labels[None, :], embeddings.dtype)
    sizes = tf.reduce_sum(same, axis=1)
    q, inverse = _orthonormal(embeddings)
    means = tf.matmul(same, q) / sizes[:, None]
    value = tf.reduce_sum(1.0 / sizes) - tf.reduce_sum(tf.square(means))

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        outside = means - tf.matmul(q, tf.matmul(q, means, transpose_a=True))
        return -2.0 * upstream * tf.matmul(outside, inverse), None

    return value, gradient


def _orthonormal(embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Q [N, D], an orthonormal basis of F's columns, and W [D, D] with (F+)^T = Q W.

    Where F has lower rank, some of Q's columns are 0.
    """
    q, r = tf.linalg.qr(embeddings)
    diagonal = tf.abs(tf.linalg.diag_part(r))
    rounding = np.finfo(embeddings.dtype.as_numpy_dtype).eps * tf.cast(tf.shape(q)[0], embeddings.dtype)

    def full_rank() -> tuple[tf.Tensor, tf.Tensor]:
        identity = tf.eye(tf.shape(r)[0], dtype=r.dtype)
        return q, tf.linalg.triangular_solve(r, identity, lower=False, adjoint=True)

    def lower_rank() -> tuple[tf.Tensor, tf.Tensor]:
        s, u, v = tf.linalg.svd(r)
        kept = s > rounding * s[0]
        inverses = tf.where(kept, 1.0 / tf.where(kept, s, 1.0), 0.0)
        return tf.matmul(q, u) * tf.cast(kept, q.dtype), inverses[:, None] * tf.transpose(v)

    dependent = tf.reduce_min(diagonal) <= rounding * tf.reduce_max(diagonal)
    return tf.cond(dependent, lower_rank, full_rank)


@keras.saving.register_keras_serializable(package="rll_tf")
class SpectralClustLoss(BatchLoss):
    """`spectral_clust_loss`, whose docstring gives the formula, for `model.compile(loss=...)`.

    The batch must be larger than the embedding. It is one number for the whole batch: `sample_weight` is
    refused.

    Args:
        reduction, name: as for every Keras loss.
        dtype: "float64" computes the loss in it, whatever the embeddings' dtype is.
    """

    needs_pairs = True

    def __init__(
        self,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str = "spectral_clust_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """The loss of the batch, a scalar."""
        return spectral_clust_loss(y_true, y_pred)
