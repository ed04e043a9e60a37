"""Contrastive loss of given pairs, under TensorFlow Addons' name."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.keras_loss import BatchLoss


def contrastive_loss(y_true: tf.Tensor, y_pred: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Contrastive loss of pairs (Hadsell et al. 2006, Eq. 4, without its halves), as in TensorFlow Addons.

        L = y d² + (1 - y) max(0, m - d)²

    Args:
        y_true: [N] or [N, 1], 1 where the two of a pair are the same, 0 where they are not.
        y_pred: the pairs' distances d, [N] or [N, 1] floating point.
        margin: m.

    Returns:
        One value a pair, [N] float32, or float64 for float64 distances.
    """
    distances = tf.reshape(y_pred, [-1])
    distances = distances if distances.dtype == tf.float64 else tf.cast(distances, tf.float32)
    same = tf.cast(tf.reshape(y_true, [-1]), distances.dtype)
    return same * tf.square(distances) + (1.0 - same) * tf.square(tf.nn.relu(margin - distances))


@keras.saving.register_keras_serializable(package="rll_tf")
class ContrastiveLoss(BatchLoss):
    """`contrastive_loss` for `model.compile(loss=...)`, as in TensorFlow Addons: of pairs' distances.

    Args:
        margin: as for `contrastive_loss`.
        reduction, name, dtype: as for every Keras loss.
    """

    parameters = ("margin",)

    def __init__(
        self,
        margin: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "contrastive_loss",
        *,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = margin

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value a pair, [N]."""
        return contrastive_loss(y_true, y_pred, self.margin)
