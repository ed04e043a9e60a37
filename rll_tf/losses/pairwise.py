"""Pairwise distances within a batch, exact to the rounding of the embeddings themselves."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# Embeddings whose largest squared norm lies outside 2^-80 .. 2^80 are divided by their largest entry: the
# squares of larger or smaller numbers leave the range of float32.
_LARGEST_SQUARE = 2.0**80
# Not divided by less than this, whose reciprocal is finite.
_SMALLEST_UNIT = {tf.float32: 2.0**-126, tf.float64: 2.0**-1022}
# So many embeddings show well enough where all lie.
_SAMPLE = 64

# The error of d² by a matrix product as a share of |x_i|² + |x_j|²: four times its root mean square, which
# in float32 was 2^-24 for 8 to 2,048 dimensions. Far more in float64, where a narrower doubt gains nothing.
ERROR = {tf.float32: 2.0**-22, tf.float64: 2.0**-30}
# Where d² is below this share of |x_i|² + |x_j|², that error shows in d.
RESOLUTION = {tf.float32: 2.0**-10, tf.float64: 2.0**-30}


class Centred(NamedTuple):
    """Embeddings as distances are computed from them."""

    vectors: tf.Tensor  # [N, D] in units, about 0
    norms: tf.Tensor  # [N]: their squared norms
    unit: tf.Tensor  # float64 scalar: the length that the embeddings were divided by

    def slice(self, start: tf.Tensor, rows: int | tf.Tensor) -> Centred:
        """`rows` of them, from `start` on."""
        vectors = tf.slice(self.vectors, [start, 0], [rows, tf.shape(self.vectors)[1]])
        return Centred(vectors, tf.slice(self.norms, [start], [rows]), self.unit)

    def gather(self, rows: tf.Tensor) -> Centred:
        """Those at `rows`, [Q] int32."""
        return Centred(tf.gather(self.vectors, rows), tf.gather(self.norms, rows), self.unit)


def centred(embeddings: tf.Tensor, dtype: tf.DType) -> Centred:
    """Embeddings in `dtype` about 0 and in units, in which their squares are finite: nearly always 1.

    Distances do not change when a vector is taken away from all, but embeddings that share a large
    offset lose no digits to it then. Taken away is the first embedding plus the mean difference of a
    sample from it, so that a collapsed batch becomes exactly 0.

    Args:
        embeddings: [N, D] float32 or float64.
        dtype: float32 or float64.
    """

    def divided() -> Centred:
        largest = tf.reduce_max(tf.abs(embeddings))
        usable = tf.math.is_finite(largest) & (largest > 0.0)
        unit = tf.maximum(tf.where(usable, largest, tf.ones_like(largest)), _SMALLEST_UNIT[largest.dtype])
        vectors, norms = _about_zero(tf.cast(embeddings / unit, dtype))
        return Centred(vectors, norms, tf.cast(unit, tf.float64))

    vectors, norms = _about_zero(tf.cast(embeddings, dtype))
    largest = tf.reduce_max(norms)
    ordinary = (largest < _LARGEST_SQUARE) & (largest > 1.0 / _LARGEST_SQUARE)
    whole = Centred(vectors, norms, tf.ones([], tf.float64))
    return Centred(*tf.cond(ordinary, lambda: whole, divided))


def _about_zero(vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[N, D] about 0, and its squared norms [N]."""
    sample = vectors[:: max((vectors.shape[0] or 1) // _SAMPLE, 1)][:_SAMPLE]
    first = tf.reduce_sum(sample[:1], axis=0)
    vectors -= first + tf.reduce_mean(sample - first, axis=0)
    return vectors, row_sums(tf.square(vectors))


def squared_distances(gallery: Centred, queries: Centred) -> tuple[tf.Tensor, tf.Tensor]:
    """Squared Euclidean distances of queries to all by one product: d²_ij = |x_i|² + |x_j|² - 2 x_i·x_j.

    Args:
        gallery: N embeddings.
        queries: Q of them.

    Returns:
        d² [Q, N], not below 0, and |x_i|² + |x_j|² [Q, N], which its rounding error is relative to.
    """
    sums = queries.norms[:, None] + gallery.norms[None, :]
    return tf.maximum(sums - 2.0 * product(queries.vectors, gallery.vectors, transpose_b=True), 0.0), sums


def differences(query: tf.Tensor, gallery: tf.Tensor, unit: tf.Tensor) -> tf.Tensor:
    """Differences q - g_j in float64, divided by `unit`: no digit is lost where they are close.

    Args:
        query: [1, D] float32 or float64.
        gallery: [N, D], the same dtype.
        unit: float64 scalar.

    Returns:
        [N, D] float64.
    """
    return tf.cast(query, tf.float64) / unit - tf.cast(gallery, tf.float64) / unit


def product(a: tf.Tensor, b: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """A matrix product with the precision of its dtype, on GPUs too.

    TensorFlow lets GPUs round float32 factors to TensorFloat-32, 10 bits, in which distances are
    noise. There each factor is split into 10 leading bits and the rest, and the product is the sum of
    the three parts that matter.

    Args:
        a: [Q, D] float32 or float64.
        b: [D, N], the same dtype.
        transpose_b: b is [N, D].

    Returns:
        [Q, N].
    """
    if a.dtype != tf.float32 or not _tensor_float_32():
        return tf.matmul(a, b, transpose_b=transpose_b)
    high_a, high_b = _leading_bits(a), _leading_bits(b)
    parts = ((high_a, high_b), (high_a, b - high_b), (a - high_a, high_b))
    return tf.add_n([tf.matmul(left, right, transpose_b=transpose_b) for left, right in parts])


def row_sums(array: tf.Tensor) -> tf.Tensor:
    """The sums of the rows of [Q, N] float32 or float64: [Q].

    On CPUs as a product with ones: XLA's own sums take twice as long there.
    """
    if _has_gpu():
        return tf.reduce_sum(array, axis=1)
    return tf.linalg.matvec(array, tf.ones([tf.shape(array)[1]], array.dtype))


def _tensor_float_32() -> bool:
    return tf.config.experimental.tensor_float_32_execution_enabled() and _has_gpu()


def _has_gpu() -> bool:
    return bool(tf.config.list_logical_devices("GPU"))


def _leading_bits(x: tf.Tensor) -> tf.Tensor:
    """The argument with the last 13 of its 23 fraction bits cleared."""
    return tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), ~0x1FFF), tf.float32)
