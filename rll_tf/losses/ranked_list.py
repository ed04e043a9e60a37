"""Ranked List Loss (Wang et al., CVPR 2019), equations 8 to 14."""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.pairwise import squared_distances

VARIANTS = ("paper",)


def ranked_list_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    *,
    alpha: float = 1.2,
    margin: float = 0.4,
    temperature: float = 10.0,
    variant: str = "paper",
    block_size: int | None = None,
) -> tf.Tensor:
    """Ranked List Loss of every query of a batch, each embedding being a query once.

    With d_ij = |f_i - f_j|, mined positives P*_i = {j != i, y_j = y_i, d_ij > alpha - m} and mined
    negatives N*_i = {y_j != y_i, d_ij < alpha}:

        L_i = mean over P*_i of (d_ij - (alpha - m))
            + sum over N*_i of (w_ij / sum w) (alpha - d_ij),    w_ij = exp(T (alpha - d_ij))

    and an empty set contributes exactly 0. While i is the query the other embeddings and the weights
    are constants, so with u_ij = (f_i - f_j) / d_ij (0 where d_ij = 0)

        dL_i/df_i = mean over P*_i of u_ij - sum over N*_i of (w_ij / sum w) u_ij.

    Args:
        labels: [N] or [N, 1] integers.
        embeddings: [N, D] floating point; half precision is raised to float32 first.
        alpha: distance that negatives are pushed beyond.
        margin: m; positives are pulled within alpha - m.
        temperature: T; 0 weights all mined negatives alike.
        variant: "paper".
        block_size: how many queries are judged at a time; None chooses.

    Returns:
        [N] float32, one value a query; their mean is Eq. 14.

    Raises:
        ValueError: shapes, dtypes or parameters are not as above; eagerly also where an embedding is
            not finite. Inside a tf.function such a batch gives NaN for every query.
    """
    check_parameters(alpha, margin, temperature, variant, block_size)
    labels, embeddings = _check_batch(labels, embeddings)
    values = _dense(labels, embeddings, alpha, margin, temperature)
    if tf.executing_eagerly() and not bool(tf.reduce_all(tf.math.is_finite(values))):
        raise ValueError("embeddings must be finite: got NaN or infinity")
    return values


def check_parameters(
    alpha: float, margin: float, temperature: float, variant: str, block_size: int | None
) -> None:
    """Raise ValueError unless the loss is defined for these parameters."""
    for name, value in (("alpha", alpha), ("margin", margin), ("temperature", temperature)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number: got {value!r}")
        if value < 0:
            raise ValueError(f"{name} must not be negative: got {value!r}")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}: got {variant!r}")
    if block_size is not None and (
        isinstance(block_size, bool) or not isinstance(block_size, numbers.Integral) or block_size < 1
    ):
        raise ValueError(f"block_size must be a positive integer or None: got {block_size!r}")


