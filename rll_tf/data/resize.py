"""Bilinear resizing that averages when it shrinks, as products with banded matrices.

`tf.image.resize(antialias=True)` computes the same and takes about twice as long, on a CPU and for pictures
of 500 × 375 px, where it is most of the time that a picture takes.
"""

from __future__ import annotations

import tensorflow as tf

# Rows of output that share one product: more of them waste work on zeros, fewer waste the processor's width.
_BAND = 16


def resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resize one picture, its aspect ratio not kept.

    Output pixel o's centre lies at c = (o + ½)·s of the input, s = input size / output size; the input pixel
    with its centre at i + ½ weighs max(0, 1 - |i + ½ - c| / max(s, 1)), the weights normalised to sum 1.
    This is Pillow's `BILINEAR`, which rounds between its two passes and in its weights.

    Args:
        image: [h, w, channels], any real dtype, not empty.
        height: of the output.
        width: of the output.

    Returns:
        [height, width, channels] float32.
    """
    shape = tf.shape(image)
    channels = image.shape[-1] or shape[2]
    narrow = _shrink_rows(tf.reshape(image, [shape[0], -1]), height)
    on_side = tf.transpose(tf.reshape(narrow, [height, shape[1], channels]), [1, 0, 2])
    small = _shrink_rows(tf.reshape(on_side, [shape[1], -1]), width)
    return tf.transpose(tf.reshape(small, [width, height, channels]), [1, 0, 2])


def _shrink_rows(rows: tf.Tensor, count: int) -> tf.Tensor:
    """[n, m] -> [count, m] float32: each output row a weighted mean of neighbouring rows."""
    size = tf.shape(rows)[0]
    bands = -(-count // _BAND)
    scale = tf.cast(size, tf.float32) / count
    reach = tf.maximum(scale, 1.0)
    centre = (tf.range(bands * _BAND, dtype=tf.float32) + 0.5) * scale
    centre = tf.reshape(
        tf.minimum(centre, tf.cast(size, tf.float32) - 0.5 * tf.minimum(scale, 1.0)), [bands, -1]
    )
    # The input rows that a band's outputs draw on: as many for each band, so that bands make one product.
    needed = tf.minimum(size, tf.cast(tf.math.ceil((_BAND - 1) * scale + 2 * reach), tf.int32) + 1)
    first = tf.cast(tf.floor(centre[:, 0] - reach), tf.int32)
    sources = tf.clip_by_value(first, 0, size - needed)[:, tf.newaxis] + tf.range(needed)
    distance = tf.abs(tf.cast(sources, tf.float32)[:, tf.newaxis] + 0.5 - centre[:, :, tf.newaxis])
    weights = tf.maximum(0.0, 1.0 - distance / reach)
    weights /= tf.reduce_sum(weights, axis=2, keepdims=True)
    parts = tf.matmul(weights, tf.cast(tf.gather(rows, sources), tf.float32))
    return tf.reshape(parts, [bands * _BAND, -1])[:count]
