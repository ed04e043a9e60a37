"""Losses on the similarities of a batch to one trainable proxy a class, of a `ProxySimilarity` layer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.losses.gallery import gather
from rll_tf.losses.inputs import as_batch
from rll_tf.losses.keras_loss import BatchLoss


def proxy_nca_loss(
    labels: Any, cosines: Any, *, scale: float = 1.0, positive_in_denominator: bool = False
) -> tf.Tensor:
    """Proxy-NCA of every image (Movshovitz-Attias et al. 2017).

    With the squared distance of unit vectors d_iz = 2 - 2 cos(f_i, p_z) to the proxy of class z:

        L_i = -log( exp(-s d_iy) / sum over z != y of exp(-s d_iz) ),    y = y_i

    The paper leaves the positive out of the denominator, so L_i may be negative; many implementations have it
    in (`positive_in_denominator=True`), which is softmax cross entropy of 2 s cos.

    Args:
        labels: [N] or [N, 1] integers from 0 to C - 1.
        cosines: [N, C] floating point, each embedding's cosine similarity to each class's proxy.
        scale: s; norms of s_x and s_p of embeddings and proxies make it s_x s_p.
        positive_in_denominator: whether the sum goes over all z.

    Returns:
        [N] float32, or float64 for float64 cosines, one value an image.

    Raises:
        ValueError: shapes, types or parameters are not as above, or one class has no negatives
            (tf.errors.InvalidArgumentError for labels out of range; NaN for these if XLA compiled it).
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive: got {scale!r}")
    labels, cosines, known = _batch(labels, cosines)
    if cosines.shape[1] == 1 and not positive_in_denominator:
        raise ValueError("Proxy-NCA needs at least 2 classes: one alone has no negatives")
    logits, own = 2.0 * scale * cosines, _own(labels, cosines)
    positive = tf.reduce_sum(tf.where(own, logits, 0.0), axis=1)
    others = logits if positive_in_denominator else tf.where(own, tf.constant(-np.inf, logits.dtype), logits)
    return _nan_unless(known, tf.reduce_logsumexp(others, axis=1) - positive)


def proxy_anchor_loss(labels: Any, cosines: Any, *, alpha: float = 32.0, delta: float = 0.1) -> tf.Tensor:
    """Proxy-Anchor loss of a batch (Kim et al. 2020).

    With S_xp the cosine similarity of image x to the proxy p of C classes, P+ those with one in the batch:

        L = 1/|P+| sum over P+ of log(1 + sum over x of class p of exp(-alpha (S_xp - delta)))
          + 1/C sum over all p of log(1 + sum over x of other classes of exp(alpha (S_xp + delta)))

    Args:
        labels: [N] or [N, 1] integers from 0 to C - 1.
        cosines: [N, C] floating point, each embedding's cosine similarity to each class's proxy.
        alpha: the scale.
        delta: the margin.

    Returns:
        A scalar, float32 or float64 as the cosines.

    Raises:
        ValueError: shapes, types or parameters are not as above (tf.errors.InvalidArgumentError for labels
            out of range; NaN for these if XLA compiled it).
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive: got {alpha!r}")
    labels, cosines, known = _batch(labels, cosines)
    labels, cosines = gather(labels), gather(cosines)
    own = _own(labels, cosines)
    pull = _log_one_plus_sums(-alpha * (cosines - delta), own)
    push = _log_one_plus_sums(alpha * (cosines + delta), ~own)
    present = tf.reduce_sum(tf.cast(tf.reduce_any(own, axis=0), cosines.dtype))
    value = tf.math.divide_no_nan(tf.reduce_sum(pull), present) + tf.reduce_mean(push)
    return _nan_unless(tf.reduce_all(known), value)


def _batch(labels: Any, cosines: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Labels [N] int64, cosines [N, C], and which labels are in range, where XLA left out the check."""
    if tf.convert_to_tensor(labels).dtype == tf.string:
        raise ValueError("labels must be integers from 0 to C - 1, the proxies' numbers: got strings")
    labels, cosines = as_batch(labels, cosines)
    classes = tf.shape(cosines, tf.int64)[1]
    known = (labels >= 0) & (labels < classes)
    message = "labels must be from 0 to C - 1, C the number of proxies; got labels and C:"
    check = tf.debugging.Assert(tf.reduce_all(known), [message, labels, classes])
    with tf.control_dependencies([] if check is None else [check]):
        return labels, tf.identity(cosines), known


def _nan_unless(known: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.where(known, values, tf.constant(np.nan, values.dtype))


def _own(labels: tf.Tensor, cosines: tf.Tensor) -> tf.Tensor:
    """Which proxy is of each image's class: [N, C] bool."""
    return labels[:, None] == tf.range(tf.shape(cosines, tf.int64)[1])[None, :]


def _log_one_plus_sums(exponents: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """log(1 + sum of exp of the masked exponents) of each column: [N, C] to [C]."""
    masked = tf.where(mask, exponents, tf.constant(-np.inf, exponents.dtype))
    return tf.reduce_logsumexp(tf.concat([tf.zeros_like(exponents[:1]), masked], axis=0), axis=0)


@keras.saving.register_keras_serializable(package="rll_tf")
class ProxyNCALoss(BatchLoss):
    """`proxy_nca_loss`, whose docstring gives the formula, for the output of a `ProxySimilarity` layer.

    Args:
        scale, positive_in_denominator: as for `proxy_nca_loss`.
        reduction, name: as for every Keras loss.
        dtype: "float64" computes the loss in it, whatever the cosines' dtype is.
    """

    parameters = ("scale", "positive_in_denominator")

    def __init__(
        self,
        scale: float = 1.0,
        *,
        positive_in_denominator: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "proxy_nca_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.scale, self.positive_in_denominator = scale, positive_in_denominator

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value an image, [N]."""
        return proxy_nca_loss(y_true, y_pred, **self.arguments())


@keras.saving.register_keras_serializable(package="rll_tf")
class ProxyAnchorLoss(BatchLoss):
    """`proxy_anchor_loss`, whose docstring gives the formula, for the output of a `ProxySimilarity` layer.

    It is one number for the whole batch: `sample_weight` is refused.

    Args:
        alpha, delta: as for `proxy_anchor_loss`.
        reduction, name: as for every Keras loss.
        dtype: "float64" computes the loss in it, whatever the cosines' dtype is.
    """

    parameters = ("alpha", "delta")

    def __init__(
        self,
        alpha: float = 32.0,
        delta: float = 0.1,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str = "proxy_anchor_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.alpha, self.delta = alpha, delta

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """The loss of the batch, a scalar."""
        return proxy_anchor_loss(y_true, y_pred, **self.arguments())
