"""How large a picture is by its file's header, before anything is decoded.

The header of a few hundred bytes may say 100,000 × 100,000 pixels, and a decoder allocates the memory before
it finds that they are missing. TensorFlow ops alone, so that the exported graph can check before it decodes.
"""

from __future__ import annotations

import tensorflow as tf

# Every header but JPEG's and GIF's has the size within so many bytes.
_HEAD_BYTES = 32
_EXTENSION, _FRAME = 0x21, 0x2C
_FRAME_BYTES = 10

Header = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # pixels, longer side, whether the file looks whole


def header_pixels(encoded: tf.Tensor) -> Header:
    """The number of pixels and the longer side that decoding a file would give, and whether it looks whole.

    A GIF counts all its frames together, since the decoder unpacks them all to give the first, and at least
    the product of its widest and its highest frame, since that is the size it gives.

    Args:
        encoded: scalar string, a picture file's bytes.

    Returns:
        Two scalar int64, 0 where the bytes are no JPEG, PNG, GIF, BMP or still WebP; and scalar bool, false
        where the file has no end, or fewer bytes than it should. Every file that `decode` decodes has at
        least 1 pixel here and looks whole; one that does may still be damaged within.

    Raises:
        tf.errors.InvalidArgumentError: the header of a JPEG file is damaged.
    """
    head = _head(encoded)

    def begins(mark: bytes) -> tf.Tensor:
        return tf.strings.substr(encoded, 0, len(mark)) == tf.constant(mark)

    return tf.case(
        [
            (begins(b"\xff\xd8"), lambda: _jpeg(encoded)),
            (begins(b"\x89PNG\r\n\x1a\n"), lambda: _png(encoded, head)),
            (begins(b"GIF8"), lambda: _gif(encoded)),
            (begins(b"BM"), lambda: _bmp(encoded, head)),
            (begins(b"RIFF"), lambda: _webp(encoded, head)),
        ],
        default=lambda: _header(tf.zeros([2], tf.int64), tf.constant(False)),
    )


