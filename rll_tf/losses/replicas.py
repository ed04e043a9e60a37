"""The global batch, as every replica of a `tf.distribute` strategy sees it."""

from __future__ import annotations

import tensorflow as tf


def has_replicas() -> bool:
    """Whether this is a replica of a strategy with several."""
    replica = tf.distribute.get_replica_context()
    return replica is not None and replica.num_replicas_in_sync > 1


def gather_batch(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The labels and embeddings of all replicas, in order, and where this replica's own begin.

    Outside a replica of a strategy with several, the batch is returned as it is. No gradient flows
    through the gather: the gallery is constant for each query.

    Args:
        labels: [Q] integers of any width, booleans or strings.
        embeddings: [Q, D].

    Returns:
        [N] labels that are equal where theirs are, [N, D] and an int32 scalar.
    """
    start = tf.zeros([], tf.int32)
    if not has_replicas():
        return labels, embeddings, start
    replica = tf.distribute.get_replica_context()
    sizes = replica.all_gather(tf.shape(labels), axis=0)
    before = tf.range(replica.num_replicas_in_sync) < replica.replica_id_in_sync_group
    start = tf.reduce_sum(tf.where(before, sizes, 0))
    if labels.dtype == tf.string:
        labels = _gather_strings(labels, replica)
    else:  # collectives carry no narrower integers
        labels = replica.all_gather(tf.cast(labels, tf.int64), axis=0)
    return labels, replica.all_gather(embeddings, axis=0), start


def gather_values(values: tf.Tensor) -> tf.Tensor:
    """The values [Q] of all replicas, in order: [N]."""
    return tf.distribute.get_replica_context().all_gather(values, axis=0) if has_replicas() else values


def _gather_strings(strings: tf.Tensor, replica: tf.distribute.ReplicaContext) -> tf.Tensor:
    """The strings [Q] of all replicas, in order: [N]. They travel as numbers, which collectives carry."""
    lengths = replica.all_gather(tf.strings.length(strings), axis=0)
    longest = tf.maximum(tf.reduce_max(lengths), 1)
    padded = tf.io.decode_raw(strings, tf.uint8, fixed_length=longest)
    padded = replica.all_gather(tf.cast(padded, tf.int32), axis=0)
    characters = tf.gather(tf.constant([bytes([each]) for each in range(256)]), padded)
    return tf.strings.substr(tf.strings.reduce_join(characters, axis=1), tf.zeros_like(lengths), lengths)
