"""N-pair losses: of a batch of embeddings, and of similarities as in TensorFlow Addons."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.gallery import gather
from rll_tf.losses.inputs import as_batch
from rll_tf.losses.keras_loss import BatchLoss
from rll_tf.losses.pairwise import product


def n_pair_loss(labels: tf.Tensor, embeddings: tf.Tensor, *, l2: float = 0.002) -> tf.Tensor:
    """Multi-class N-pair loss of a batch (Sohn 2016, Eq. 7).

    The first two embeddings of each class, in the batch's order, are its anchor f_i and its positive f_i⁺;
    classes of one are left out. Over the M pairs, with inner products of embeddings that are not normalised,

        L = 1/M sum_i log(1 + sum over j != i of exp(f_i·f_j⁺ - f_i·f_i⁺))
            + l2/4 (mean |f_i|² + mean |f_i⁺|²).

    The weight of the squared norms is that of `tf.contrib.losses.metric_learning`.

    Args:
        labels: [N] or [N, 1] integers of any width, or strings.
        embeddings: [N, D] floating point.
        l2: the weight of the squared norms.

    Returns:
        A scalar, float32 or, for float64 embeddings, float64; 0 for a batch without positives. In a replica
        of a strategy it is the loss of the batches of all replicas.

    Raises:
        ValueError: shapes or types are not as above.
    """
    labels, embeddings = as_batch(labels, embeddings)
    return _n_pair(gather(labels), gather(embeddings), l2)


@functools.partial(tf.function, jit_compile=True, reduce_retracing=True)
def _n_pair(labels: tf.Tensor, embeddings: tf.Tensor, l2: float) -> tf.Tensor:
    anchors, positives, exists = _first_pairs(labels)
    anchors, positives = tf.gather(embeddings, anchors), tf.gather(embeddings, positives)
    products = product(anchors, positives, transpose_b=True)
    matching = tf.linalg.diag_part(products)
    logits = tf.where(exists[None, :], products, products.dtype.min / 4)
    values = tf.reduce_logsumexp(logits, axis=1) - matching
    values += l2 / 4 * tf.reduce_sum(tf.square(anchors) + tf.square(positives), axis=1)
    total = tf.reduce_sum(tf.where(exists, values, 0.0))
    return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(exists, total.dtype)))


def _first_pairs(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where each class's first and second embedding stand, and whether there is such a class.

    Three arrays [N // 2], as a batch of N has no more pairs and XLA needs a size that is known.
    """
    count = tf.size(labels)
    same = labels[:, None] == labels[None, :]
    earlier = tf.range(count)[None, :] < tf.range(count)[:, None]
    first = ~tf.reduce_any(same & earlier, axis=1)
    later = same & tf.transpose(earlier)
    anchor = first & tf.reduce_any(later, axis=1)
    exists, anchors = tf.math.top_k(tf.cast(anchor, tf.int32), count // 2)  # of equals the earlier is first
    positives = tf.argmax(tf.gather(later, anchors), axis=1, output_type=tf.int32)
    return anchors, positives, exists > 0


def npairs_loss(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """N-pair loss of similarities (Sohn 2016, Eq. 7), as in TensorFlow Addons.

    The cross entropy of each row's softmax, the target spread evenly over the columns of the row's label;
    without the term of the norms, which belongs to the embeddings.

    Args:
        y_true: labels, [N] or [N, 1] integers of any width, or strings.
        y_pred: similarities [N, N] of the anchors (rows) to the positives (columns), floating point.

    Returns:
        The mean over the rows, a scalar.

    Raises:
        ValueError: shapes or types are not as above.
    """
    return tf.reduce_mean(_npairs(y_true, y_pred))


def npairs_multilabel_loss(y_true: tf.Tensor | tf.SparseTensor, y_pred: tf.Tensor) -> tf.Tensor:
    """N-pair loss of similarities where an image has several labels, as in TensorFlow Addons.

    The target of row i is |Y_i ∩ Y_j| over its sum; a row without labels counts 0.

    Args:
        y_true: [N, classes] 0 or 1, dense or sparse.
        y_pred: similarities [N, N] of the anchors (rows) to the positives (columns), floating point.

    Returns:
        The mean over the rows, a scalar.

    Raises:
        ValueError: the similarities' shape or type is not as above.
    """
    return tf.reduce_mean(_npairs_multilabel(y_true, y_pred))


def _npairs(labels: Any, similarities: Any) -> tf.Tensor:
    """One value per row, [N]."""
    labels, similarities = as_batch(labels, similarities)
    return _cross_entropy(labels[:, None] == labels[None, :], similarities)


def _npairs_multilabel(labels: Any, similarities: Any) -> tf.Tensor:
    """One value per row, [N]."""
    labels = tf.sparse.to_dense(labels) if isinstance(labels, tf.SparseTensor) else labels
    rows = tf.range(tf.shape(labels)[0])
    _, similarities = as_batch(rows, similarities)
    labels = tf.cast(labels, similarities.dtype)
    return _cross_entropy(tf.matmul(labels, labels, transpose_b=True), similarities)


def _cross_entropy(targets: tf.Tensor, similarities: tf.Tensor) -> tf.Tensor:
    """Cross entropy of each row's softmax with the targets [N, N] over their sum; 0 where they are 0."""
    if not similarities.shape.is_compatible_with(targets.shape):
        raise ValueError(f"y_pred must be similarities [N, N]: got shape {similarities.shape}")
    targets = tf.cast(targets, similarities.dtype)
    targets = tf.math.divide_no_nan(targets, tf.reduce_sum(targets, axis=1, keepdims=True))
    return -tf.reduce_sum(targets * tf.nn.log_softmax(similarities), axis=1)


@keras.saving.register_keras_serializable(package="rll_tf")
class NPairLoss(BatchLoss):
    """`n_pair_loss` for `model.compile(loss=...)`. One number a batch: it takes no sample weights.

    Args:
        l2: as for `n_pair_loss`.
        reduction, name, dtype: as for every Keras loss.
    """

    parameters = ("l2",)
    needs_pairs = True

    def __init__(
        self,
        *,
        l2: float = 0.002,
        reduction: str | None = "sum_over_batch_size",
        name: str = "n_pair_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.l2 = l2

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """The loss, a scalar."""
        return n_pair_loss(y_true, y_pred, **self.arguments())


@keras.saving.register_keras_serializable(package="rll_tf")
class NpairsLoss(BatchLoss):
    """`npairs_loss` for `model.compile(loss=...)`, as in TensorFlow Addons: of similarities [N, N].

    Args:
        name, reduction, dtype: as for every Keras loss; the values reduced are one per row.
    """

    def __init__(
        self,
        name: str = "npairs_loss",
        *,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value per row, [N]."""
        return _npairs(y_true, y_pred)


@keras.saving.register_keras_serializable(package="rll_tf")
class NpairsMultilabelLoss(BatchLoss):
    """`npairs_multilabel_loss` for `model.compile(loss=...)`, as in TensorFlow Addons.

    Args:
        name, reduction, dtype: as for every Keras loss; the values reduced are one per row.
    """

    def __init__(
        self,
        name: str = "npairs_multilabel_loss",
        *,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """The reduced loss; sparse labels become dense first."""
        y_true = tf.sparse.to_dense(y_true) if isinstance(y_true, tf.SparseTensor) else y_true
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value per row, [N]."""
        return _npairs_multilabel(y_true, y_pred)
