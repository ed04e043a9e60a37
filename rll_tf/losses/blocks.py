"""Going through the queries of a batch a block at a time, so that nothing N x N is kept."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Rows times columns of a block chosen by itself: 8 MB of float32, which caches hold.
_BLOCK_ENTRIES = 2**21
# A block size that means one block, however many queries there are.
ALL = 0
# Fewer rows make the matrix products slow.
_SMALLEST_BLOCK = 256


def rows_at_a_time(gallery: tf.Tensor, block_size: int | None = None) -> int | tf.Tensor:
    """How many queries to judge at a time against a gallery [N, D], unless the user says."""
    if block_size is not None:
        return block_size
    if gallery.shape[0] is not None:
        return max(_BLOCK_ENTRIES // max(gallery.shape[0], 1), _SMALLEST_BLOCK)
    return tf.maximum(_BLOCK_ENTRIES // tf.maximum(tf.shape(gallery)[0], 1), _SMALLEST_BLOCK)


def in_blocks(
    function: Callable[[tf.Tensor, int | tf.Tensor], tuple[tf.Tensor, ...]],
    types: tuple[tf.DType, ...],
    first: tf.Tensor,
    count: int | tf.Tensor,
    block: int | tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Apply `function` to the rows `first` to `first + count`, at most `block` of them at a time.

    Args:
        function: takes the first row and the number of rows B, and returns arrays [B, ...].
        types: the types of these arrays.
        first: int32 scalar, the first row.
        count: how many rows.
        block: how many at a time at most, or `ALL`.

    Returns:
        The arrays of all blocks, concatenated: [count, ...].
    """
    if isinstance(block, int) and block == ALL:
        return function(first, count)
    static = isinstance(count, int) and isinstance(block, int)
    larger = max if static else tf.maximum
    blocks = larger(-(-count // block), 1)
    if static and blocks == 1:
        return function(first, count)
    # As few blocks as may be, of one length; the last begins early and repeats some rows.
    length = -(-count // blocks)
    before_last = (blocks - 1) * length

    def one_block(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return function(first + tf.minimum(number * length, count - length), length)

    def joined(array: tf.Tensor) -> tf.Tensor:
        rows = tf.reshape(array[:-1], tf.concat([[before_last], tf.shape(array)[2:]], axis=0))
        return tf.concat([rows, array[-1, length - (count - before_last) :]], axis=0)

    # One after another: side by side, they would need the memory of several.
    arrays = tf.map_fn(one_block, tf.range(blocks), fn_output_signature=types, parallel_iterations=1)
    return tuple(joined(each) for each in arrays)


def pair_masks(labels: tf.Tensor, query_labels: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which pairs of some queries and all are positive (a query itself is not), which negative.

    Args:
        labels: [N], of all.
        query_labels: [Q].
        rows: [Q] int32, which of all the queries are.

    Returns:
        Two [Q, N] bool.
    """
    same = query_labels[:, None] == labels[None, :]
    other = rows[:, None] != tf.range(tf.shape(labels)[0])[None, :]
    return same & other, ~same
