"""What every function of this room accepts as a batch: checked and brought into one form."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def as_batch(labels: Any, embeddings: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels and embeddings as tensors that can be compared and multiplied.

    Args:
        labels: [N] or [N, 1] integers of any width, booleans or strings; never cast to floating point.
        embeddings: [N, D] floating point.

    Returns:
        labels [N] and embeddings [N, D] in float32, or in float64 if they came so.

    Raises:
        ValueError: the shapes or types are others, or the lengths differ. Lengths that are unknown
            before the graph runs are compared when it does: tf.errors.InvalidArgumentError.
    """
    labels, embeddings = tf.convert_to_tensor(labels), tf.convert_to_tensor(embeddings)
    if not embeddings.dtype.is_floating:
        raise ValueError(f"embeddings must be floating point: got {embeddings.dtype.name}")
    if not embeddings.shape.is_compatible_with([None, None]):
        raise ValueError(f"embeddings must be [N, D]: got shape {embeddings.shape}")
    if not (labels.shape.is_compatible_with([None]) or labels.shape.is_compatible_with([None, 1])):
        raise ValueError(f"labels must be [N] or [N, 1], one label an embedding: got shape {labels.shape}")
    if not (labels.dtype.is_integer or labels.dtype in (tf.bool, tf.string)):
        raise ValueError(f"labels must be integers or strings: got {labels.dtype.name}")
    embeddings = tf.ensure_shape(embeddings, [None, None])
    labels = _equally_long(tf.reshape(labels, [-1]), embeddings)
    if embeddings.dtype != tf.float64:
        embeddings = tf.cast(embeddings, tf.float32)
    return labels, embeddings


def comparable(labels: tf.Tensor) -> tf.Tensor:
    """Labels [N] as numbers that are equal where the labels are."""
    if labels.dtype == tf.string:
        return tf.unique(labels).idx
    return tf.cast(labels, tf.int32) if labels.dtype == tf.bool else labels


def labels_from_keras(labels: Any) -> tf.Tensor:
    """Labels as they are, integers again where Keras has averaged them.

    Under a strategy `fit` first traces the model, in cross-replica context, on the mean of the replicas'
    first batches, in which integer labels have become floating point. Nothing is computed there.
    """
    labels = tf.convert_to_tensor(labels)
    only_traced = tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context()
    return tf.cast(labels, tf.int64) if only_traced and labels.dtype.is_floating else labels


def _equally_long(labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    message = "labels and embeddings must have the same length"
    lengths = labels.shape[0], embeddings.shape[0]
    if None not in lengths:
        if lengths[0] != lengths[1]:
            raise ValueError(f"{message}: got {lengths[0]} labels, {lengths[1]} embeddings")
        return labels
    check = tf.debugging.assert_equal(tf.shape(labels)[0], tf.shape(embeddings)[0], message)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(labels)