def _check_batch(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels [N] and embeddings [N, D] in float32 or float64."""
    labels, embeddings = tf.convert_to_tensor(labels), tf.convert_to_tensor(embeddings)
    if not embeddings.dtype.is_floating:
        raise ValueError(f"embeddings must be floating point: got {embeddings.dtype.name}")
    if embeddings.shape.rank not in (None, 2):
        raise ValueError(f"embeddings must be [N, D]: got shape {embeddings.shape}")
    if labels.shape.rank not in (None, 1) and labels.shape[1:] != [1]:
        raise ValueError(f"labels must be [N] or [N, 1], one label an embedding: got shape {labels.shape}")
    if not (labels.dtype.is_integer or labels.dtype.is_bool or labels.dtype == tf.string):
        raise ValueError(f"labels must be integers: got {labels.dtype.name}")
    labels = tf.reshape(labels, [-1])
    lengths = labels.shape[0], embeddings.shape[0]
    message = "labels and embeddings must have the same length"
    if None not in lengths:
        if lengths[0] != lengths[1]:
            raise ValueError(f"{message}: got {lengths[0]} labels, {lengths[1]} embeddings")
    else:
        check = tf.debugging.assert_equal(tf.shape(labels)[0], tf.shape(embeddings)[0], message)
        with tf.control_dependencies([] if check is None else [check]):
            labels = tf.identity(labels)
    if embeddings.dtype not in (tf.float32, tf.float64):
        embeddings = tf.cast(embeddings, tf.float32)
    return labels, embeddings


def _dense(
    labels: tf.Tensor, embeddings: tf.Tensor, alpha: float, margin: float, temperature: float
) -> tf.Tensor:
    """All queries at once; the gradient is diag(C 1) F - C F, C_ij the coefficient of f_i - f_j."""

    @tf.custom_gradient
    def forward(embeddings):  # type: ignore[no-untyped-def]
        centred = tf.cast(embeddings, tf.float64)
        poison = 0.0 * tf.reduce_sum(centred)
        centred -= tf.reduce_mean(centred, axis=0)
        squares = squared_distances(centred, centred)
        distances = tf.sqrt(squares)
        same = labels[:, None] == labels[None, :]
        positive = same & (distances > alpha - margin)
        positive = tf.linalg.set_diag(positive, tf.zeros_like(labels, tf.bool))
        negative = ~same & (distances < alpha)
        positives = tf.cast(positive, distances.dtype)
        pull = tf.math.divide_no_nan(positives, tf.reduce_sum(positives, axis=1, keepdims=True))
        nearest = tf.reduce_min(tf.where(negative, distances, alpha), axis=1, keepdims=True)
        weights = tf.where(negative, tf.exp(temperature * tf.minimum(nearest - distances, 0.0)), 0.0)
        push = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=1, keepdims=True))
        values = tf.reduce_sum(pull * (distances - (alpha - margin)) + push * (alpha - distances), axis=1)
        coefficients = tf.math.divide_no_nan(pull - push, distances)
        direction = tf.reduce_sum(coefficients, axis=1, keepdims=True) * centred
        direction = tf.cast(direction - tf.matmul(coefficients, centred) + poison, embeddings.dtype)

        def backward(upstream):  # type: ignore[no-untyped-def]
            return tf.cast(upstream[:, None], direction.dtype) * direction

        return tf.cast(values + poison, tf.float32), backward

    return forward(embeddings)


@keras.saving.register_keras_serializable(package="rll_tf")
class RankedListLoss(keras.losses.Loss):
    """Ranked List Loss as a Keras loss; `ranked_list_loss` gives its formula.

    Labels reach the function as they are: Keras casts them to the loss's dtype, in which large ids
    collide. One value a query goes through Keras's own weighting, reduction and scaling for
    distribution.

    Args:
        alpha, margin, temperature, variant, block_size: as for `ranked_list_loss`.
        reduction, name, dtype: as for every Keras loss.
    """

    def __init__(
        self,
        alpha: float = 1.2,
        margin: float = 0.4,
        temperature: float = 10.0,
        *,
        variant: str = "paper",
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "ranked_list_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_parameters(alpha, margin, temperature, variant, block_size)
        self.alpha = alpha
        self.margin = margin
        self.temperature = temperature
        self.variant = variant
        self.block_size = block_size
        self._reduce = _Values(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """The reduced loss of labels [N] or [N, 1] and embeddings [N, D]."""
        values = self.call(y_true, y_pred)
        return self._reduce(values, values, sample_weight=sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] float32, one value a query."""
        return ranked_list_loss(
            y_true,
            y_pred,
            alpha=self.alpha,
            margin=self.margin,
            temperature=self.temperature,
            variant=self.variant,
            block_size=self.block_size,
        )

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal loss."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "margin": self.margin,
            "temperature": self.temperature,
            "variant": self.variant,
            "block_size": self.block_size,
        }


class _Values(keras.losses.Loss):
    """Values computed already, to be weighted and reduced as Keras does it."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return y_pred
