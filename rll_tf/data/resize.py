"""Bilinear resizing that averages when it shrinks, of a whole picture or only of the window that is wanted."""

from __future__ import annotations

import tensorflow as tf


def resize(images: tf.Tensor, height: int, width: int, window: tf.Tensor | None = None) -> tf.Tensor:
    """Resize pictures, their aspect ratio not kept.

    Output pixel o's centre lies at c = (o + ½)·s of the input, s = input size / output size; the input pixel
    with its centre at i + ½ weighs max(0, 1 - |i + ½ - c| / max(s, 1)), the weights normalised to sum 1.
    This is `tf.image.resize(antialias=True)`, and Pillow's `BILINEAR` but that this rounds between its two
    passes and in its weights: once rounded to whole numbers, a value may differ by one.

    One axis after the other, each time with the other axis and the channels as one long row: TensorFlow's
    kernel goes along channels with the processor's full width, along columns pixel by pixel, and so takes
    about three times as long for both axes in one call.

    Args:
        images: [n, h, w, channels], uint8 or another real dtype, not empty.
        height: of the output.
        width: of the output.
        window: [2, 2] int32, first and last + 1 of the output's rows, then of its columns: only these are
            computed, each value to the last bit what it is in the whole.

    Returns:
        [n, height, width, channels] float32, or its window.
    """
    if window is None:
        window = tf.constant([[0, height], [0, width]])
    shape = tf.shape(images)
    count, channels = shape[0], images.shape[-1] or shape[3]
    rows = _resize_rows(tf.reshape(images, [count, shape[1], -1]), height, window[0])
    on_side = tf.transpose(tf.reshape(rows, [count, -1, shape[2], channels]), [0, 2, 1, 3])
    small = _resize_rows(tf.reshape(on_side, [count, shape[2], -1]), width, window[1])
    extent = window[:, 1] - window[:, 0]
    return tf.transpose(tf.reshape(small, [count, extent[1], extent[0], channels]), [0, 2, 1, 3])


def _resize_rows(rows: tf.Tensor, height: int, span: tf.Tensor) -> tf.Tensor:
    """[n, h, m] -> rows span[0] to span[1] - 1 of the resized [n, height, m], float32."""
    # Weights depend on a row's place from the first one on, so the rows above the window are computed too.
    resized = tf.raw_ops.ScaleAndTranslate(
        images=rows[:, :, tf.newaxis],
        size=tf.stack([span[1], 1]),
        scale=tf.stack([height / tf.cast(tf.shape(rows)[1], tf.float32), 1.0]),
        translation=tf.zeros(2),
        kernel_type="triangle",
        antialias=True,
    )
    return resized[:, span[0] :, 0]
