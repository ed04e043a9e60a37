"""Bilinear resizing that averages when it shrinks, of a whole picture or only of the window wanted."""

from __future__ import annotations

import tensorflow as tf

# So many numbers are resized at a time: 32 MB of float32.
PART_VALUES = 2**23


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
    first, last = window[:, 0], window[:, 1]
    rows = _resize_rows(tf.reshape(images, [count, shape[1], -1]), height, last[0])
    # Transposed as matrices, [n, h, w·channels], which is fast; a pixel's channels stay in order.
    on_side = tf.transpose(rows, [0, 2, 1])
    columns = _resize_rows(tf.reshape(on_side, [count, shape[2], -1]), width, last[1])
    upright = tf.transpose(tf.reshape(columns, [count, last[1] * channels, last[0]]), [0, 2, 1])
    cut = upright[:, first[0] :, first[1] * channels :]
    return tf.reshape(cut, [count, last[0] - first[0], last[1] - first[1], channels])


def _resize_rows(rows: tf.Tensor, height: int, last: tf.Tensor) -> tf.Tensor:
    """[n, h, m] -> the rows before `last` of the resized [n, height, m], float32.

    A row's weights depend on its distance from the first one to the last digit, so rows above a window are
    computed too. The rows stand as the columns of pictures one pixel high: the kernel hands each row of a
    picture to another thread, which costs more than the work itself where all threads have pictures to do.
    """
    scale = tf.stack([1.0, height / tf.cast(tf.shape(rows)[1], tf.float32)])

    def resized(part: tf.Tensor) -> tf.Tensor:
        scaled = tf.raw_ops.ScaleAndTranslate(
            images=tf.expand_dims(part, 1),
            size=tf.stack([1, last]),
            scale=scale,
            translation=tf.zeros(2),
            kernel_type="triangle",
            antialias=True,
        )
        return tf.squeeze(scaled, 1)

    # The kernel makes float32 of all that it is given: of large pictures in parts, columns side by side.
    shape = tf.shape(rows, tf.int64)
    parts = -(-tf.reduce_prod(shape) // PART_VALUES)
    width = -(-shape[2] // tf.maximum(parts, 1))

    def append(first: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        part = tf.transpose(resized(rows[:, :, first : first + width]), [2, 0, 1])
        return first + width, done.write(done.size(), part)

    def in_parts() -> tf.Tensor:
        empty = tf.TensorArray(
            tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, None, None]
        )
        first = tf.zeros([], tf.int64)
        _, done = tf.while_loop(lambda at, _: at < shape[2], append, [first, empty], parallel_iterations=1)
        return tf.transpose(done.concat(), [1, 2, 0])

    return tf.cond(parts > 1, in_parts, lambda: resized(rows))
