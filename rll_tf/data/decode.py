"""A picture file's bytes to pixels, upright, in three channels; TensorFlow ops alone."""

from __future__ import annotations

import tensorflow as tf

from rll_tf.data.image_header import is_animated_webp

# An Exif block stands at the front of a JPEG file and its orientation at the front of the block.
EXIF_BYTES = 8192
_MOST_TAGS = 128
_ORIENTATION_TAG = 0x0112
# A marker, two bytes of length, a name; then come the byte order and the first directory's offset.
_SEGMENT = (0xFF, 0xE1, None, None, *b"Exif\x00\x00")
# Blue, green, red and nothing: what an 8-bit BMP's pixels mean as far as it has no palette.
_GREY_RAMP = bytes(value for grey in range(256) for value in (grey, grey, grey, 0))


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG, PNG, BMP, GIF (its first frame) or, from TensorFlow 2.19 on, still WebP from its bytes.

    Grey pictures become three equal channels, transparent ones lie on white (an alpha channel of a BMP is
    dropped), palettes are applied, CMYK (JPEG) becomes RGB without a colour profile, and a JPEG is turned
    upright as its Exif orientation says. Of a PNG with 16 bits a channel the upper 8 count, value // 256.
    JPEG pixels are those of Pillow, as both run libjpeg-turbo with the accurate integer transform; a CMYK
    value may differ by one.

    Args:
        encoded: scalar string, a picture file's bytes.

    Returns:
        [height, width, 3] uint8, RGB.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such picture, or are cut short; or a BMP has other
            than 8, 24 or 32 bits a pixel, or is compressed.
    """
    start = tf.strings.substr(encoded, 0, 2)
    image = tf.case(
        [
            (start == b"\xff\xd8", lambda: _jpeg(encoded)),
            (start == b"\x89P", lambda: _on_white(tf.io.decode_png(encoded, channels=0))),
            (start == b"BM", lambda: _bmp(encoded)),
            (start == b"RI", lambda: _webp(encoded)),
        ],
        default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
        exclusive=True,
    )
    return tf.ensure_shape(image, [None, None, 3])


def _jpeg(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    head = tf.strings.substr(encoded, 0, EXIF_BYTES)
    # Most JPEG files of data sets have no Exif block, as one quick search shows.
    has_exif = tf.strings.regex_full_match(head, r"\C*Exif\x00\x00\C*")
    return tf.cond(has_exif, lambda: _upright(image, exif_orientation(head)), lambda: image)


def _bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Palette, grey, RGB and RGBA, which `decode_image` refuses to make RGB."""
    image = tf.io.decode_bmp(encoded, channels=0)
    return tf.cond(tf.shape(image)[2] == 1, lambda: _coloured(image, encoded), lambda: image[..., :3])


def _coloured(image: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """An 8-bit BMP's colours; `decode_bmp` gives indices into its palette, even if it is compressed."""

    def number(at: int) -> tf.Tensor:
        return tf.io.decode_raw(tf.strings.substr(encoded, at, 4), tf.int32)[0]

    is_plain = tf.debugging.Assert(number(30) == 0, ["a BMP must not be compressed"])
    # The palette follows the header, which begins with its own length, and ends where the pixels begin.
    with tf.control_dependencies([is_plain]):
        first = 14 + number(14)
    palette = tf.strings.substr(encoded, first, tf.clip_by_value(number(10) - first, 0, len(_GREY_RAMP)))
    rest = tf.strings.substr(_GREY_RAMP, tf.strings.length(palette), len(_GREY_RAMP))
    colours = tf.reshape(tf.io.decode_raw(tf.strings.join([palette, rest]), tf.uint8), [256, 4])
    return tf.gather(colours[:, 2::-1], tf.cast(image[..., 0], tf.int32))


def _webp(encoded: tf.Tensor) -> tf.Tensor:
    """An animated WebP must not reach `decode_image`."""
    is_still = tf.debugging.Assert(
        ~is_animated_webp(encoded), ["a WebP must be a still picture; got an animated one"]
    )
    with tf.control_dependencies([is_still]):
        return _on_white(tf.io.decode_image(encoded, channels=0, expand_animations=False))


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Grey or colour, with alpha or without, as a white page shows it: [h, w, 1 to 4] to [h, w, 3] uint8."""
    grey = image[..., :1]
    image = tf.cond(tf.shape(image)[2] < 3, lambda: tf.concat([grey, grey, image], 2), lambda: image)

    def blended(row: tf.Tensor) -> tf.Tensor:
        values = tf.cast(image[row], tf.float32)
        shown = 255 + (values[:, :3] - 255) * values[:, 3:] / 255
        return tf.cast(tf.round(shown), tf.uint8)

    # Row by row: the whole picture in float32 takes more memory than a server allows for (BYTES_A_PIXEL).
    return tf.cond(
        tf.reduce_all(image[..., 3:] == 255),
        lambda: image[..., :3],
        lambda: tf.map_fn(blended, tf.range(tf.shape(image)[0]), fn_output_signature=tf.uint8),
    )


def exif_orientation(head: tf.Tensor) -> tf.Tensor:
    """The orientation, 1 to 8, in a JPEG file's Exif block; 1, upright, where it has none.

    Args:
        head: scalar string, the file's first bytes.

    Returns:
        Scalar int32.
    """
    # Zeros follow, so that a block that is cut short, or points beyond, reads as "no such tag".
    content = tf.concat([tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32), tf.zeros(16, tf.int32)], 0)
    last = tf.size(content) - 1

    def byte(at: tf.Tensor) -> tf.Tensor:
        return tf.gather(content, tf.clip_by_value(at, 0, last))

    window = tf.size(content) - len(_SEGMENT) + 1
    matches = [content[i : window + i] == value for i, value in enumerate(_SEGMENT) if value is not None]
    found = tf.reduce_all(matches, axis=0)
    start = tf.concat([tf.cast(tf.where(found)[:, 0], tf.int32), [last]], 0)[0] + len(_SEGMENT)
    big_endian = byte(start) == ord("M")

    def short(at: tf.Tensor) -> tf.Tensor:
        first, second = byte(at), byte(at + 1)
        return tf.where(big_endian, 256 * first + second, 256 * second + first)

    # The directory's offset has four bytes; a block has less than 64 KiB, so two of them suffice.
    directory = start + tf.where(big_endian, short(start + 6), short(start + 4))
    entries = directory + 2 + 12 * tf.range(tf.minimum(short(directory), _MOST_TAGS))
    orientation = tf.boolean_mask(short(entries + 8), short(entries) == _ORIENTATION_TAG)
    first = tf.concat([orientation, [1]], 0)[0]
    return tf.where((first >= 1) & (first <= 8), first, 1)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo an Exif orientation: 5 to 8 lie on their side, then columns, rows or both are reversed."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    rows = tf.reduce_any(orientation == [3, 4, 7, 8])
    columns = tf.reduce_any(orientation == [2, 3, 6, 7])
    image = tf.cond(rows, lambda: image[::-1], lambda: image)
    return tf.cond(columns, lambda: image[:, ::-1], lambda: image)
