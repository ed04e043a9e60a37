"""Lifted structured loss, under TensorFlow Addons' name."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.gallery import Gallery, global_batch
from rll_tf.losses.inputs import as_batch
from rll_tf.losses.keras_loss import BatchLoss
from rll_tf.losses.pairwise import distances_within, pairs_within, row_sums


def lifted_struct_loss(labels: tf.Tensor, embeddings: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Lifted structured loss (Song et al. 2016, Eq. 4).

    With the true, not the squared distance d of embeddings that are not normalised, and P the unordered
    positive pairs:

        J_ij = d_ij + log( sum over k, y_k != y_i of exp(m - d_ik) + sum over l, y_l != y_j of exp(m - d_jl) )
        L = 1 / (2 |P|) sum over P of max(0, J_ij)².

    The negatives of both ends count, and J is squared, unlike in Eq. 3 of the Ranked List Loss paper.

    Args:
        labels: [N] or [N, 1] integers of any width, or strings.
        embeddings: [N, D] floating point.
        margin: m.

    Returns:
        A scalar, float32 or, for float64 embeddings, float64; 0 for a batch without positives or without
        negatives. In a replica of a strategy the queries are the replica's, the others those of all.

    Raises:
        ValueError: shapes or types are not as above.
    """
    return tf.reduce_mean(_values(labels, embeddings, margin))


def _values(labels: Any, embeddings: Any, margin: float) -> tf.Tensor:
    """One value per query, [N], whose mean is the loss: half of each pair's goes to each end."""
    batch = global_batch(*as_batch(labels, embeddings))
    return tf.gather(_all_values(batch, margin), batch.rows)


@functools.partial(tf.function, jit_compile=True, reduce_retracing=True)
def _all_values(batch: Gallery, margin: float) -> tf.Tensor:
    d = distances_within(batch.embeddings)
    positive, negative = pairs_within(batch.labels)
    # What is masked is so low that J of a pair without negatives is negative, but finite.
    push = tf.reduce_logsumexp(tf.where(negative, margin - d, d.dtype.min / 4), axis=1)
    highest = tf.maximum(push[:, None], push[None, :])
    lowest = tf.minimum(push[:, None], push[None, :])
    j = d + highest + tf.math.log1p(tf.exp(lowest - highest))
    squares = tf.where(positive, tf.square(tf.nn.relu(j)), 0.0)
    ordered_pairs = tf.reduce_sum(tf.cast(positive, d.dtype))
    share = tf.math.divide_no_nan(tf.cast(tf.size(batch.labels), d.dtype), 2.0 * ordered_pairs)
    return share * row_sums(squares)


@keras.saving.register_keras_serializable(package="rll_tf")
class LiftedStructLoss(BatchLoss):
    """`lifted_struct_loss` for `model.compile(loss=...)`, as in TensorFlow Addons.

    Args:
        margin: as for `lifted_struct_loss`.
        name, reduction, dtype: as for every Keras loss; the values reduced are one per query.
    """

    parameters = ("margin",)
    needs_pairs = True

    def __init__(
        self,
        margin: float = 1.0,
        name: str | None = None,
        *,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = margin

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value per query, [N]."""
        return _values(y_true, y_pred, self.margin)
