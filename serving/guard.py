"""What an artefact refuses, in the graph and before memory is spent.

TensorFlow Serving answers INVALID_ARGUMENT (400 over REST) with the message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from rll_tf.data import header_pixels

# How many of a refused picture's first bytes the message shows.
_SHOWN_BYTES = 8
_HEX = [f" {value:02x}" for value in range(256)]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The largest request that an artefact answers.

    The first of resizing's two passes gives resize_px × w pixels, so a thin picture takes more memory than
    its own pixels do: no side may be longer than `longest_side` tells.

    Args:
        max_pixels: of one picture, as its header claims them.
        max_batch: pictures in one request; with batching on the server's side, in what it puts together.
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
        """A picture file's bytes [] as they are, if they look like one and claim a size within the limits.

        Only looks at what headers and endings tell; what is damaged within, the decoder refuses.

        Args:
            encoded: the bytes.
            index: the picture's number, for the message.
            resize_px: what the picture will be resized to.
        """
        claim, claimed_side, is_whole = header_pixels(encoded)
        longest = self.longest_side(resize_px)

        def what_it_is() -> list[str | tf.Tensor]:
            start = tf.io.decode_raw(tf.strings.substr(encoded, 0, _SHOWN_BYTES), tf.uint8)
            shown = tf.strings.reduce_join(tf.gather(tf.constant(_HEX), tf.cast(start, tf.int32)))
            size = tf.strings.length(encoded)
            begin = tf.cond(size > 0, lambda: tf.strings.join([" that begin with", shown]), lambda: "")
            return [
                "images[",
                index,
                "] must be a whole JPEG, PNG, GIF, BMP or still WebP file; got ",
                size,
                " bytes",
                begin,
            ]

        encoded = _require(
            claim <= self.max_pixels,
            encoded,
            lambda: [
                "images[", index, f"] must have at most {self.max_pixels} pixels; its header claims ", claim
            ],
        )  # fmt: skip
        encoded = _require(
            claimed_side <= longest,
            encoded,
            lambda: [
                "images[", index, f"] must have at most {longest} pixels along a side; its header claims ",
                claimed_side,
            ],
        )  # fmt: skip
        return _require((claim > 0) & is_whole, encoded, what_it_is)

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
    """`value`, or an error with the message's parts, which are put together only where it is needed."""

    def refuse() -> tf.Tensor:
        parts = [part if isinstance(part, str) else _text(part) for part in message()]
        with tf.control_dependencies([tf.debugging.Assert(False, [tf.strings.join(parts)])]):
            return tf.identity(value)

    return tf.cond(holds, lambda: tf.identity(value), refuse)


def _text(value: tf.Tensor) -> tf.Tensor:
    return value if value.dtype == tf.string else tf.strings.as_string(value)
