"""What an artefact rejects, in the graph and before memory is spent.

TensorFlow Serving's response is INVALID_ARGUMENT (400 by REST) with the message. A message about one picture
begins with `images[INDEX] `; `serving.client.parse_rejection` reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from rll_tf.data import Preprocessing, header_pixels

# Above it a picture waits until no other one is decoded.
LARGE_PIXELS = 2**21
# What decoding and resizing take at most, the file aside: 11 for a progressive CMYK JPEG, 4 for most. So
# a loaded version needs at most 12 × max_pixels bytes for the one large picture that is under way, and
# 12 × LARGE_PIXELS for each request, as a request's pictures are decoded one after the other.
BYTES_A_PIXEL = 12
# How many of a rejected picture's first bytes the message shows.
_SHOWN_BYTES = 8
_HEX = [f" {value:02x}" for value in range(256)]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The largest request that an artefact accepts.

    The first of resizing's two passes gives resize_px × w pixels in float32, so a thin picture takes more
    memory than its own pixels do: no side may be longer than `longest_side`.

    Args:
        max_pixels: of one picture, by its header.
        max_batch: pictures in one request; with batching on the server's side, in the joined batch.
    """

    max_pixels: int = 64_000_000
    max_batch: int = 256

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")

    def longest_side(self, resize_px: int) -> int:
        """How long a side may be: with the other one resized, the picture has a quarter of `max_pixels`."""
        return max(self.max_pixels // (4 * resize_px), resize_px)

    def check_count(self, values: tf.Tensor, name: str) -> tf.Tensor:
        """`values` [B, ...] as they are, if B is 1 to `max_batch`."""
        # A server checks no shapes: other ranks arrive here.
        values = tf.ensure_shape(values, values.shape)
        count = tf.shape(values)[0]
        return _require(
            (count >= 1) & (count <= self.max_batch),
            values,
            lambda: [f"{name} must hold 1 to {self.max_batch} pictures; got ", count],
        )

    def prepare(self, encoded: tf.Tensor, index: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
        """`preprocessing.prepare(encoded)`, if the bytes look like a picture within the limits.

        Only headers and endings are read for that; what is damaged within, the decoder rejects. Pictures
        above `LARGE_PIXELS` are decoded and resized one at a time, however many requests are under way.

        Args:
            encoded: a picture file's bytes [].
            index: the picture's number, for the message.
            preprocessing: what the model was trained with.

        Returns:
            [input_px, input_px, 3] float32.
        """
        pixels, side, is_whole = header_pixels(encoded)
        longest = self.longest_side(preprocessing.resize_px)

        def too_many(most: int, what: str, found: tf.Tensor) -> list[str | tf.Tensor]:
            return ["images[", index, f"] must have at most {most} {what}; by its header it has ", found]

        def no_picture() -> list[str | tf.Tensor]:
            first = tf.io.decode_raw(tf.strings.substr(encoded, 0, _SHOWN_BYTES), tf.uint8)
            shown = tf.strings.reduce_join(tf.gather(tf.constant(_HEX), tf.cast(first, tf.int32)))
            size = tf.strings.length(encoded)
            begin = tf.cond(size > 0, lambda: tf.strings.join([" that begin with", shown]), lambda: "")
            kinds = "JPEG, PNG, GIF, BMP or still WebP"
            return ["images[", index, f"] must be a whole {kinds} file; got ", size, " bytes", begin]

        for is_within, message in [
            (pixels <= self.max_pixels, lambda: too_many(self.max_pixels, "pixels", pixels)),
            (side <= longest, lambda: too_many(longest, "pixels along a side", side)),
            ((pixels > 0) & is_whole, no_picture),
        ]:
            encoded = _require(is_within, encoded, message)
        return one_at_a_time(pixels > LARGE_PIXELS, lambda: preprocessing.prepare(encoded))


def one_at_a_time(waits: tf.Tensor, call: Callable[[], tf.Tensor]) -> tf.Tensor:
    """What `call` gives; of those that wait, never is more than one under way in all runs of a loaded graph.

    The lock is a resource that runs share by its name. It is released where the run fails, too.
    """

    def lock() -> tf.Tensor:
        return tf.raw_ops.MutexLock(mutex=tf.raw_ops.MutexV2(shared_name="rll_tf_large_picture"))

    def no_lock() -> tf.Tensor:  # of the same dtype
        return tf.raw_ops.EmptyTensorList(element_shape=-1, max_num_elements=0, element_dtype=tf.float32)

    held = tf.cond(waits, lock, no_lock)
    with tf.control_dependencies([held]):
        result = call()

    def release() -> tf.Tensor:
        with tf.control_dependencies([tf.raw_ops.ConsumeMutexLock(mutex_lock=held)]):
            return tf.constant(True)

    with tf.control_dependencies([result]):
        released = tf.cond(waits, release, lambda: tf.constant(True))
    with tf.control_dependencies([released]):
        return tf.identity(result)


def _require(holds: tf.Tensor, value: tf.Tensor, message: Callable[[], list[str | tf.Tensor]]) -> tf.Tensor:
    """`value`, or an error with the message's parts, which are joined only where it is raised."""

    def reject() -> tf.Tensor:
        parts = [part if isinstance(part, str) else tf.strings.as_string(part) for part in message()]
        with tf.control_dependencies([tf.debugging.Assert(False, [tf.strings.join(parts)])]):
            return tf.identity(value)

    return tf.cond(holds, lambda: tf.identity(value), reject)
