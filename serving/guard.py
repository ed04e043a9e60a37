"""What an artefact rejects, in the graph and before memory is spent.

TensorFlow Serving's response is INVALID_ARGUMENT (400 by REST) with the message. A message about one picture
begins with `images[INDEX] `; `serving.client.parse_rejection` reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from rll_tf.data import header_pixels

# How many of a rejected picture's first bytes the message shows.
_SHOWN_BYTES = 8
_HEX = [f" {value:02x}" for value in range(256)]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The largest request that an artefact accepts.

    The first of resizing's two passes gives resize_px × w pixels, so a thin picture takes more memory than
    its own pixels do: no side may be longer than `longest_side`.

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
        """How long a picture's side may be: with the other one resized it has at most `max_pixels` pixels."""
        return max(self.max_pixels // resize_px, resize_px)

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

    def check_encoded(self, encoded: tf.Tensor, index: tf.Tensor, resize_px: int) -> tf.Tensor:
        """A picture file's bytes [] as they are, if they look like one and its size is within the limits.

        Only headers and endings are read; what is damaged within, the decoder rejects.

        Args:
            encoded: the bytes.
            index: the picture's number, for the message.
            resize_px: what the picture will be resized to.
        """
        claim, claimed_side, is_whole = header_pixels(encoded)
        longest = self.longest_side(resize_px)

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
            (claim <= self.max_pixels, lambda: too_many(self.max_pixels, "pixels", claim)),
            (claimed_side <= longest, lambda: too_many(longest, "pixels along a side", claimed_side)),
            ((claim > 0) & is_whole, no_picture),
        ]:
            encoded = _require(is_within, encoded, message)
        return encoded

    def check_pixels(self, pixels: tf.Tensor, resize_px: int) -> tf.Tensor:
        """[B, h, w, 3] as they are, if B is 1 to `max_batch`, h·w 1 to `max_pixels`, and no side too long.

        They are resized all at once, unlike files. So those that grow to more than four times their own
        pixels must stay within `max_pixels` together.
        """
        pixels = self.check_count(pixels, "pixels")
        shape = tf.shape(pixels, tf.int64)
        count, height, width = shape[0], shape[1], shape[2]
        size = ["; got a height of ", height, " and a width of ", width]
        pixels = _require(
            (height * width >= 1) & (height * width <= self.max_pixels),
            pixels,
            lambda: [f"each of pixels must have 1 to {self.max_pixels} pixels", *size],
        )
        longest, thin = self.longest_side(resize_px), resize_px // 4
        side = tf.maximum(height, width)
        pixels = _require(
            side <= longest,
            pixels,
            lambda: [f"each of pixels must have at most {longest} pixels along a side", *size],
        )
        return _require(
            (tf.minimum(height, width) >= thin) | (side <= resize_px) | (count * side <= longest),
            pixels,
            lambda: [
                f"pixels with a side below {thin} must have longer sides of at most {longest} together; got ",
                count, " pictures with a height of ", height, " and a width of ", width,
            ],
        )  # fmt: skip


def _require(holds: tf.Tensor, value: tf.Tensor, message: Callable[[], list[str | tf.Tensor]]) -> tf.Tensor:
    """`value`, or an error with the message's parts, which are joined only where it is raised."""

    def reject() -> tf.Tensor:
        parts = [part if isinstance(part, str) else _text(part) for part in message()]
        with tf.control_dependencies([tf.debugging.Assert(False, [tf.strings.join(parts)])]):
            return tf.identity(value)

    return tf.cond(holds, lambda: tf.identity(value), reject)


def _text(value: tf.Tensor) -> tf.Tensor:
    return value if value.dtype == tf.string else tf.strings.as_string(value)
