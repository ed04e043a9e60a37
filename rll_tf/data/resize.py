"""Bilinear resizing that averages when it shrinks, of a whole picture or only of the part that is wanted."""

from __future__ import annotations

import tensorflow as tf


def resize(
    images: tf.Tensor, height: int, width: int, part: tuple[tf.Tensor | int, tf.Tensor | int] | None = None
) -> tf.Tensor:
    """Resize pictures, their aspect ratio not kept.

    Output pixel o's centre lies at c = (o + ½)·s of the input, s = input size / output size; the input pixel
    with its centre at i + ½ weighs max(0, 1 - |i + ½ - c| / max(s, 1)), the weights normalised to sum 1.
    This is `tf.image.resize(antialias=True)`, and Pillow's `BILINEAR` but that this rounds between its two
    passes and in its weights: once rounded, a value may differ by one.

    Args:
        images: [n, h, w, channels], uint8 or a real dtype, not empty.
        height: of the output.
        width: of the output.
        part: compute only the output's first rows and columns, so many; each value is the whole output's, to
            the last bit, as a pixel's weights are computed from its place alone.

    Returns:
        [n, height, width, channels] float32, or `part` of it.
    """
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    return tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=tf.stack(part or (height, width)),
        scale=tf.constant([height, width], tf.float32) / size,
        translation=tf.zeros(2),
        kernel_type="triangle",
        antialias=True,
    )