def is_animated_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a WebP file is animated by its header: scalar bool.

    TensorFlow (2.21 at least) decodes such a file past the end of its memory, and the process dies. Only
    the canvas's flag counts: the decoder ignores frames in a file without it.

    Args:
        encoded: scalar string, the bytes of a file that begins as a WebP does.
    """
    head = _head(encoded)
    has_canvas = tf.reduce_all(head[12:16] == tf.constant(list(b"VP8X"), tf.uint8), 0)
    return has_canvas & (_number(head, 20, 1) // 2 % 2 == 1)


def _header(sides: tf.Tensor, is_whole: tf.Tensor) -> Header:
    """For sides [2] int64."""
    return tf.reduce_prod(sides, 0), tf.reduce_max(sides, 0), is_whole


def _head(encoded: tf.Tensor) -> tf.Tensor:
    """The first bytes, zeros where the file has fewer."""
    return _bytes(tf.strings.join([tf.strings.substr(encoded, 0, _HEAD_BYTES), b"\x00" * _HEAD_BYTES]))


def _bytes(text: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(text, tf.uint8)


def _number(content: tf.Tensor, first: int, count: int, *, big_endian: bool = False) -> tf.Tensor:
    """An unsigned number of `count` bytes: scalar int64."""
    exponents = range(count - 1, -1, -1) if big_endian else range(count)
    weights = tf.constant([256**exponent for exponent in exponents], tf.int64)
    return tf.reduce_sum(tf.cast(content[first : first + count], tf.int64) * weights)


def _jpeg(encoded: tf.Tensor) -> Header:
    """What the decoder's own library reads, if the file has the marker of a picture's end."""
    content = _bytes(encoded)
    has_end = tf.reduce_any((content[:-1] == 0xFF) & (content[1:] == 0xD9))
    sides = tf.cond(
        has_end,
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64),
        lambda: tf.zeros([2], tf.int64),
    )
    return _header(sides, has_end)


def _png(encoded: tf.Tensor, head: tf.Tensor) -> Header:
    # libpng takes sides below 2³¹ alone; limited so, their product fits into 63 bits.
    limit = tf.constant(2**31 - 1, tf.int64)
    sides = [tf.minimum(_number(head, first, 4, big_endian=True), limit) for first in (16, 20)]
    is_whole = tf.strings.regex_full_match(encoded, r"\C{12}IHDR\C*IEND\C{4}\C*")
    return _header(tf.stack(sides), is_whole)


def _bmp(encoded: tf.Tensor, head: tf.Tensor) -> Header:
    """Rows are padded to four bytes, and run from top to bottom where the height is negative."""
    limit = tf.constant(2**31 - 1, tf.int64)
    pixels_at, width, height = (_number(head, first, 4) for first in (10, 18, 22))
    width, height = tf.minimum(width, limit), tf.minimum(tf.minimum(height, 2**32 - height), limit)
    row_bytes = (_number(head, 28, 2) * width + 31) // 32 * 4
    rows_there = (_size(encoded) - pixels_at) // tf.maximum(row_bytes, 1)
    return _header(tf.stack([width, height]), height <= rows_there)


def _webp(encoded: tf.Tensor, head: tf.Tensor) -> Header:
    """The three kinds: lossy, lossless, and with a canvas; an animated one has no pixels."""
    kind = tf.strings.substr(tf.strings.join([encoded, b"\x00" * _HEAD_BYTES]), 12, 4)
    bits = _number(head, 21, 4)
    sides = tf.case(
        [
            (kind == b"VP8 ", lambda: tf.stack([_number(head, 26, 2), _number(head, 28, 2)]) % 2**14),
            (kind == b"VP8L", lambda: tf.stack([bits, bits // 2**14]) % 2**14 + 1),
            (kind == b"VP8X", lambda: tf.stack([_number(head, 24, 3), _number(head, 27, 3)]) + 1),
        ],
        default=lambda: tf.zeros([2], tf.int64),
    )
    sides = tf.where(is_animated_webp(encoded), tf.zeros([2], tf.int64), sides)
    return _header(sides, _size(encoded) >= _number(head, 4, 4))


def _size(encoded: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(encoded), tf.int64)


def _gif(encoded: tf.Tensor) -> Header:
    """Walk from block to block: extensions and frames, each followed by a chain of sub-blocks."""
    content = _bytes(encoded)
    size = tf.size(content)
    content = tf.concat([content, tf.zeros([2 * _HEAD_BYTES], tf.uint8)], 0)
    last = tf.size(content) - 1

    def byte(at: tf.Tensor) -> tf.Tensor:
        return tf.cast(content[tf.minimum(at, last)], tf.int32)

    def table_bytes(packed: tf.Tensor) -> tf.Tensor:
        """The length of the table of colours after a descriptor with these flags."""
        return tf.where(packed >= 128, 3 * 2 ** (packed % 8 + 1), 0)

    def past_sub_blocks(at: tf.Tensor) -> tf.Tensor:
        """Each begins with its length; one of length 0 ends them. Beyond the file's end where none does."""
        at = tf.while_loop(
            lambda at: (at < size) & (byte(at) > 0),
            lambda at: [at + 1 + byte(at)],
            [at],
            parallel_iterations=1,
        )[0]
        return at + 1

    zero = tf.constant(0, tf.int64)

    def is_block(at: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (at < size) & ((byte(at) == _FRAME) | (byte(at) == _EXTENSION))

    def next_block(
        at: tf.Tensor, total: tf.Tensor, widest: tf.Tensor, highest: tf.Tensor, whole: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        is_frame = byte(at) == _FRAME
        width = tf.cast(byte(at + 5) + 256 * byte(at + 6), tf.int64)
        height = tf.cast(byte(at + 7) + 256 * byte(at + 8), tf.int64)
        # A frame's descriptor, its table and one byte for its codes; an extension's mark and its kind.
        length = tf.where(is_frame, _FRAME_BYTES + table_bytes(byte(at + 9)) + 1, 2)
        following = past_sub_blocks(at + length)
        return (
            following,
            total + tf.where(is_frame, width * height, zero),
            tf.maximum(widest, tf.where(is_frame, width, zero)),
            tf.maximum(highest, tf.where(is_frame, height, zero)),
            whole | (is_frame & (following <= size)),
        )

    first = 13 + table_bytes(byte(tf.constant(10)))
    _, total, widest, highest, whole = tf.while_loop(
        is_block, next_block, [first, zero, zero, zero, tf.constant(False)], parallel_iterations=1
    )
    return tf.maximum(total, widest * highest), tf.maximum(widest, highest), whole
