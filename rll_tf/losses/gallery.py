"""What the queries of a batch are compared with: the batch, that of all replicas, further embeddings."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from rll_tf.losses.inputs import as_batch


class Gallery(NamedTuple):
    """All that a batch's queries are compared with, the queries among them."""

    labels: tf.Tensor  # [N] int64
    embeddings: tf.Tensor  # [N, D]; `gallery_of` gives them about their mean
    rows: tf.Tensor  # [Q] int32: where the queries stand
    counts: tf.Tensor | None = None  # [N] bool: which are compared with; None: all


def gallery_of(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    global_gallery: bool = True,
    further: tuple[Any, ...] | None = None,
) -> Gallery:
    """The gallery of a batch that `as_batch` returned: labels [Q] and embeddings [Q, D].

    Inside a replica of a strategy it is the batches of all replicas if `global_gallery`; `further` are
    labels [M] and embeddings [M, D] besides, and if not all of them count, which do, [M] bool. Distances
    don't change when all embeddings move.
    """
    rows, counts = tf.range(tf.size(labels)), None
    if global_gallery:
        labels, embeddings, rows, _ = global_batch(labels, embeddings)
    if further is not None:
        further_labels, further_embeddings = as_batch(*further[:2])
        if len(further) > 2:
            counts = tf.concat([tf.ones_like(labels, tf.bool), further[2]], axis=0)
        labels = tf.concat([labels, further_labels], axis=0)
        embeddings = tf.concat([embeddings, tf.cast(further_embeddings, embeddings.dtype)], axis=0)
    return Gallery(labels, about_mean(embeddings), rows, counts)


def about_mean(embeddings: tf.Tensor) -> tf.Tensor:
    """Embeddings less a constant near their mean: near zero, products of vectors lose fewer digits."""
    # Of the mean 8 bits are enough, and leave numbers of few digits exact.
    mean = tf.cast(tf.reduce_mean(tf.stop_gradient(embeddings), axis=0), tf.bfloat16)
    return embeddings - tf.cast(mean, embeddings.dtype)


def global_batch(labels: tf.Tensor, embeddings: tf.Tensor) -> Gallery:
    """The batches of all replicas, labels [Q] and embeddings [Q, D] of each; gradients pass through."""
    rows = tf.range(tf.size(labels))
    replica = _replica()
    if replica is not None:
        sizes = replica.all_gather(tf.shape(labels), axis=0)
        before = tf.range(replica.num_replicas_in_sync) < replica.replica_id_in_sync_group
        rows += tf.reduce_sum(tf.where(before, sizes, 0))
    return Gallery(gather(labels), gather(embeddings), rows)


def gather(array: tf.Tensor) -> tf.Tensor:
    """The rows [Q, ...] of all replicas, in order: [N, ...]; outside a replica the array as it is.

    Gradients pass through: each replica's rows receive the sum of what all replicas send back.
    """
    replica = _replica()
    if replica is None:
        return array
    gathered = replica.all_gather(array, axis=0)
    return _with_dense_gradient(gathered) if array.dtype.is_floating else gathered


@tf.custom_gradient
def _with_dense_gradient(array: tf.Tensor):  # type: ignore[no-untyped-def]
    """The array itself: collectives take no `tf.IndexedSlices` as its gradient."""
    return tf.identity(array), tf.convert_to_tensor


def _replica() -> tf.distribute.ReplicaContext | None:
    """The context of a replica of a strategy with several; None elsewhere."""
    replica = tf.distribute.get_replica_context()
    return None if replica is None or replica.num_replicas_in_sync == 1 else replica
