"""Pairwise distances, pair masks and blocks: what the losses on pairs are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from rll_tf.losses.gallery import Gallery, about_mean

# Pairs whose squared distance is below this many roundings of their squared norms count as coincident.
_COINCIDENT_ROUNDINGS = 8
# Queries times gallery of a block chosen by itself: 8 MB of float32, which caches hold. Matrix products of
# fewer rows than 256 are slow.
_BLOCK_ENTRIES, _SMALLEST_BLOCK = 2**21, 256


def distances(queries: tf.Tensor, gallery: tf.Tensor) -> tf.Tensor:
    """Euclidean distances by one matrix product: d²_ij = |q_i|² + |g_j|² - 2 q_i·g_j.

    Where d² is below 8 eps (|q_i|² + |g_j|²), eps that of the dtype, the product's rounding hides it: such
    pairs count as coincident, d = 0. For unit norm that is d < 0.0014 in float32 and 6e-8 in float64.
    Queries [Q, D] and gallery [N, D] give [Q, N].
    """
    norms = row_sums(tf.square(queries))[:, None] + row_sums(tf.square(gallery))[None, :]
    squares = norms - 2.0 * product(queries, gallery, transpose_b=True)
    resolved = squares > _COINCIDENT_ROUNDINGS * np.finfo(queries.dtype.as_numpy_dtype).eps * norms
    return tf.where(resolved, tf.sqrt(squares), 0.0)


def distances_within(embeddings: tf.Tensor, squared: bool = False) -> tf.Tensor:
    """Euclidean distances, or their squares, of all pairs of [N, D]: [N, N], to be differentiated.

    As `distances`; coincident pairs have no gradient. An embedding that is not finite has no finite distance.
    """
    embeddings = about_mean(embeddings)
    norms = row_sums(tf.square(embeddings))
    norms = norms[:, None] + norms[None, :]
    squares = norms - 2.0 * products_within(embeddings)
    coincident = squares <= _COINCIDENT_ROUNDINGS * np.finfo(squares.dtype.as_numpy_dtype).eps * norms
    if squared:
        return tf.where(~coincident, squares, 0.0)
    return tf.where(~coincident, tf.sqrt(tf.where(~coincident, squares, 1.0)), 0.0)


def cosines_within(embeddings: tf.Tensor) -> tf.Tensor:
    """Cosines of all pairs of [N, D]: [N, N]; those of a zero vector are 0."""
    return products_within(unit(embeddings))


def unit(embeddings: tf.Tensor) -> tf.Tensor:
    """Each row of [N, D] divided by its Euclidean norm; a row of zeros stays."""
    squares = tf.reduce_sum(tf.square(embeddings), axis=1, keepdims=True)
    return embeddings * tf.math.rsqrt(tf.where(squares > 0.0, squares, 1.0))


@tf.custom_gradient
def products_within(embeddings: tf.Tensor):  # type: ignore[no-untyped-def]
    """Inner products of all pairs of [N, D]: [N, N]. The gradient, too, is one product, not two."""

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return product(upstream + tf.transpose(upstream), embeddings)

    return product(embeddings, embeddings, transpose_b=True), gradient


def pairs_within(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which pairs of a batch are positive, which negative: two [N, N] bool."""
    same = labels[:, None] == labels[None, :]
    itself = tf.eye(tf.size(labels), dtype=tf.bool)
    return same & ~itself, ~same


def pair_masks(rows: tf.Tensor, gallery: Gallery) -> tuple[tf.Tensor, tf.Tensor]:
    """Which pairs of the queries at `rows` are positive, which negative: two [Q, N] bool."""
    same = tf.gather(gallery.labels, rows)[:, None] == gallery.labels[None, :]
    itself = rows[:, None] == tf.range(tf.size(gallery.labels))[None, :]
    positive, negative = same & ~itself, ~same
    if gallery.counts is not None:
        positive, negative = positive & gallery.counts, negative & gallery.counts
    return positive, negative


@functools.lru_cache(maxsize=128)
def for_all_queries(
    function: Callable[..., tuple[tf.Tensor, ...]], parameters: Any, outputs: int
) -> Callable[[Gallery], tuple[tf.Tensor, ...]]:
    """`function` of all queries of a gallery, block by block, in memory of N x block, compiled by XLA.

    Args:
        function: takes rows [B] of the gallery, the gallery and `parameters`; returns `outputs` arrays
            [B, ...] in the embeddings' dtype.
        parameters: hashable; its `block_size` is B at most, None chooses.
        outputs: how many arrays.
    """

    @functools.partial(tf.function, jit_compile=True, reduce_retracing=True)
    def apply(gallery: Gallery) -> tuple[tf.Tensor, ...]:
        sizes = gallery.rows.shape[0], gallery.labels.shape[0]
        static = None not in sizes
        count, size = sizes if static else (tf.size(gallery.rows), tf.size(gallery.labels))
        larger = max if static else tf.maximum
        block = parameters.block_size or larger(_BLOCK_ENTRIES // larger(size, 1), _SMALLEST_BLOCK)
        blocks = larger(-(-count // block), 1)
        if static and blocks == 1:
            return function(gallery.rows, gallery, parameters)
        length = -(-count // blocks)
        rows = tf.reshape(tf.pad(gallery.rows, [[0, blocks * length - count]]), [blocks, length])
        # One after another: side by side, they would need the memory of several.
        results = tf.map_fn(
            lambda block: function(block, gallery, parameters),
            rows,
            fn_output_signature=(gallery.embeddings.dtype,) * outputs,
            parallel_iterations=1,
        )
        joined = (tf.reshape(each, tf.concat([[-1], tf.shape(each)[2:]], axis=0)) for each in results)
        return tuple(each[:count] for each in joined)

    return apply


def product(a: tf.Tensor, b: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """A matrix product with the precision of its dtype, on GPUs too.

    GPUs may round float32 factors to TensorFloat-32, 10 bits, in which distances are noise. There each
    factor is split into its leading bits and the rest, and the three products that matter are added.
    """
    rounded = _has_gpu() and tf.config.experimental.tensor_float_32_execution_enabled()
    if a.dtype != tf.float32 or not rounded:
        return tf.matmul(a, b, transpose_b=transpose_b)
    high_a, high_b = _leading_bits(a), _leading_bits(b)
    parts = (high_a, high_b), (high_a, b - high_b), (a - high_a, high_b)
    return tf.add_n([tf.matmul(*part, transpose_b=transpose_b) for part in parts])


def row_sums(array: tf.Tensor) -> tf.Tensor:
    """The sums of the rows of [Q, N]: [Q]. On CPUs a product with ones: XLA's sums take twice as long."""
    if _has_gpu():
        return tf.reduce_sum(array, axis=1)
    return tf.linalg.matvec(array, tf.ones([tf.shape(array)[1]], array.dtype))


def _has_gpu() -> bool:
    return bool(tf.config.list_logical_devices("GPU"))


def _leading_bits(x: tf.Tensor) -> tf.Tensor:
    """The argument with the last 13 of its 23 fraction bits cleared."""
    return tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), ~0x1FFF), tf.float32)
