"""What every loss of this room accepts: labels and embeddings, checked and brought into one form."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def as_batch(labels: Any, embeddings: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels and embeddings as tensors that can be compared and multiplied.

    Args:
        labels: [N] or [N, 1] integers of any width, booleans or strings.
        embeddings: [N, D] floating point.

    Returns:
        labels [N] int64, equal where the labels are (strings as 63-bit hashes); embeddings [N, D] in float32,
        or in float64 if they came so.

    Raises:
        ValueError: the shapes or types are others, or the lengths differ (tf.errors.InvalidArgumentError
            where they are known only when the graph runs).
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
    labels = tf.reshape(labels, [-1])
    lengths, message = (
        (labels.shape[0], embeddings.shape[0]),
        "labels and embeddings must have the same length",
    )
    if None not in lengths and lengths[0] != lengths[1]:
        raise ValueError(f"{message}: got {lengths[0]} labels, {lengths[1]} embeddings")
    if labels.dtype == tf.string:
        labels = tf.strings.to_hash_bucket_fast(labels, tf.int64.max)
    check = tf.debugging.assert_equal(tf.shape(labels)[0], tf.shape(embeddings)[0], message)
    with tf.control_dependencies([] if check is None else [check]):
        labels = tf.cast(labels, tf.int64)  # never floating point, in which large ids collide
    embeddings = tf.ensure_shape(embeddings, [None, None])
    return labels, embeddings if embeddings.dtype == tf.float64 else tf.cast(embeddings, tf.float32)


def labels_from_keras(labels: Any) -> tf.Tensor:
    """Labels as they are, integers again where Keras has averaged them.

    Under a strategy `fit` first traces the model, in cross-replica context, on the mean of the replicas'
    first batches, in which integer labels have become floating point. Nothing is computed there.
    """
    labels = tf.convert_to_tensor(labels)
    only_traced = tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context()
    return tf.cast(labels, tf.int64) if only_traced and labels.dtype.is_floating else labels
